#include "backend/snapshots.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>

#include "backend/chain_pull.h"
#include "backend/libvirt_error.h"
#include "backend/limits.h"
#include "backend/snapshot_records.h"
#include "backend/util/log.h"
#include "backend/util/process_mark.h"
#include "backend/util/undo.h"

namespace sbxfs {
namespace {

// While a mkdir waits the kernel holds the directory.
constexpr int kFreezeSeconds = 1;

}  // namespace

bool HasAgent(std::string_view live_xml) {
  return XmlText(live_xml,
                 "/domain/devices/channel/target"
                 "[@name='org.qemu.guest_agent.0']/@state") == "connected";
}

void Snapshots::Take(const std::string& uuid, const std::string& tag,
                     Reply<Done> reply) {
  const std::string what =
      fmt::format("Cannot take snapshot '{}' of '{}'", tag, core_.NameOf(uuid));
  core_.Work(uuid, what, reply, [this, uuid, tag, what, reply] {
    TakeChecked(uuid, tag, what, reply);
  });
}

void Snapshots::Remove(const std::string& uuid, const std::string& tag,
                       Reply<Done> reply) {
  const std::string what = fmt::format("Cannot remove snapshot '{}' of '{}'",
                                       tag, core_.NameOf(uuid));
  core_.Work(uuid, what, reply, [this, uuid, tag, what, reply] {
    RemoveChecked(uuid, tag, what, reply);
  });
}

void Snapshots::Rename(const std::string& uuid, const std::string& tag,
                       const std::string& new_tag, Reply<Done> reply) {
  const std::string what =
      fmt::format("Cannot rename snapshot '{}' of '{}' to '{}'", tag,
                  core_.NameOf(uuid), new_tag);
  core_.Work(uuid, what, reply, [this, uuid, tag, new_tag, what, reply] {
    RenameChecked(uuid, tag, new_tag, what, reply);
  });
}

void Snapshots::Describe(const std::string& uuid, const std::string& tag,
                         const std::string& text, Reply<Done> reply) {
  const std::string what = fmt::format("Cannot describe snapshot '{}' of '{}'",
                                       tag, core_.NameOf(uuid));
  core_.Work(uuid, what, reply, [this, uuid, tag, text, what] {
    SetDescription(uuid, Find(uuid, tag, what).name, text, what);
    core_.ReadDone(uuid);
  });
}

void Snapshots::SetDescription(const std::string& uuid, const std::string& name,
                               const std::string& text,
                               const std::string& what) {
  const DomainPtr domain = core_.Domain(uuid, what);
  SnapshotEdit edit;
  edit.description = text;
  // A redefinition without the flag leaves the current one as it is.
  RecordSnapshot(domain.get(),
                 EditSnapshot(SnapshotText(domain.get(), name, what), edit),
                 false, what);
}

SnapshotFacts Snapshots::Find(const std::string& uuid, const std::string& tag,
                              const std::string& what) {
  core_.Read(uuid);
  const auto all = core_.SnapshotsOf(uuid);
  const SnapshotFacts* found = FindTag(all, tag);
  if (found != nullptr) return *found;
  std::string tags;
  for (const auto& [name, one] : DescribeSnapshots(all)) {
    tags += (tags.empty() ? "there are " : ", ") + name;
  }
  throw Error(
      ENOENT,
      fmt::format("{}: there is no snapshot '{}'; {}", what, tag,
                  tags.empty() ? "mkdir snapshots/TAG takes one" : tags));
}

SnapshotFacts Snapshots::Target(const std::string& uuid, const std::string& tag,
                                const std::string& what) {
  SnapshotFacts found = Find(uuid, tag, what);
  if (found.internal || found.layer.empty()) {
    throw Error(EOPNOTSUPP,
                fmt::format("{}: snapshot '{}' is kept inside its disk's file "
                            "by another program; use virsh snapshot-revert",
                            what, tag));
  }
  if (!core_.storage.Has(found.layer)) {
    throw Error(EIO,
                fmt::format("{}: the layer '{}' of snapshot '{}' is gone from "
                            "the pool; rmdir snapshots/{}",
                            what, found.layer, tag, tag));
  }
  return found;
}

void Snapshots::TakeChecked(const std::string& uuid, const std::string& tag,
                            const std::string& what, const Reply<Done>& reply) {
  core_.Read(uuid);
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  const Metadata meta = core_.Meta(uuid, what);
  if (sandbox->snapshots.contains(tag)) {
    throw Error(EEXIST, fmt::format("{}: there is one of that name", what));
  }
  CheckSnapshot(core_, *sandbox, what);
  std::string description;
  if (!IsOff(sandbox->state) && core_.SpecOf(meta).snapshot_memory) {
    description = WithoutMemory(*sandbox);
    if (description.empty()) return TakeLong(sandbox, tag, what, reply);
  }
  TakeNow(uuid, tag, description, what);
  // Nobody waits for it any more: they were told that it is undone.
  if (reply.Answered()) DropNow(uuid, tag, what);
}

void Snapshots::TakeNow(const std::string& uuid, const std::string& name,
                        const std::string& description, const std::string& what,
                        bool quiesced, bool memory) {
  if (core_.test_driver) {
    throw Error(EOPNOTSUPP, what + ": the test driver has no disks");
  }
  Repair(uuid);
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  const Metadata meta = core_.Meta(uuid, what);
  const auto facts = core_.Facts(uuid);
  if (sandbox->state == State::kSaved) {
    // libvirt would take it, and the start go on in the frozen layer.
    throw Error(EBUSY,
                fmt::format("{}: its memory is saved; start it, or write kill "
                            "to its status to drop that",
                            what));
  }
  if (meta.disk_volume.empty() || !facts) {
    throw Error(EBUSY, fmt::format("{}: it has no disk yet; start it once, or "
                                   "copy its image to .host/images",
                                   what));
  }
  const DomainPtr domain = core_.Domain(uuid, what);
  const std::string layer = layers_.Add(uuid, meta.disk_volume, 0, what);
  Undo undo;
  // After a look: a connection lost in the middle may have left it in use.
  undo.Add([this, uuid, layer] { layers_.DropSoon(uuid, {layer}); });
  EndPull(domain.get());
  std::string kept;
  if (memory) kept = VolumeForMemory(uuid, what, undo);
  const std::string xml = SnapshotXml(name, description, facts->disk_targets,
                                      core_.storage.Path(layer), kept);
  unsigned flags =
      VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT | VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC;
  if (!memory) flags |= VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY;
  bool taken = false;
  if (!memory && HasAgent(sandbox->domain_xml.Text()) &&
      virDomainIsActive(domain.get()) == 1 &&
      sandbox->state != State::kPaused) {
    taken = CreateQuiesced(domain.get(), xml);
    quiesced = quiesced || taken;
  }
  if (!taken) {
    const SnapshotPtr made(
        virDomainSnapshotCreateXML(domain.get(), xml.c_str(), flags));
    if (made == nullptr) ThrowLibvirt(what);
  }
  undo.Keep();
  const std::string text = SnapshotText(domain.get(), name, what);
  SnapshotEdit edit;
  edit.quiesced = quiesced;
  // Since 9.9 libvirt deletes one by writing its overlay into the layer that it
  // stands on, which clones and later snapshots may do as well; or by deleting
  // that. What it cannot find in the guest's chain it leaves alone
  // (qemuSnapshotDeleteExternalPrepareData), and says so.
  edit.unlinked = true;
  RecordSnapshot(domain.get(), EditSnapshot(text, edit), false, what);
  core_.ChangeMeta(uuid, what,
                   [&](Metadata& changed) { changed.disk_volume = layer; });
  core_.ReadDone(uuid);
}

// Whether the guest's file systems were frozen while it was taken; when not,
// nothing was taken.
bool Snapshots::CreateQuiesced(virDomainPtr domain, const std::string& xml) {
  virDomainAgentSetResponseTimeout(domain, kFreezeSeconds, 0);
  const SnapshotPtr made(
      virDomainSnapshotCreateXML(domain, xml.c_str(),
                                 VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY |
                                     VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT |
                                     VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC |
                                     VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE));
  if (made == nullptr) {
    spdlog::debug("{}", LibvirtError("Cannot quiesce the guest").Sentence());
    // An answer that came too late may have left it frozen.
    virDomainFSThaw(domain, nullptr, 0, 0);
  }
  virDomainAgentSetResponseTimeout(
      domain, VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_DEFAULT, 0);
  return made != nullptr;
}

void Snapshots::DropNow(const std::string& uuid, const std::string& name,
                        const std::string& what) {
  const auto all = core_.SnapshotsOf(uuid);
  const auto found =
      std::find_if(all.begin(), all.end(),
                   [&](const SnapshotFacts& one) { return one.name == name; });
  const DomainPtr domain = core_.Domain(uuid, what);
  ForgetSnapshot(domain.get(), name, what);
  core_.ForgetLayerSizes(uuid);
  core_.ReadDone(uuid);
  if (found == all.end() || found->layer.empty()) return;
  std::set<std::string> candidates = {found->layer};
  if (!found->seed.empty()) candidates.insert(found->seed);
  if (const std::string memory = LastPart(found->memory_file);
      IsMemoryOf(memory, uuid)) {
    candidates.insert(memory);
  }
  layers_.DropSoon(uuid, std::move(candidates));
}

void Snapshots::RemoveChecked(const std::string& uuid, const std::string& tag,
                              const std::string& what,
                              const Reply<Done>& reply) {
  const SnapshotFacts found = Find(uuid, tag, what);
  const DomainPtr domain = core_.Domain(uuid, what);
  if (found.internal) {
    const SnapshotPtr snapshot = LookupSnapshot(domain.get(), found.name, what);
    if (virDomainSnapshotDelete(snapshot.get(), 0) < 0) ThrowLibvirt(what);
    core_.Read(uuid);
    return;
  }
  for (const auto& other : core_.catalog.All()) {
    if (found.layer.empty() || other->origin_layer != found.layer) continue;
    throw Error(EBUSY,
                fmt::format("{}: its clone '{}'{} stands on it; rmdir that "
                            "first",
                            what, other->name,
                            other->trashed ? " in .host/trash" : ""));
  }
  // There is no way back from here.
  if (reply.Answered()) return;
  DropNow(uuid, found.name, what);
}

void Snapshots::RenameChecked(const std::string& uuid, const std::string& tag,
                              const std::string& new_tag,
                              const std::string& what,
                              const Reply<Done>& reply) {
  const SnapshotFacts found = Find(uuid, tag, what);
  const auto all = core_.SnapshotsOf(uuid);
  if (FindTag(all, new_tag) != nullptr) {
    throw Error(EEXIST, fmt::format("{}: there is one of that name", what));
  }
  if (found.internal) {
    throw Error(EOPNOTSUPP,
                fmt::format("{}: it is kept inside its disk's file, under its "
                            "name",
                            what));
  }
  const DomainPtr domain = core_.Domain(uuid, what);
  SnapshotEdit edit;
  edit.name = new_tag;
  const bool current = CurrentSnapshot(domain.get()) == found.name;
  Undo undo;
  undo.Add([this, uuid, name = found.name, new_tag, current, what] {
    core_.Read(uuid);
    if (FindTag(core_.SnapshotsOf(uuid), new_tag) == nullptr) return;
    Supersede(uuid, new_tag, name, what);
    if (current) MakeCurrent(uuid, name, what);
    core_.Read(uuid);
  });
  RecordSnapshot(
      domain.get(),
      EditSnapshot(SnapshotText(domain.get(), found.name, what), edit), current,
      what);
  Supersede(uuid, found.name, new_tag, what);
  // Who does not wait any more was told that it is undone.
  if (reply.Answered()) return;
  undo.Keep();
  core_.ReadDone(uuid);
}

std::string Snapshots::KeepUndo(const std::string& uuid, bool quiesced,
                                const std::string& what) {
  uint64_t last = 0;
  for (const auto& one : core_.SnapshotsOf(uuid)) {
    last = std::max(last, UndoNumber(one.name).value_or(0));
  }
  const std::string name = fmt::format("~undo.{}", last + 1);
  // Until the disk has left it, whoever finds it with the mark of a process
  // that ended knows that it was not gone on from.
  TakeOwn(uuid, name, what, quiesced, /*memory=*/false);
  return name;
}

void Snapshots::TakeOwn(const std::string& uuid, const std::string& name,
                        const std::string& what, bool quiesced, bool memory) {
  try {
    TakeNow(uuid, name, ThisProcessMark(), what, quiesced, memory);
  } catch (...) {
    MutexLock lock(mutex_);
    left_.insert(uuid + name);
    throw;
  }
  MutexLock lock(mutex_);
  left_.erase(uuid + name);
}

void Snapshots::TakeBack(const std::string& uuid, const std::string& name,
                         const std::string& what) {
  try {
    DropNow(uuid, name, what);
  } catch (const Error&) {
    MutexLock lock(mutex_);
    left_.insert(uuid + name);
    throw;
  }
}

bool Snapshots::IsLeft(const std::string& uuid, const SnapshotFacts& one) {
  if (IsMarkOfTheDead(one.description)) return true;
  MutexLock lock(mutex_);
  return left_.contains(uuid + one.name);
}

void Snapshots::DropOldUndos(const std::string& uuid, const std::string& what) {
  const auto all = core_.SnapshotsOf(uuid);
  const SnapshotFacts* kept = FindTag(all, ".undo");
  for (const auto& one : all) {
    if (!UndoNumber(one.name)) continue;
    if (&one != kept) {
      DropNow(uuid, one.name, what);
    } else if (!one.description.empty()) {
      SetDescription(uuid, one.name, "", what);
    }
  }
}

bool Snapshots::IsAt(const std::string& uuid, const SnapshotFacts& target) {
  const auto facts = core_.Facts(uuid);
  if (!facts || facts->disk.empty()) return false;
  const Volume top = core_.storage.Get(facts->disk);
  return top.backing.ends_with("/" + target.layer) && IsUntouched(top);
}

void Snapshots::PutOn(const std::string& uuid, const SnapshotFacts& target,
                      const std::string& what, bool resume) {
  Metadata meta = core_.Meta(uuid, what);
  uint64_t size = 0;
  try {
    size = core_.SpecOf(meta).disk;
  } catch (const Error& error) {
    spdlog::debug("{}", error.Sentence());  // the start will say so
  }
  const std::set<std::string> left = {meta.disk_volume, meta.seed_volume};
  const DomainPtr domain = core_.Domain(uuid, what);
  const std::string xml = TakeString(virDomainGetXMLDesc(
      domain.get(), VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE));
  if (xml.empty()) ThrowLibvirt(what);
  meta.disk_volume = layers_.Add(uuid, target.layer, size, what);
  Undo undo;
  undo.Add([this, uuid, layer = meta.disk_volume] {
    layers_.DropSoon(uuid, {layer});
  });
  // What the guest on that disk takes for its own, it had from that seed.
  if (target.metadata && core_.storage.Has(target.seed)) {
    meta.seed_volume = target.seed;
    meta.host_key = target.metadata->host_key;
    meta.guest_keys = target.metadata->guest_keys;
    meta.booted = target.metadata->booted;
    meta.seeded = target.metadata->seeded;
    if (meta.booted) meta.user = target.metadata->user;
    // Its documents may be of another time by now.
    meta.seed_digest.clear();
    // It runs what config.yaml said then, until it is started again.
    if (resume) meta.applied = target.metadata->applied;
  }
  meta.used = std::chrono::system_clock::now();
  const ConnPtr connection = core_.connection.Get(what);
  const DomainPtr defined(
      virDomainDefineXML(connection.get(), DomainOnLayer(xml, meta).c_str()));
  if (defined == nullptr) ThrowLibvirt(what);
  undo.Keep();
  MakeCurrent(uuid, target.name, what);
  core_.ReadDone(uuid);
  layers_.DropSoon(uuid, left);
}

}  // namespace sbxfs
