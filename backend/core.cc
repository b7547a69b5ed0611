#include "backend/core.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "backend/libvirt_error.h"
#include "backend/network_filter.h"
#include "backend/run_dir.h"
#include "backend/spec/keys.h"
#include "backend/util/log.h"
#include "backend/virsh_changes.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

struct Passwd {
  std::string name;
  std::string home;
};

Passwd LookUp(uid_t uid) {
  std::vector<char> buffer(16384);
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr) {
    return {};
  }
  return {found->pw_name, found->pw_dir};
}

std::string MachineId() {
  std::ifstream file("/etc/machine-id");
  std::string id;
  std::getline(file, id);
  return id;
}

}  // namespace

std::string DataDirectory() {
  // Only an absolute path counts (XDG base directory specification).
  const char* xdg = std::getenv("XDG_DATA_HOME");
  if (xdg != nullptr && xdg[0] == '/') return std::string(xdg) + "/sbxfs";
  const char* home = std::getenv("HOME");
  std::string base = home != nullptr && home[0] == '/' ? std::string(home)
                                                       : LookUp(geteuid()).home;
  if (base.empty()) base = "/var/lib";
  return base + "/.local/share/sbxfs";
}

std::string GuestUser(uid_t uid) {
  const std::string name = LookUp(uid).name;
  const bool good = !name.empty() && name.size() <= 32 && name != "root" &&
                    (std::islower(static_cast<unsigned char>(name[0])) != 0 ||
                     name[0] == '_') &&
                    std::all_of(name.begin(), name.end(), [](unsigned char c) {
                      return std::islower(c) != 0 || std::isdigit(c) != 0 ||
                             c == '_' || c == '-';
                    });
  return good ? name : "lima";
}

std::string GuestHostname(std::string_view name) {
  std::string host = "lima-";
  for (const unsigned char c : name) {
    host += std::isalnum(c) != 0 ? static_cast<char>(std::tolower(c)) : '-';
  }
  return host;
}

Core::Core(const BackendOptions& options_arg, Connection::Listener listener)
    : options(options_arg),
      machine(MachineId()),
      data_dir(DataDirectory()),
      identity(LoadOrMakeKeyPair(data_dir + "/id_ed25519")),
      ssh_ca_file(data_dir + "/ssh_ca"),
      ssh_ca(LoadOrMakeKeyPair(ssh_ca_file).public_key),
      connection(options_arg.uri,
                 {options_arg.ssh_config, options_arg.insecure_tcp, data_dir},
                 options_arg.pool, std::move(listener), timer, workers),
      storage(connection, options_arg.pool),
      other_pool(
          options_arg.disk_pool.empty() ||
                  options_arg.disk_pool == options_arg.pool
              ? nullptr
              : std::make_unique<Storage>(connection, options_arg.disk_pool)),
      disk_storage(other_pool ? *other_pool : storage) {}

std::string Core::NameOf(const std::string& uuid) const {
  const SandboxPtr sandbox = catalog.Get(uuid);
  return sandbox == nullptr ? uuid : sandbox->name;
}

SandboxPtr Core::Reachable(const std::string& uuid, std::string_view what) {
  SandboxPtr sandbox = catalog.Get(uuid);
  if (sandbox == nullptr) {
    throw Error(ENOENT, fmt::format("{}: it is gone", what));
  }
  if (sandbox->state == State::kUnreachable) {
    connection.Nudge();
    throw Error(EHOSTDOWN, fmt::format("{}: libvirt cannot be reached ({})",
                                       what, sandbox->reason));
  }
  return sandbox;
}

Turns::Turn Core::Turn(const std::string& uuid, std::string_view what) {
  std::string verb(what);
  constexpr std::string_view kCannot = "Cannot ";
  if (verb.starts_with(kCannot)) verb.erase(0, kCannot.size());
  return turns.Take(uuid, verb, 2s);
}

DomainPtr Core::Domain(const std::string& uuid, std::string_view what) {
  const ConnPtr conn = connection.Get(what);
  DomainPtr domain(virDomainLookupByUUIDString(conn.get(), uuid.c_str()));
  if (domain == nullptr) ThrowLibvirt(what);
  return domain;
}

