#include <fmt/format.h>

#include <optional>

#include "backend/spec/spec.h"
#include "backend/spec/template.h"

namespace sbxfs {
namespace {

// Names to values, for one side.
class Values {
 public:
  Values(const Placeholders& places, const Spec& spec, bool host)
      : places_(places), spec_(spec), host_(host) {}

  void In(std::string& text) const {
    if (text.find("{{") == std::string::npos) return;
    text = ExpandTemplate(text,
                          [this](std::string_view name) { return Of(name); });
  }

 private:
  std::optional<std::string> Of(std::string_view name) const {
    if (name == "Name" || name == "Instance") return places_.name;
    if (name == "Hostname") return places_.hostname;
    if (name == "Dir") return places_.dir;
    if (name == "User") return host_ ? places_.host_user : spec_.user;
    if (name == "UID") return host_ ? places_.host_uid : places_.uid;
    if (name == "Home") return host_ ? places_.host_home : places_.home;
    if (name == "TempDir" || name == "GlobalTempDir") return "/tmp";
    if (name == "HostOS") return "linux";
    if (name == "HostArch") return places_.host_arch;
    if (name == "SSHLocalPort") return places_.ssh_port;
    constexpr std::string_view kParam = "Param.";
    if (!name.starts_with(kParam)) return std::nullopt;
    const auto param =
        spec_.param.find(std::string(name.substr(kParam.size())));
    if (param == spec_.param.end()) return std::nullopt;
    return param->second;
  }

  const Placeholders& places_;
  const Spec& spec_;
  const bool host_;
};

}  // namespace

void Expand(const Placeholders& placeholders, Spec& spec) {
  Placeholders places = placeholders;
  Values(places, spec, false).In(spec.home);
  if (!spec.home.empty()) places.home = spec.home;
  const Values guest(places, spec, false);
  const Values host(places, spec, true);
  for (MountSpec& mount : spec.mounts) {
    host.In(mount.location);
    if (mount.location.starts_with('~')) {
      mount.location.replace(0, 1, places.host_home);
    }
    if (mount.follows) {
      mount.mount_point = mount.location;
    } else {
      guest.In(mount.mount_point);
    }
  }
  // Put in by boot.sh, for only the guest knows whom its image has already.
  Placeholders there = places;
  there.uid = "@sbxfs-uid:" + places.uid + "@";
  const Values step_values(there, spec, false);
  for (ProvisionStep& step : spec.provision) {
    for (std::string* text :
         {&step.script, &step.path, &step.content, &step.owner}) {
      step_values.In(*text);
    }
  }
  for (Probe& probe : spec.probes) {
    guest.In(probe.script);
    guest.In(probe.hint);
  }
  for (PortForward& forward : spec.port_forwards) {
    guest.In(forward.guest_socket);
    host.In(forward.host_socket);
    if (!forward.host_socket.empty() && forward.host_socket[0] != '/') {
      forward.host_socket =
          fmt::format("{}/sock/{}", places.dir, forward.host_socket);
    }
  }
  guest.In(spec.message);
  spec.egress_socket = places.dir + "/sock/.egress";
}

}  // namespace sbxfs
