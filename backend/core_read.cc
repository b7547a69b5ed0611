#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "backend/certificates.h"
#include "backend/condition.h"
#include "backend/conveyor.h"
#include "backend/core.h"
#include "backend/disk_names.h"
#include "backend/libvirt_error.h"
#include "backend/pending.h"
#include "backend/tunnels.h"
#include "backend/util/log.h"
#include "backend/util/undo.h"
#include "backend/virsh_changes.h"

// How the domains are read into the catalog.

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// So few domains are no work to share.
constexpr size_t kReadAlone = 32;
// Answers of libvirt's that wait to be taken; each is some tens of kilobytes.
constexpr size_t kMostAnswers = 64;

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
  sandbox.idle = spec.idle;
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
  sandbox.becoming = run.becoming;
  sandbox.settled = run.settled;
  sandbox.secrets = run.secrets;
  if (run.started != Time()) sandbox.usage.started = run.started;
}

constexpr std::chrono::milliseconds kAgain(100);
constexpr int kTries = 3;

}  // namespace

void Core::ReadDone(const std::string& uuid) {
  for (int tries = 1;; ++tries) {
    try {
      return Read(uuid);
    } catch (const Error& error) {
      if (error.Errno() == EHOSTDOWN || tries == kTries) throw;
      spdlog::debug("{}", error.Sentence());
    }
    std::this_thread::sleep_for(kAgain);
  }
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
  NoteReading(uuid);
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
  Take(AskDomain(domain.get(), {}));
}

void Core::NoteReading(const std::string& uuid) {
  MutexLock lock(mutex_);
  ++readings_;
  if (listings_ > 0) read_at_[uuid] = readings_;
}

bool Core::WasReadSince(const std::string& uuid, uint64_t reading) {
  MutexLock lock(mutex_);
  const auto found = read_at_.find(uuid);
  return found != read_at_.end() && found->second > reading;
}

void Core::Take(const DomainTexts& texts) {
  DomainFacts facts;
  std::vector<SnapshotFacts> snapshots;
  Sandbox sandbox = Describe(texts, facts, snapshots);
  const std::string uuid = sandbox.uuid;
  {
    MutexLock lock(mutex_);
    facts_.insert_or_assign(uuid, KeptFacts(std::move(facts)));
    snapshots_[uuid] = std::move(snapshots);
  }
  // The tree has no place for names it could not make itself.
  if (!sandbox.ours && (!options.all || sandbox.name.starts_with("."))) return;
  const SandboxPtr put = catalog.Put(std::move(sandbox));
  if (on_take) on_take(*put);
}

void Core::AddSnapshots(Sandbox& sandbox, const DomainTexts& texts,
                        std::vector<SnapshotFacts>& snapshots) {
  for (const auto& text : texts.snapshots) {
    snapshots.push_back(ParseSnapshot(text));
  }
  sandbox.snapshots = DescribeSnapshots(snapshots);
  for (auto& [tag, one] : sandbox.snapshots) {
    one.size = LayerSize(one.layer).value_or(0);
  }
  if (!snapshots.empty()) {
    sandbox.snapshot = ShownTag(snapshots, texts.snapshot);
  }
}