std::optional<DomainFacts> Core::Facts(const std::string& uuid) {
  std::optional<KeptFacts> kept;
  {
    MutexLock lock(mutex_);
    const auto found = facts_.find(uuid);
    if (found == facts_.end()) return std::nullopt;
    kept = found->second;
  }
  return kept->Whole();
}

bool Core::MayHaveNics(const std::string& uuid) {
  MutexLock lock(mutex_);
  const auto found = facts_.find(uuid);
  return found == facts_.end() || !found->second.Brief().nics.empty();
}

std::vector<SnapshotFacts> Core::SnapshotsOf(const std::string& uuid) {
  MutexLock lock(mutex_);
  const auto found = snapshots_.find(uuid);
  if (found == snapshots_.end()) return {};
  return found->second;
}

void Core::Work(const std::string& uuid, const std::string& what,
                Reply<Done> reply, std::function<void()> work) {
  workers.Run([this, uuid, what, reply, work = std::move(work)] {
    reply.Guard(what, [&] {
      (void)Reachable(uuid, what);
      const auto lost = FailWhenLost(reply, what);
      const Turns::Turn turn = Turn(uuid, what);
      {
        MutexLock lock(mutex_);
        ++works_[uuid];
      }
      try {
        work();
      } catch (...) {
        // What was taken back is seen to be by whoever is told.
        const Error error = CurrentError();
        try {
          Read(uuid);
        } catch (const Error&) {
          ReadSoon(uuid);
        }
        throw error;
      }
      reply.Ok();
    });
  });
}

uint64_t Core::Works(const std::string& uuid) {
  MutexLock lock(mutex_);
  return works_[uuid];
}

std::optional<uint64_t> Core::LayerSize(const std::string& layer) {
  MutexLock lock(mutex_);
  const auto found = layer_sizes_.find(layer);
  if (found == layer_sizes_.end()) return std::nullopt;
  return found->second;
}

void Core::NoteLayerSize(const std::string& layer, uint64_t size) {
  MutexLock lock(mutex_);
  layer_sizes_[layer] = size;
}

void Core::ForgetLayerSizes(const std::string& uuid) {
  MutexLock lock(mutex_);
  std::erase_if(layer_sizes_,
                [&](const auto& one) { return one.first.starts_with(uuid); });
}

Metadata Core::Meta(const std::string& uuid, std::string_view what) {
  auto facts = Facts(uuid);
  if (!facts) throw Error(ENOENT, fmt::format("{}: it is gone", what));
  if (!facts->metadata) {
    throw Error(EPERM,
                fmt::format("{}: it was not made by sbxfs; use virsh", what));
  }
  return std::move(*facts->metadata);
}

void Core::ChangeMeta(const std::string& uuid, std::string_view what,
                      const std::function<void(Metadata&)>& change) {
  const DomainPtr domain = Domain(uuid, what);
  const std::string old =
      TakeString(virDomainGetMetadata(domain.get(), VIR_DOMAIN_METADATA_ELEMENT,
                                      kMetadataUri, VIR_DOMAIN_AFFECT_CONFIG));
  if (old.empty()) ThrowLibvirt(what);
  std::optional<Metadata> meta = ParseMetadata(old);
  if (!meta) {
    throw Error(EIO, fmt::format("{}: its metadata was damaged by another "
                                 "libvirt client",
                                 what));
  }
  change(*meta);
  const std::string fresh = FormatMetadata(*meta);
  if (fresh == old) return;
  const auto set = [&](unsigned flags) {
    return virDomainSetMetadata(domain.get(), VIR_DOMAIN_METADATA_ELEMENT,
                                fresh.c_str(), kMetadataPrefix, kMetadataUri,
                                flags) >= 0;
  };
  if (virDomainIsActive(domain.get()) == 1) {
    if (set(VIR_DOMAIN_AFFECT_CONFIG | VIR_DOMAIN_AFFECT_LIVE)) return;
    // It may have ended just now.
    if (!LastLibvirtErrorIs(VIR_ERR_OPERATION_INVALID)) ThrowLibvirt(what);
  }
  if (!set(VIR_DOMAIN_AFFECT_CONFIG)) ThrowLibvirt(what);
}

void Core::RenewDefined(const std::string& uuid, std::string_view what,
                        const std::vector<std::string>& keys) {
  const DomainPtr domain = Domain(uuid, what);
  const std::string xml =
      TakeString(virDomainGetXMLDesc(domain.get(), VIR_DOMAIN_XML_INACTIVE));
  if (xml.empty()) ThrowLibvirt(what);
  ChangeMeta(uuid, what, [&](Metadata& meta) {
    meta.defined = RenewNote(meta.defined, xml, keys);
  });
}

