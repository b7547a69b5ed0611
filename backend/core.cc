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

#include "backend/condition.h"
#include "backend/disk_names.h"
#include "backend/libvirt_error.h"
#include "backend/mounts.h"
#include "backend/pending.h"
#include "backend/run_dir.h"
#include "backend/snapshot_records.h"
#include "backend/spec/keys.h"
#include "backend/tunnels.h"
#include "backend/util/log.h"

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

std::vector<DomainPtr> ListDomains(virConnectPtr connection) {
  virDomainPtr* raw = nullptr;
  const int count = virConnectListAllDomains(connection, &raw, 0);
  if (count < 0) ThrowLibvirt("Cannot list the domains");
  std::vector<DomainPtr> domains(raw, raw + count);
  std::free(raw);
  return domains;
}

std::string UuidOf(virDomainPtr domain) {
  char uuid[VIR_UUID_STRING_BUFLEN] = "";
  virDomainGetUUIDString(domain, uuid);
  return uuid;
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
      connection(options_arg.uri, std::move(listener), timer, workers),
      storage(connection, options_arg.pool) {}

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
  MutexLock lock(mutex_);
  const auto found = facts_.find(uuid);
  if (found == facts_.end()) return std::nullopt;
  return found->second;
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
    reply.Guard([&] {
      (void)Reachable(uuid, what);
      const auto lost = FailWhenLost(reply, what);
      const Turns::Turn turn = Turn(uuid, what);
      {
        MutexLock lock(mutex_);
        ++works_[uuid];
      }
      work();
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
  unsigned flags = VIR_DOMAIN_AFFECT_CONFIG;
  if (virDomainIsActive(domain.get()) == 1) flags |= VIR_DOMAIN_AFFECT_LIVE;
  if (virDomainSetMetadata(domain.get(), VIR_DOMAIN_METADATA_ELEMENT,
                           fresh.c_str(), kMetadataPrefix, kMetadataUri,
                           flags) < 0) {
    ThrowLibvirt(what);
  }
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

Spec Core::Expanded(Spec spec, const Sandbox& sandbox) const {
  const Passwd owner = LookUp(sandbox.uid);
  const std::string& guest_arch = ArchOf(spec);
  Placeholders places;
  places.name = sandbox.name;
  places.hostname = GuestHostname(sandbox.name);
  places.dir = RunDirectory(sandbox.uuid);
  places.uid = fmt::to_string(spec.uid.value_or(1000));
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

std::vector<std::string> Core::WhoForwards(const std::string& uuid,
                                           const Forward& wanted) {
  MutexLock lock(mutex_);
  std::vector<std::string> uuids;
  for (const auto& [other, facts] : facts_) {
    if (other != uuid &&
        std::any_of(facts.forwards.begin(), facts.forwards.end(),
                    [&](const auto& one) { return Collide(one, wanted); })) {
      uuids.push_back(other);
    }
  }
  return uuids;
}

std::vector<std::pair<std::string, std::string>> Core::WhoHas(
    const std::string& volume) {
  MutexLock lock(mutex_);
  std::vector<std::pair<std::string, std::string>> who;
  for (const auto& [uuid, facts] : facts_) {
    if (std::find(facts.disk_volumes.begin(), facts.disk_volumes.end(),
                  volume) != facts.disk_volumes.end()) {
      who.emplace_back(uuid, facts.name);
    }
  }
  return who;
}

std::set<std::string> Core::ImagesInUse() {
  MutexLock lock(mutex_);
  std::set<std::string> images;
  for (const auto& [uuid, facts] : facts_) {
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
  for (const auto& [uuid, facts] : facts_) {
    if (!facts.metadata) names.push_back(facts.name);
  }
  return names;
}

void Core::ReadSoon(const std::string& uuid) {
  {
    MutexLock lock(mutex_);
    if (!queued_.insert(uuid).second) return;
  }
  workers.Run([this, uuid] {
    try {
      // Two readings of one domain must not end in the wrong order.
      const Turns::Turn turn = turns.Take("read " + uuid, "read a domain", 30s);
      {
        MutexLock lock(mutex_);
        queued_.erase(uuid);
      }
      ReadNow(uuid);
    } catch (const Error& error) {
      MutexLock lock(mutex_);
      queued_.erase(uuid);
      spdlog::debug("{}", error.Sentence());
    }
    if (on_read) on_read(uuid);
  });
}

void Core::Read(const std::string& uuid) {
  const Turns::Turn turn = turns.Take("read " + uuid, "read a domain", 10s);
  ReadNow(uuid);
}

void Core::ReadNow(const std::string& uuid) {
  const ConnPtr conn = connection.Get("Cannot read a domain");
  const DomainPtr domain(virDomainLookupByUUIDString(conn.get(), uuid.c_str()));
  if (domain == nullptr) {
    if (!LastLibvirtErrorIs(VIR_ERR_NO_DOMAIN)) {
      ThrowLibvirt("Cannot read a domain");
    }
    {
      MutexLock lock(mutex_);
      facts_.erase(uuid);
      snapshots_.erase(uuid);
    }
    ForgetLayerSizes(uuid);
    catalog.Erase(uuid);
    return;
  }
  ReadDomain(domain.get());
}

void Core::ReadDomain(virDomainPtr domain) {
  DomainFacts facts;
  std::vector<SnapshotFacts> snapshots;
  Sandbox sandbox = Describe(domain, facts, snapshots);
  const std::string uuid = sandbox.uuid;
  {
    MutexLock lock(mutex_);
    facts_[uuid] = std::move(facts);
    snapshots_[uuid] = std::move(snapshots);
  }
  // The tree has no place for names it could not make itself.
  if (!sandbox.ours && (!options.all || sandbox.name.starts_with("."))) return;
  catalog.Put(std::move(sandbox));
}

void Core::AddTunnels(Sandbox& sandbox, const std::string& xml,
                      const Spec& spec) const {
  const auto tunnels = TunnelsOf(Expanded(spec, sandbox));
  sandbox.sockets = SocketsOf(tunnels);
  constexpr std::string_view kKey = "portForwards\n";
  if (TunnelsDigest(tunnels) != NotedTunnels(xml) &&
      sandbox.pending.find(kKey) == std::string::npos) {
    sandbox.pending += kKey;
  }
}

Sandbox Core::Describe(virDomainPtr domain, DomainFacts& facts,
                       std::vector<SnapshotFacts>& snapshots) {
  constexpr char kWhat[] = "Cannot read a domain";
  int state = 0;
  int reason = 0;
  if (virDomainGetState(domain, &state, &reason, 0) < 0) ThrowLibvirt(kWhat);
  std::string xml = TakeString(virDomainGetXMLDesc(domain, 0));
  if (xml.empty()) ThrowLibvirt(kWhat);
  int autostart = 0;
  virDomainGetAutostart(domain, &autostart);
  const bool off = state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_NOSTATE;
  const bool saved = off && virDomainHasManagedSaveImage(domain, 0) == 1;
  const Condition condition =
      off ? WhenOff(reason, saved) : WhenOn(state, reason);
  facts = ParseDomain(xml);
  // A restored guest's own copy is as old as its memory: the definition's
  // counts.
  if (!off && facts.metadata) {
    const std::string defined = TakeString(
        virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, kMetadataUri,
                             VIR_DOMAIN_AFFECT_CONFIG));
    if (auto metadata = ParseMetadata(defined)) {
      facts.metadata = std::move(metadata);
    }
  }
  for (const auto& text : SnapshotTexts(domain)) {
    snapshots.push_back(ParseSnapshot(text));
  }

  const HostPtr host = catalog.GetHost();
  Sandbox sandbox;
  sandbox.uuid = facts.uuid;
  sandbox.name = facts.name;
  sandbox.ours = facts.metadata.has_value();
  sandbox.state = condition.state;
  sandbox.reason = condition.reason;
  sandbox.cpus = facts.cpus;
  sandbox.memory = facts.memory;
  sandbox.description = facts.description;
  sandbox.autostart = autostart != 0;
  sandbox.uid = host->uid;
  sandbox.gid = host->gid;
  sandbox.domain_xml = xml;
  sandbox.snapshots = DescribeSnapshots(snapshots);
  for (auto& [tag, one] : sandbox.snapshots) {
    one.size = LayerSize(one.layer).value_or(0);
  }
  if (!snapshots.empty()) {
    sandbox.snapshot = ShownTag(snapshots, CurrentSnapshot(domain));
  }
  sandbox.disks = DisksAmong(facts.disk_volumes);
  if (facts.metadata) {
    // libvirt puts a disk on another layer without a word to us.
    if (facts.disk != facts.metadata->disk_volume &&
        facts.disk.starts_with(facts.uuid + ".")) {
      facts.recorded_disk = facts.metadata->disk_volume;
      facts.metadata->disk_volume = facts.disk;
    }
    const Metadata& meta = *facts.metadata;
    sandbox.origin = meta.origin;
    sandbox.origin_layer = meta.origin_layer;
    if (!meta.trashed_name.empty()) {
      sandbox.name = meta.trashed_name;
      sandbox.trashed = meta.trashed;
    }
    // A uid of another machine means nobody here.
    if (meta.machine == machine) {
      sandbox.uid = meta.uid;
      sandbox.gid = meta.gid;
    }
    sandbox.files = meta.files;
    if (meta.machine != machine) {
      for (auto& [name, rights] : sandbox.files) rights.uid = rights.gid = {};
    }
    sandbox.mode = meta.mode & 0777;
    sandbox.created = meta.created;
    sandbox.used = meta.used;
    sandbox.config = meta.config;
    sandbox.bases = meta.bases;
    sandbox.config_time = meta.config_time;
    sandbox.rejected = meta.rejected;
    sandbox.rejected_reason = meta.rejected_reason;
    sandbox.user = meta.user;
    sandbox.ssh_port = meta.ssh_port;
    sandbox.host_key = meta.host_key;
    sandbox.authorized_keys = meta.authorized_keys;
    try {
      const Spec spec = SpecOf(meta);
      sandbox.cpus = spec.cpus;
      sandbox.memory = spec.memory;
      sandbox.disk = spec.disk;
      sandbox.description = spec.description;
      for (const auto& disk : spec.additional_disks) {
        sandbox.disks.insert(disk.name);
      }
      sandbox.forward_agent = spec.forward_agent;
      sandbox.forward_x11 = spec.forward_x11;
      sandbox.forward_x11_trusted = spec.forward_x11_trusted;
      if (!spec.plain) {
        for (const auto& [name, entry] : ForwardEntries(spec)) {
          sandbox.ports[name] = entry.value;
        }
      }
      for (auto& [name, entry] : MountEntries(spec)) {
        sandbox.mounts[name] = entry.value;
      }
      sandbox.pending = PendingOf(*this, facts, spec);
      if (!off && !test_driver) AddTunnels(sandbox, xml, spec);
      const std::string mounts =
          spec.mounts.empty() ? "" : MountsDigest(Expanded(spec, sandbox));
      if (!off && !test_driver && mounts != NotedMounts(xml)) {
        sandbox.pending += "mounts\n";
      }
    } catch (const Error& error) {
      // Written behind our back, or defaults.yaml changed under it.
      sandbox.pending = "config.yaml\n";
      spdlog::debug("{}", error.Sentence());
    }
    if (!off) {
      const RunInfo run = ParseRun(xml);
      sandbox.ready = run.ready_seconds >= 0;
      sandbox.ready_seconds = sandbox.ready ? run.ready_seconds : 0;
      if (!sandbox.ready) sandbox.failed = sandbox.ready_for = run.failed;
      sandbox.secrets = run.secrets;
      if (run.started != Time()) sandbox.usage.started = run.started;
      // The test driver has no guest that could become ready.
      if (test_driver && sandbox.state == State::kRunning) sandbox.ready = true;
    }
  }
  if (off) sandbox.ready_for = "it is " + std::string(StateName(sandbox.state));
  return sandbox;
}

void Core::ReadAll() {
  const ConnPtr conn = connection.Get("Cannot list the domains");
  std::vector<std::string> uuids;
  for (const auto& domain : ListDomains(conn.get())) {
    const std::string uuid = UuidOf(domain.get());
    uuids.push_back(uuid);
    try {
      const Turns::Turn turn = turns.Take("read " + uuid, "read a domain", 10s);
      ReadDomain(domain.get());
    } catch (const Error& error) {
      // Undefined since the listing, most likely; its event follows.
      spdlog::debug("{}", error.Sentence());
    }
    if (on_read) on_read(uuid);
  }
  {
    MutexLock lock(mutex_);
    const auto gone = [&uuids](const auto& entry) {
      return std::find(uuids.begin(), uuids.end(), entry.first) == uuids.end();
    };
    std::erase_if(facts_, gone);
    std::erase_if(snapshots_, gone);
  }
  catalog.Keep(uuids);
}

}  // namespace sbxfs
