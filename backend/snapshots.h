#ifndef SBXFS_BACKEND_SNAPSHOTS_H_
#define SBXFS_BACKEND_SNAPSHOTS_H_

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/core.h"
#include "backend/layers.h"
#include "backend/snapshot_xml.h"
#include "backend/util/mutex.h"
#include "backend/util/undo.h"

namespace sbxfs {

// The snapshots of sandboxes: taking, naming, deleting them, and going back to
// one. What they consist of is told in layers.h.
class Snapshots {
 public:
  explicit Snapshots(Core& core) : core_(core), layers_(core) {}

  // As in Backend; each runs on a worker with the sandbox's turn held.
  void Take(const std::string& uuid, const std::string& tag, Reply<Done> reply);
  void Remove(const std::string& uuid, const std::string& tag,
              Reply<Done> reply);
  void Rename(const std::string& uuid, const std::string& tag,
              const std::string& new_tag, Reply<Done> reply);
  void Describe(const std::string& uuid, const std::string& tag,
                const std::string& text, Reply<Done> reply);

  // The rest blocks, throws Error, and wants the caller to hold the turn.

  // Freezes the disk as it is under that name of libvirt's; with `memory` the
  // running guest's memory as well.
  void TakeNow(const std::string& uuid, const std::string& name,
               const std::string& description, const std::string& what,
               bool quiesced = false, bool memory = false);
  // Forgets it; its layer goes, soon, unless it is needed.
  void DropNow(const std::string& uuid, const std::string& name,
               const std::string& what);
  // The same two of what an operation takes for itself, which Repair drops when
  // it was left behind, as libvirt could not be reached any more or the daemon
  // was killed.
  void TakeOwn(const std::string& uuid, const std::string& name,
               const std::string& what, bool quiesced, bool memory)
      EXCLUDES(mutex_);
  void TakeBack(const std::string& uuid, const std::string& name,
                const std::string& what) EXCLUDES(mutex_);
  // Keeps the disk of a stopped sandbox as the undo; its name with libvirt. An
  // earlier one stays until DropOldUndos, since it may be what is gone back to.
  [[nodiscard]] std::string KeepUndo(const std::string& uuid, bool quiesced,
                                     const std::string& what);
  void DropOldUndos(const std::string& uuid, const std::string& what);
  // What going back to `tag` would go back to. Error(ENOENT) or
  // Error(EOPNOTSUPP) when it cannot be.
  [[nodiscard]] SnapshotFacts Target(const std::string& uuid,
                                     const std::string& tag,
                                     const std::string& what);
  // Whether a stopped sandbox's disk is as the snapshot has it; a doubt is a
  // no.
  [[nodiscard]] bool IsAt(const std::string& uuid, const SnapshotFacts& target);
  // Puts a stopped sandbox on a new layer on the snapshot's.
  void PutOn(const std::string& uuid, const SnapshotFacts& target,
             const std::string& what, bool resume = false);
  // Whether the guest can be put back to the moment of the snapshot.
  [[nodiscard]] bool HasMemory(const SnapshotFacts& target);
  // A guest that is down, and was put on the snapshot's disk, goes on from that
  // moment.
  void Resume(const std::string& uuid, const SnapshotFacts& target, bool paused,
              const std::string& what);
  // Makes the snapshot of that name libvirt's current one; empty: none.
  void MakeCurrent(const std::string& uuid, const std::string& name,
                   const std::string& what);
  // Throws Error(EBUSY) when a write of the guest would reach what others
  // stand on: virsh reverts to internal snapshots that way.
  void CheckStart(const std::string& uuid, const std::string& what);
  // Brings in order what a daemon that was killed left half done.
  void Repair(const std::string& uuid);
  // Blocks: makes the records anew that a move took off, if it did. Callers
  // hold the sandbox's turn.
  void PutRecordsBack(const std::string& uuid, const std::string& what);
  // Sizes of layers that are not known yet, into the catalog.
  void Measure(const std::string& uuid);

  [[nodiscard]] Layers& layers() { return layers_; }

 private:
  void TakeChecked(const std::string& uuid, const std::string& tag,
                   const std::string& what, const Reply<Done>& reply);
  // The same for one with memory, which may take its time: answers when it is
  // there, or before that if need be, and shows it meanwhile.
  void TakeLong(const SandboxPtr& sandbox, const std::string& tag,
                const std::string& what, const Reply<Done>& reply);
  // Why the memory of a running guest cannot be kept; empty when it can.
  [[nodiscard]] static std::string WithoutMemory(const Sandbox& sandbox);
  // Of a save image: the guest has another name since.
  void Rename(const std::string& volume, const std::string& name);
  [[nodiscard]] std::string VolumeForMemory(const std::string& uuid,
                                            const std::string& what,
                                            Undo& undo);
  void RemoveChecked(const std::string& uuid, const std::string& tag,
                     const std::string& what, const Reply<Done>& reply);
  void RenameChecked(const std::string& uuid, const std::string& tag,
                     const std::string& new_tag, const std::string& what,
                     const Reply<Done>& reply);
  // Moves the children of one record to another of the same layer, and drops
  // the first.
  void Supersede(const std::string& uuid, const std::string& old_name,
                 const std::string& name, const std::string& what);
  void SetDescription(const std::string& uuid, const std::string& name,
                      const std::string& text, const std::string& what);
  [[nodiscard]] std::string StandsOn(const std::string& uuid, bool& directly);
  bool RepairRecords(const std::string& uuid, const std::string& what);
  [[nodiscard]] bool CreateQuiesced(virDomainPtr domain,
                                    const std::string& xml);
  [[nodiscard]] SnapshotFacts Find(const std::string& uuid,
                                   const std::string& tag,
                                   const std::string& what);

  // Whether whoever took it for itself has no use for it any more.
  [[nodiscard]] bool IsLeft(const std::string& uuid, const SnapshotFacts& one)
      EXCLUDES(mutex_);

  Core& core_;
  Layers layers_;
  Mutex mutex_;
  // Uuid and name of what TakeBack could not.
  std::set<std::string> left_ GUARDED_BY(mutex_);
};

// Whether the guest agent answers, as far as the definition of a running
// domain tells.
[[nodiscard]] bool HasAgent(std::string_view live_xml);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SNAPSHOTS_H_
