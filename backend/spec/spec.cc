#include "backend/spec/spec.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <set>
#include <tuple>

#include "backend/spec/keys.h"
#include "backend/spec/scalar.h"
#include "backend/spec/yaml.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr char kImageUrl[] =
    "https://cloud.debian.org/images/cloud/bookworm/latest/"
    "debian-12-generic";

std::string OwnArch() {
  utsname system{};
  return uname(&system) == 0 ? system.machine : "";
}

// A text as YAML, empty for an empty one.
std::string Word(std::string_view text) {
  return text.empty() ? "" : FormatScalar(text, ValueType::kText, false, '\0');
}

bool SameImages(const Spec& a, const Spec& b) {
  return std::equal(a.images.begin(), a.images.end(), b.images.begin(),
                    b.images.end(),
                    [](const ImageSource& x, const ImageSource& y) {
                      return std::tie(x.location, x.arch, x.digest) ==
                             std::tie(y.location, y.arch, y.digest);
                    });
}

std::string ImagesSkeleton(const Spec& defaults) {
  std::string text = "# images:\n";
  for (const ImageSource& image : defaults.images) {
    text += fmt::format("#   - location: {}\n", Word(image.location));
    if (!image.arch.empty())
      text += fmt::format("#     arch: {}\n", image.arch);
    if (!image.digest.empty()) {
      text += fmt::format("#     digest: {}\n", Word(image.digest));
    }
  }
  return text;
}

// `#   key: value`, or without the value when nothing is set.
std::string Shown(std::string_view key, std::string_view value) {
  return value.empty() ? fmt::format("#   {}: null\n", key)
                       : fmt::format("#   {}: {}\n", key, value);
}

std::string UserSkeleton(const Spec& d) {
  return "# user:\n" + Shown("name", Word(d.user)) +
         Shown("uid", d.uid ? fmt::to_string(*d.uid) : "") +
         Shown("home", d.home) + Shown("shell", d.shell) +
         Shown("comment", Word(d.comment));
}

std::string CpuTypeSkeleton(const Spec& defaults) {
  std::string text = "# cpuType:\n";
  for (const auto& [arch, type] : defaults.cpu_types) {
    if (!type.empty()) text += Shown(arch, type);
  }
  if (text.ends_with(":\n")) text += Shown("x86_64", "");
  return text;
}

}  // namespace

std::string BuiltInLayer(std::string_view user) {
  return fmt::format(R"(images:
  - location: debian-12
  - location: {0}-amd64.qcow2
    arch: x86_64
  - location: {0}-arm64.qcow2
    arch: aarch64
cpus: 2
memory: 1GiB
disk: 20GiB
user:
  name: {1}
)",
                     kImageUrl, Word(IsLogin(user) ? user : "sandbox"));
}

Spec ParseSpec(const std::vector<Layer>& layers) {
  Spec spec;
  for (const Layer& layer : layers) {
    ApplyLayer(layer.name, ReadYaml(layer.name, layer.text), spec);
  }
  const auto type =
      spec.cpu_types.find(spec.arch.empty() ? OwnArch() : spec.arch);
  if (type != spec.cpu_types.end()) spec.cpu_type = type->second;
  return spec;
}

std::vector<std::string> Differences(const Spec& a, const Spec& b) {
  std::set<std::string> keys;
  const auto compare = [&](const char* key, bool same) {
    if (!same) keys.insert(key);
  };
  compare("images", SameImages(a, b));
  compare("arch", a.arch == b.arch);
  compare("cpus", a.cpus == b.cpus);
  compare("memory", a.memory == b.memory);
  compare("disk", a.disk == b.disk);
  compare("user.name", a.user == b.user);
  compare("user.uid", a.uid == b.uid);
  compare("user.home", a.home == b.home);
  compare("user.shell", a.shell == b.shell);
  compare("user.comment", a.comment == b.comment);
  compare("ssh.localPort", a.ssh_port == b.ssh_port);
  compare("ssh.loadDotSSHPubKeys",
          a.load_dot_ssh_pub_keys == b.load_dot_ssh_pub_keys);
  compare("firmware.legacyBIOS", a.legacy_bios == b.legacy_bios);
  compare("cpuType", a.cpu_types == b.cpu_types && a.cpu_type == b.cpu_type);
  compare("description", a.description == b.description);
  compare("autostart", a.autostart == b.autostart);
  return {keys.begin(), keys.end()};
}

std::string Skeleton(const Spec& d) {
  const auto flag = [](bool value) { return value ? "true" : "false"; };
  return fmt::format(
      R"(# This sandbox as it is wanted, in the words of Lima. Each key shows its
# default; take the "# " away to set it. sbxfs(5) explains them all.

# Where the disk comes from. The first of these that is there and fits is
# taken; each is a name in .host/images, an absolute path or an https URL.
{images}
# The machine. Sizes take KiB, MiB, GiB and TiB.
# cpus: {cpus}
# memory: {memory}
# disk: {disk}
# arch: {arch}

# A word about it, and whether it starts with the host.
# description: {description}
# autostart: {autostart}

# Who logs in. What is null is as the guest's system has it.
{user}
# The port on 127.0.0.1 that leads to the guest's ssh, 0 for a free one; and
# whether the public keys of ~/.ssh are let in too.
# ssh:
#   localPort: {port}
#   loadDotSSHPubKeys: {load}

# Boot as a BIOS does, not by UEFI. Null is as the image needs it.
# firmware:
#   legacyBIOS: {bios}

# Another processor than the one that sbxfs would choose, by architecture.
{cpu_type})",
      fmt::arg("images", ImagesSkeleton(d)), fmt::arg("cpus", d.cpus),
      fmt::arg("memory", FormatSize(d.memory)),
      fmt::arg("disk", FormatSize(d.disk)),
      fmt::arg("arch", d.arch.empty() ? "default" : d.arch),
      fmt::arg("description",
               d.description.empty() ? "\"\"" : Word(d.description)),
      fmt::arg("autostart", flag(d.autostart)),
      fmt::arg("user", UserSkeleton(d)), fmt::arg("port", d.ssh_port),
      fmt::arg("load", flag(d.load_dot_ssh_pub_keys)),
      fmt::arg("bios", d.legacy_bios ? flag(*d.legacy_bios) : "null"),
      fmt::arg("cpu_type", CpuTypeSkeleton(d)));
}

}  // namespace sbxfs