void Core::ChangeRun(const std::string& uuid,
                     const std::function<void(RunInfo&)>& change) {
  constexpr char kWhat[] = "Cannot note the guest's state";
  const DomainPtr domain = Domain(uuid, kWhat);
  const std::string old =
      TakeString(virDomainGetMetadata(domain.get(), VIR_DOMAIN_METADATA_ELEMENT,
                                      kRunUri, VIR_DOMAIN_AFFECT_LIVE));
  virResetLastError();  // none is there at first
  RunInfo run = ParseRun(old);
  change(run);
  if (virDomainSetMetadata(domain.get(), VIR_DOMAIN_METADATA_ELEMENT,
                           FormatRun(run).c_str(), kRunPrefix, kRunUri,
                           VIR_DOMAIN_AFFECT_LIVE) < 0) {
    ThrowLibvirt(kWhat);
  }
}

std::vector<Layer> Core::LayersOf(const std::string& config,
                                  const std::string& bases) const {
  const HostPtr host = catalog.GetHost();
  std::vector<Layer> layers = {{"defaults.yaml", host->defaults}};
  for (Layer& base : UnpackLayers(bases)) layers.push_back(std::move(base));
  layers.push_back({"config.yaml", config});
  if (!host->overrides.empty()) {
    layers.push_back({"override.yaml", host->overrides});
  }
  return layers;
}

std::string Core::TakeBasesOf(const std::string& config) const {
  const HostPtr host = catalog.GetHost();
  return PackLayers(TakeBases(
      config, [&host](const std::string& path) -> std::optional<std::string> {
        const auto found = host->templates.find(path);
        if (found == host->templates.end()) return std::nullopt;
        return found->second.text;
      }));
}

Spec Core::SpecOf(const std::vector<Layer>& layers, const std::string& user) {
  const std::string key = user + '\n' + PackLayers(layers);
  {
    MutexLock lock(mutex_);
    const auto found = specs_.find(key);
    if (found != specs_.end()) return found->second;
  }
  std::vector<Layer> all = {{"built-in", BuiltInLayer(user)}};
  all.insert(all.end(), layers.begin(), layers.end());
  Spec spec = ParseSpec(all);
  MutexLock lock(mutex_);
  if (specs_.size() >= 64) specs_.clear();
  specs_.emplace(key, spec);
  return spec;
}

Spec Core::SpecFor(const Sandbox& sandbox) {
  return Expanded(SpecOf(sandbox), sandbox);
}

Spec Core::Expanded(const Spec& spec, const Sandbox& sandbox) {
  std::optional<unsigned> guest_uid;
  {
    MutexLock lock(mutex_);
    const auto found = facts_.find(sandbox.uuid);
    if (found != facts_.end() && found->second.Brief().metadata) {
      guest_uid = found->second.Brief().metadata->guest_uid;
    }
  }
  return Expanded(spec, sandbox, guest_uid);
}

Spec Core::Expanded(Spec spec, const Sandbox& sandbox,
                    std::optional<unsigned> guest_uid) const {
  const Passwd owner = LookUp(sandbox.uid);
  const std::string& guest_arch = ArchOf(spec);
  Placeholders places;
  places.name = sandbox.name;
  places.hostname = GuestHostname(sandbox.name);
  places.dir = RunDirectory(sandbox.uuid);
  places.uid = fmt::to_string(guest_uid.value_or(spec.uid.value_or(1000)));
  places.home = "/home/" + spec.user;
  places.host_user = owner.name;
  places.host_uid = fmt::to_string(sandbox.uid);
  places.host_home = owner.home;
  places.host_arch = guest_arch == "x86_64"    ? "amd64"
                     : guest_arch == "aarch64" ? "arm64"
                     : guest_arch == "armv7l"  ? "arm"
                                               : guest_arch;
  places.ssh_port = fmt::to_string(sandbox.ssh_port);
  Expand(places, spec);
  return spec;
}

