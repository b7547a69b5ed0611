#ifndef SBXFS_FS_GUEST_PLACE_H_
#define SBXFS_FS_GUEST_PLACE_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "backend/util/mutex.h"
#include "fs/path_book.h"
#include "fs/tree.h"

namespace sbxfs {

// What a snapshot is known by for its life: tags change. Those of others have
// no layer of their own.
[[nodiscard]] std::string SnapshotId(const Snapshot& snapshot);

// A symbolic link's target, as it is to be shown for one that lies at `path`:
// as it is, unless that could lead out of the guest's own files. An absolute
// one begins at their root; and ".." behind a name takes that away, whatever it
// may be a link to.
[[nodiscard]] std::string TargetWithin(std::string_view path,
                                       std::string_view target);

class GuestPlace;
class GuestOpen;

// A file of a guest for as long as the kernel knows it, whatever its name is by
// then: a rename takes it along. Thread-safe.
class GuestPath {
 public:
  GuestPath(std::shared_ptr<GuestPlace> place, std::string identity,
            std::string path, const PathRecord* restored = nullptr)
      : identity(std::move(identity)),
        place_(std::move(place)),
        restored_(restored != nullptr),
        path_(std::move(path)),
        opened_running_(restored != nullptr && restored->running) {}
  ~GuestPath();
  GuestPath(const GuestPath&) = delete;
  GuestPath& operator=(const GuestPath&) = delete;

  const std::string identity;
  [[nodiscard]] const std::shared_ptr<GuestPlace>& place() const {
    return place_;
  }
  // Relative to the guest's root; empty: the root.
  [[nodiscard]] std::string Path() const EXCLUDES(mutex_);
  // Somebody may come back to it by its number alone: into the book.
  void Note() EXCLUDES(mutex_);
  // One that was opened can be asked when no name leads to it any more.
  void SetOpen(const std::shared_ptr<GuestOpen>& open) EXCLUDES(mutex_);
  [[nodiscard]] std::shared_ptr<GuestOpen> Open() const EXCLUDES(mutex_);
  // Whether the guest that it was opened in, here or in a daemon before this
  // one, is gone: what its disk has of it may be older, or nothing.
  [[nodiscard]] bool Lost() const EXCLUDES(mutex_);

 private:
  friend class GuestPlace;
  void Move(std::string path) EXCLUDES(mutex_);
  [[nodiscard]] PathRecord Record() const REQUIRES(mutex_);
  void Write() REQUIRES(mutex_);  // into the book

  const std::shared_ptr<GuestPlace> place_;
  const bool restored_;  // it may be open, though not here
  mutable Mutex mutex_;
  std::string path_ GUARDED_BY(mutex_);
  bool noted_ GUARDED_BY(mutex_) = false;
  std::weak_ptr<GuestOpen> open_ GUARDED_BY(mutex_);
  bool opened_running_ GUARDED_BY(mutex_);  // the guest, when it was opened
};
using GuestPathPtr = std::shared_ptr<GuestPath>;

// The files of a sandbox's guest, or of a snapshot of it. Thread-safe.
class GuestPlace : public std::enable_shared_from_this<GuestPlace> {
 public:
  GuestPlace(TreePtr tree, std::string uuid, std::string snapshot);

  const std::string uuid;
  const std::string snapshot;  // SnapshotId; empty: the sandbox's own
  const std::string key;       // of the root, which those of all begin with
  const TreePtr tree;

  // Whose they are now. Throws Error(ENOENT) when the snapshot is gone.
  [[nodiscard]] FilesOf Whose() const;
  // Attributes of the root, whose owner the guest's user is shown as.
  [[nodiscard]] struct stat RootStat() const;
  // Whether they are on a disk that nothing can change.
  [[nodiscard]] bool AtRest() const;

  // What is known by that name, or from now on.
  [[nodiscard]] GuestPathPtr At(const std::string& path, bool is_dir)
      EXCLUDES(mutex_);
  // The same of what another daemon knew.
  [[nodiscard]] GuestPathPtr Restore(const PathRecord& record) EXCLUDES(mutex_);
  // It has another name now, and all below it.
  void Moved(const std::string& from, const std::string& to) EXCLUDES(mutex_);
  // No name leads to it any more, nor to what is below it.
  void Gone(const std::string& path) EXCLUDES(mutex_);

  // Asks for them; see AskFiles.
  template <typename T, typename F>
  void Ask(const Reply<T>& reply, F work) {
    reply.Guard([&] {
      AskFiles(tree->backend.GetFiles(), Whose(), reply, std::move(work));
    });
  }

 private:
  friend class GuestPath;
  void Forget(const GuestPath& path) EXCLUDES(mutex_);

  Mutex mutex_;
  std::map<std::string, std::weak_ptr<GuestPath>> paths_ GUARDED_BY(mutex_);
  std::set<std::string> identities_ GUARDED_BY(mutex_);  // of all that live
  uint64_t last_ GUARDED_BY(mutex_) = 0;
};
using GuestPlacePtr = std::shared_ptr<GuestPlace>;

}  // namespace sbxfs

#endif  // SBXFS_FS_GUEST_PLACE_H_
