#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "backend/condition.h"
#include "backend/core.h"
#include "backend/disk_names.h"
#include "backend/libvirt_error.h"
#include "backend/pending.h"
#include "backend/snapshot_records.h"
#include "backend/tunnels.h"
#include "backend/util/log.h"
#include "backend/virsh_changes.h"

// How the domains are read into the catalog.

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr char kCannotRead[] = "Cannot read a domain";

// What libvirt itself says of it.
void AddDomain(Sandbox& sandbox, const DomainFacts& facts) {
  sandbox.uuid = facts.uuid;
  sandbox.name = facts.name;
  sandbox.ours = facts.metadata.has_value();
  sandbox.cpus = facts.cpus;
  sandbox.memory = facts.memory;
  sandbox.description = facts.description;
  sandbox.disks = DisksAmong(facts.disk_volumes);
}

// What our metadata say. A uid of another machine means nobody here.
void AddMetadata(Sandbox& sandbox, const Metadata& meta, bool from_here) {
  sandbox.origin = meta.origin;
  sandbox.origin_layer = meta.origin_layer;
  if (!meta.trashed_name.empty()) {
    sandbox.name = meta.trashed_name;
    sandbox.trashed = meta.trashed;
  }
  sandbox.files = meta.files;
  if (from_here) {
    sandbox.uid = meta.uid;
    sandbox.gid = meta.gid;
  } else {
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
}

// What config.yaml says.
void AddSpec(Sandbox& sandbox, const Spec& spec) {
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
}

// What the running guest's notes say.
void AddRun(Sandbox& sandbox, const RunInfo& run) {
  sandbox.ready = run.ready_seconds >= 0;
  sandbox.ready_seconds = sandbox.ready ? run.ready_seconds : 0;
  if (!sandbox.ready) sandbox.failed = sandbox.ready_for = run.failed;
  sandbox.secrets = run.secrets;
  if (run.started != Time()) sandbox.usage.started = run.started;
}

}  // namespace

std::vector<DomainPtr> ListDomains(virConnectPtr connection) {
  virDomainPtr* raw = nullptr;
  const int count = virConnectListAllDomains(connection, &raw, 0);
  if (count < 0) ThrowLibvirt("Cannot list the domains");
  std::vector<DomainPtr> domains(raw, raw + count);
  std::free(raw);
  return domains;
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
  const ConnPtr conn = connection.Get(kCannotRead);
  const DomainPtr domain(virDomainLookupByUUIDString(conn.get(), uuid.c_str()));
  if (domain == nullptr) {
    if (!LastLibvirtErrorIs(VIR_ERR_NO_DOMAIN)) {
      ThrowLibvirt(kCannotRead);
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

void Core::AddSnapshots(Sandbox& sandbox, virDomainPtr domain,
                        std::vector<SnapshotFacts>& snapshots) {
  for (const auto& text : SnapshotTexts(domain)) {
    snapshots.push_back(ParseSnapshot(text));
  }
  sandbox.snapshots = DescribeSnapshots(snapshots);
  for (auto& [tag, one] : sandbox.snapshots) {
    one.size = LayerSize(one.layer).value_or(0);
  }
  if (!snapshots.empty()) {
    sandbox.snapshot = ShownTag(snapshots, CurrentSnapshot(domain));
  }
}

DomainFacts Core::FactsOf(virDomainPtr domain, const std::string& xml,
                          bool off) {
  DomainFacts facts = ParseDomain(xml);
  if (!facts.metadata) return facts;
  const std::string defined =
      off ? xml
          : TakeString(virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE));
  // A restored guest's own copy is as old as its memory: the definition's
  // counts.
  if (auto metadata = off ? std::nullopt : ParseMetadata(defined)) {
    facts.metadata = std::move(metadata);
  }
  // libvirt puts a disk on another layer without a word to us.
  if (facts.disk != facts.metadata->disk_volume &&
      facts.disk.starts_with(facts.uuid + ".")) {
    facts.recorded_disk = facts.metadata->disk_volume;
    facts.metadata->disk_volume = facts.disk;
  }
  facts.changed = ChangedSince(facts.metadata->defined, defined);
  return facts;
}

Sandbox Core::Describe(virDomainPtr domain, DomainFacts& facts,
                       std::vector<SnapshotFacts>& snapshots) {
  int state = 0;
  int reason = 0;
  if (virDomainGetState(domain, &state, &reason, 0) < 0) {
    ThrowLibvirt(kCannotRead);
  }
  std::string xml = TakeString(virDomainGetXMLDesc(domain, 0));
  if (xml.empty()) ThrowLibvirt(kCannotRead);
  int autostart = 0;
  virDomainGetAutostart(domain, &autostart);
  const bool off = state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_NOSTATE;
  const bool saved = off && virDomainHasManagedSaveImage(domain, 0) == 1;
  const Condition condition =
      off ? WhenOff(reason, saved) : WhenOn(state, reason);
  facts = FactsOf(domain, xml, off);

  const HostPtr host = catalog.GetHost();
  Sandbox sandbox;
  sandbox.host = options.hypervisor;
  sandbox.state = condition.state;
  sandbox.reason = condition.reason;
  sandbox.autostart = autostart != 0;
  sandbox.uid = host->uid;
  sandbox.gid = host->gid;
  sandbox.domain_xml = xml;
  AddDomain(sandbox, facts);
  AddSnapshots(sandbox, domain, snapshots);
  if (off) sandbox.ready_for = "it is " + std::string(StateName(sandbox.state));
  if (!facts.metadata) return sandbox;
  const Metadata& meta = *facts.metadata;
  AddMetadata(sandbox, meta, meta.machine == machine);
  try {
    const Spec spec = SpecOf(meta);
    AddSpec(sandbox, spec);
    if (!spec.mounts.empty() && !test_driver) {
      const MountWay way = WayOfMounts(spec, meta);
      sandbox.mount_way = WordFor(way.type);
      if (!way.why.empty()) sandbox.mount_way += ", since " + way.why;
    }
    if (!spec.networks.empty() && !no_networks.empty()) {
      sandbox.no_networks = "none, since " + no_networks;
    }
    std::optional<Spec> served;
    if (!off && !test_driver) {
      served = Expanded(spec, sandbox, meta.guest_uid);
      sandbox.sockets = SocketsOf(TunnelsOf(*served));
    }
    sandbox.pending = PendingOf(*this, facts, spec, served, xml);
  } catch (const Error& error) {
    // Written behind our back, or defaults.yaml changed under it.
    sandbox.pending = "config.yaml\n";
    spdlog::debug("{}", error.Sentence());
  }
  if (!off) AddRun(sandbox, ParseRun(xml));
  // The test driver has no guest that could become ready.
  if (test_driver && sandbox.state == State::kRunning) sandbox.ready = true;
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
