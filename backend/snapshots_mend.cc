// Snapshots' part for what libvirt and others leave to be put in order.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "backend/libvirt_error.h"
#include "backend/snapshot_records.h"
#include "backend/snapshots.h"
#include "backend/util/log.h"
#include "backend/util/process_mark.h"

namespace sbxfs {
namespace {

constexpr char kNoSnapshot[] = "~none";

}  // namespace

void Snapshots::Supersede(const std::string& uuid, const std::string& old_name,
                          const std::string& name, const std::string& what) {
  const DomainPtr domain = core_.Domain(uuid, what);
  SnapshotEdit edit;
  edit.parent = name;
  for (const auto& text : SnapshotTexts(domain.get())) {
    if (ParseSnapshot(text).parent != old_name) continue;
    RecordSnapshot(domain.get(), EditSnapshot(text, edit), false, what);
  }
  if (CurrentSnapshot(domain.get()) == old_name) MakeCurrent(uuid, name, what);
  ForgetSnapshot(domain.get(), old_name, what);
}

void Snapshots::MakeCurrent(const std::string& uuid, const std::string& name,
                            const std::string& what) {
  const DomainPtr domain = core_.Domain(uuid, what);
  const std::string now = CurrentSnapshot(domain.get());
  if (now == name) return;
  const std::string text =
      SnapshotText(domain.get(), name.empty() ? now : name, what);
  if (!name.empty()) {
    RecordSnapshot(domain.get(), text, true, what);
    return;
  }
  // libvirt has no call for it, but forgetting a root leaves none current.
  SnapshotEdit edit;
  edit.name = kNoSnapshot;
  edit.parent = "";
  RecordSnapshot(domain.get(), EditSnapshot(text, edit), true, what);
  ForgetSnapshot(domain.get(), kNoSnapshot, what);
}

void Snapshots::CheckStart(const std::string& uuid, const std::string& what) {
  const auto facts = core_.Facts(uuid);
  if (!facts || !facts->metadata || facts->disk.empty()) return;
  auto refuse = [&](const std::string& holder) {
    throw Error(EBUSY,
                fmt::format("{}: its disk was put on '{}' by another libvirt "
                            "client, and {} stands on that; write a tag to "
                            "its snapshot file to put it on a layer of its own",
                            what, facts->disk, holder));
  };
  for (const auto& one : core_.SnapshotsOf(uuid)) {
    if (one.layer == facts->disk) refuse("snapshot '" + one.name + "'");
  }
  if (facts->recorded_disk.empty()) return;
  const Uses uses(core_, what);
  for (const auto& volume : uses.Volumes()) {
    if (volume.backing.ends_with("/" + facts->disk)) refuse(volume.name);
  }
}

// What the files say that the disk stands on: the nearest layer below it that
// is a snapshot's. `directly`: there is no other between.
std::string Snapshots::StandsOn(const std::string& uuid, bool& directly) {
  const auto facts = core_.Facts(uuid);
  const auto all = core_.SnapshotsOf(uuid);
  std::string at = facts ? facts->disk : "";
  directly = true;
  while (UuidIn(at) == uuid) {
    const std::string backing = core_.storage.Get(at).backing;
    at = backing.substr(backing.rfind('/') + 1);
    for (const auto& one : all) {
      if (one.layer == at && one.name != kNoSnapshot) return one.name;
    }
    directly = false;
  }
  return "";
}

// Records that work in progress made, of a process that ended in it; and two of
// one layer, which a renaming leaves.
bool Snapshots::RepairRecords(const std::string& uuid,
                              const std::string& what) {
  const DomainPtr domain = core_.Domain(uuid, what);
  const auto all = core_.SnapshotsOf(uuid);
  const SnapshotFacts* undo = FindTag(all, ".undo");
  bool directly = false;
  const std::string stands_on = StandsOn(uuid, directly);
  std::map<std::string, std::string> by_layer;
  bool changed = false;
  for (const auto& one : all) {
    if (one.internal || one.layer.empty()) continue;
    const bool left = IsLeft(uuid, one);
    const bool hidden = TagOf(one.name).empty();
    if (one.name == kNoSnapshot) {
      ForgetSnapshot(domain.get(), one.name, what);
    } else if (left && (hidden ||
                        (&one == undo && directly && stands_on == one.name))) {
      DropNow(uuid, one.name, what);
    } else if (left && &one == undo) {
      DropOldUndos(uuid, what);
    } else if (!by_layer.emplace(one.layer, one.name).second) {
      Supersede(uuid, by_layer[one.layer], one.name, what);
      by_layer[one.layer] = one.name;
    } else {
      continue;
    }
    changed = true;
  }
  return changed;
}

void Snapshots::PutRecordsBack(const std::string& uuid,
                               const std::string& what) {
  core_.Read(uuid);
  const Metadata meta = core_.Meta(uuid, what);
  if (meta.records.empty()) return;
  RestoreRecords(core_.Domain(uuid, what).get(), UnpackLayers(meta.records),
                 what);
  core_.ChangeMeta(uuid, what, [](Metadata& changed) {
    changed.records.clear();
    changed.keeps.clear();
  });
  core_.Read(uuid);
}

void Snapshots::Repair(const std::string& uuid) {
  const std::string what = fmt::format("Cannot mend '{}'", core_.NameOf(uuid));
  core_.Read(uuid);
  const auto facts = core_.Facts(uuid);
  if (!facts || !facts->metadata) return;
  if (!facts->recorded_disk.empty()) {
    core_.ChangeMeta(uuid, what,
                     [&](Metadata& meta) { meta.disk_volume = facts->disk; });
  }
  // A move was broken off in the middle.
  if (!facts->metadata->records.empty()) PutRecordsBack(uuid, what);
  if (core_.SnapshotsOf(uuid).empty()) return;
  if (RepairRecords(uuid, what)) core_.Read(uuid);
  const auto all = core_.SnapshotsOf(uuid);
  const std::string current = CurrentSnapshot(core_.Domain(uuid, what).get());
  // virsh reverted to one of another kind.
  if (std::any_of(all.begin(), all.end(), [&](const SnapshotFacts& one) {
        return one.name == current && one.internal;
      })) {
    return;
  }
  bool directly = false;
  MakeCurrent(uuid, StandsOn(uuid, directly), what);
  core_.Read(uuid);
}

void Snapshots::Measure(const std::string& uuid) {
  if (core_.test_driver) return;
  const auto all = core_.SnapshotsOf(uuid);
  std::set<std::string> layers;
  for (const auto& one : all) layers.insert(one.layer);
  bool changed = false;
  for (const auto& layer : layers) {
    if (layer.empty() || core_.LayerSize(layer)) continue;
    try {
      uint64_t size = layers_.SizeOf(layer, layers);
      for (const auto& one : all) {
        if (one.layer == layer && HasMemory(one)) {
          size += core_.storage.Get(LastPart(one.memory_file)).allocation;
        }
      }
      core_.NoteLayerSize(layer, size);
      changed = true;
    } catch (const Error& error) {
      spdlog::debug("{}", error.Sentence());
    }
  }
  if (changed) core_.Read(uuid);
}

}  // namespace sbxfs