DomainFacts Core::FactsOf(const DomainTexts& texts) {
  const bool off = texts.Off();
  DomainFacts facts = ParseDomain(texts.xml);
  if (!facts.metadata) return facts;
  const std::string& defined = off ? texts.xml : texts.defined;
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

Sandbox Core::Describe(const DomainTexts& texts, DomainFacts& facts,
                       std::vector<SnapshotFacts>& snapshots) {
  const DomainSummary& summary = texts.summary;
  const bool off = texts.Off();
  const Condition condition = off ? WhenOff(summary.reason, summary.saved)
                                  : WhenOn(summary.state, summary.reason);
  facts = FactsOf(texts);

  const HostPtr host = catalog.GetHost();
  Sandbox sandbox;
  sandbox.host = options.hypervisor;
  sandbox.state = condition.state;
  sandbox.reason = condition.reason;
  sandbox.autostart = summary.autostart;
  sandbox.uid = host->uid;
  sandbox.gid = host->gid;
  sandbox.domain_xml = decltype(sandbox.domain_xml)(texts.xml);
  AddDomain(sandbox, facts);
  AddSnapshots(sandbox, texts, snapshots);
  if (off) sandbox.ready_for = "it is " + std::string(StateName(sandbox.state));
  if (!facts.metadata) return sandbox;
  const Metadata& meta = *facts.metadata;
  AddMetadata(sandbox, meta, meta.machine == machine);
  try {
    const Spec spec = SpecOf(meta);
    AddSpec(sandbox, spec);
    if (spec.ssh_ca) {
      sandbox.ssh_principal =
          PrincipalOf(sandbox.uuid, meta.certificates_revoked);
    }
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
    sandbox.pending = PendingOf(*this, facts, spec, served, texts.xml);
  } catch (const Error& error) {
    // Written behind our back, or defaults.yaml changed under it.
    sandbox.pending = "config.yaml\n";
    spdlog::debug("{}", error.Sentence());
  }
  if (!off) AddRun(sandbox, ParseRun(texts.xml));
  // The test driver has no guest that could become ready.
  if (test_driver && sandbox.state == State::kRunning) sandbox.ready = true;
  return sandbox;
}

// libvirt is asked by one thread, one call after the other: that is how long it
// takes at least. Others make sandboxes of the answers meanwhile.
void Core::ReadListed(const std::vector<ListedDomain>& listed,
                      uint64_t reading) {
  struct Answer {
    std::string uuid;
    DomainTexts texts;
    Turns::Turn turn;
  };
  Conveyor<Answer> answers(kMostAnswers);
  const auto failed = [] {
    // Undefined since the listing, most likely; its event follows.
    spdlog::debug("{}", CurrentError().Sentence());
  };
  const auto take = [&](const Answer& answer) {
    try {
      Take(answer.texts);
    } catch (...) {
      failed();
    }
    if (on_read) on_read(answer.uuid);
  };
  const auto take_all = [&] {
    while (auto answer = answers.Take()) take(*answer);
  };
  std::vector<std::thread> takers;
  if (listed.size() > kReadAlone) {
    takers.resize(std::max(std::thread::hardware_concurrency(), 2U) - 1);
  }
  for (std::thread& taker : takers) taker = std::thread(take_all);
  for (const auto& one : listed) {
    try {
      Turns::Turn turn = turns.Take("read " + one.uuid, "read a domain", 10s);
      // What is listed may be older than what an event had somebody read.
      if (!WasReadSince(one.uuid, reading)) {
        Answer answer{one.uuid, AskDomain(one.domain.get(), one.summary),
                      std::move(turn)};
        if (takers.empty()) {
          take(answer);
        } else {
          answers.Put(std::move(answer));
        }
        continue;
      }
    } catch (...) {
      failed();
    }
    if (on_read) on_read(one.uuid);
  }
  answers.End();
  take_all();
  for (std::thread& taker : takers) taker.join();
}

void Core::ReadAll() {
  const ConnPtr conn = connection.Get("Cannot list the domains");
  uint64_t reading = 0;
  {
    MutexLock lock(mutex_);
    ++listings_;
    reading = readings_;
  }
  Undo listing;
  listing.Add([this] {
    MutexLock lock(mutex_);
    if (--listings_ == 0) read_at_.clear();
  });
  const auto listed = ListSummaries(conn.get());
  ReadListed(listed, reading);
  std::set<std::string> uuids;
  for (const auto& one : listed) uuids.insert(one.uuid);
  {
    MutexLock lock(mutex_);
    const auto gone = [&uuids](const auto& entry) {
      return !uuids.contains(entry.first);
    };
    std::erase_if(facts_, gone);
    std::erase_if(snapshots_, gone);
  }
  catalog.Keep(uuids);
}

}  // namespace sbxfs