std::vector<std::string> Core::Those(
    const std::function<bool(const std::string&, const DomainFacts&)>& fits) {
  MutexLock lock(mutex_);
  std::vector<std::string> uuids;
  for (const auto& [uuid, kept] : facts_) {
    const DomainFacts& facts = kept.Brief();
    if (fits(uuid, facts)) uuids.push_back(uuid);
  }
  return uuids;
}

std::vector<std::string> Core::WhoForwards(const std::string& uuid,
                                           const Forward& wanted) {
  return Those([&](const std::string& other, const DomainFacts& facts) {
    return other != uuid &&
           std::any_of(facts.forwards.begin(), facts.forwards.end(),
                       [&](const auto& one) { return Collide(one, wanted); });
  });
}

std::vector<NetworkNic> Core::NicsOf(std::string_view uuid,
                                     const Spec& spec) const {
  std::vector<NetworkNic> nics;
  if (!no_networks.empty() || spec.plain) return nics;
  for (std::size_t i = 0; i < spec.networks.size(); ++i) {
    const NetworkSpec& network = spec.networks[i];
    // Lima's names.
    const std::string interface = network.interface.empty()
                                      ? fmt::format("lima{}", i)
                                      : network.interface;
    nics.push_back({interface, network.name,
                    network.mac_address.empty()
                        ? MacForInterface(uuid, interface)
                        : network.mac_address,
                    spec.egress.empty() ? "" : FilterName(network.name)});
  }
  return nics;
}

std::vector<std::string> Core::WhoHasMac(const std::string& uuid,
                                         const std::string& mac) {
  auto uuids = Those([&](const std::string& other, const DomainFacts& facts) {
    return other != uuid &&
           std::any_of(facts.nics.begin(), facts.nics.end(),
                       [&](const auto& nic) { return nic.mac == mac; });
  });
  std::erase_if(uuids,
                [this](const auto& other) { return catalog.IsOff(other); });
  return uuids;
}

std::set<std::string> Core::WhoIsIn(const std::string& network) {
  std::set<std::string> names;
  for (const auto& uuid : Those([&](const auto&, const DomainFacts& facts) {
         return std::any_of(
             facts.nics.begin(), facts.nics.end(),
             [&](const auto& nic) { return nic.network == network; });
       })) {
    names.insert(NameOf(uuid));
  }
  return names;
}

std::vector<std::pair<std::string, std::string>> Core::WhoHas(
    const std::string& volume) {
  const std::string place = disk_storage.Place().Name();
  MutexLock lock(mutex_);
  std::vector<std::pair<std::string, std::string>> who;
  for (const auto& [uuid, kept] : facts_) {
    const DomainFacts& facts = kept.Brief();
    if (facts.disk_pool == place &&
        std::find(facts.disk_volumes.begin(), facts.disk_volumes.end(),
                  volume) != facts.disk_volumes.end()) {
      who.emplace_back(uuid, facts.name);
    }
  }
  return who;
}

std::set<std::string> Core::ImagesInUse() {
  MutexLock lock(mutex_);
  std::set<std::string> images;
  for (const auto& [uuid, kept] : facts_) {
    const DomainFacts& facts = kept.Brief();
    if (facts.metadata && !facts.metadata->image.empty()) {
      images.insert(facts.metadata->image);
    }
  }
  return images;
}

std::shared_ptr<void> Core::FailWhenLost(const Reply<Done>& reply,
                                         std::string_view what) {
  MutexLock lock(mutex_);
  const uint64_t number = ++last_wait_;
  waits_.emplace(number, std::pair(reply, std::string(what)));
  return {nullptr, [this, number](void*) {
            MutexLock ending(mutex_);
            waits_.erase(number);
          }};
}

void Core::Lost() {
  std::map<uint64_t, std::pair<Reply<Done>, std::string>> waits;
  {
    MutexLock lock(mutex_);
    waits.swap(waits_);
    queued_.clear();
  }
  for (const auto& [number, wait] : waits) {
    wait.first.GiveUp(
        Error(EHOSTDOWN, fmt::format("{}: the connection to libvirt was "
                                     "lost meanwhile; see .host/connection",
                                     wait.second)));
  }
  turns.Forget();
}

std::vector<std::string> Core::Strangers() {
  MutexLock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [uuid, kept] : facts_) {
    const DomainFacts& facts = kept.Brief();
    if (!facts.metadata) names.push_back(facts.name);
  }
  return names;
}

}  // namespace sbxfs
