#ifndef SBXFS_FS_KERNEL_CACHE_H_
#define SBXFS_FS_KERNEL_CACHE_H_

#include <fuse_lowlevel.h>

#include <atomic>
#include <set>
#include <string>

#include "backend/util/mutex.h"
#include "backend/util/timer.h"
#include "fs/inode_table.h"

namespace sbxfs {

// What the kernel may keep of the tree, and the telling when that is old. May
// be used from any thread; the kernel is told on the timer's, with no lock held
// and outside of all requests.
//
// The kernel is told of attributes alone, since it takes no lock for that
// (fuse_reverse_inval_inode with a negative offset). For a name it takes the
// lock of the directory, which who makes or removes one there has until it is
// answered: a daemon killed meanwhile could never end, nor that request. So
// names are given for a short time, which is how long one that others took from
// a sandbox still leads to it. One that leads to nothing any more, or to where
// it must not, is answered ESTALE, and the kernel looks all names up again.
class KernelCache {
 public:
  // In seconds. The attributes of a steady node are kept for as long as this
  // if the telling missed them.
  static constexpr double kKept = 0.25;
  // Names are enough for a program that lists and then looks.
  static constexpr double kNamed = 0.1;
  // The kernel lets one writer into an inode at a time: who comes to change
  // one, while a write waits, must soon be given another (Node::Overtakable).
  static constexpr double kOvertaken = 0.01;

  KernelCache(InodeTable& inodes, Timer& timer)
      : inodes_(inodes), timer_(timer) {}

  // Whom to tell; libfuse tells nobody before the kernel's first request.
  void Attach(fuse_session* session) { session_ = session; }

  // For how long the kernel may keep what is said of a node.
  [[nodiscard]] static double ForAttributes(const Node& node) {
    return node.Steady() ? kKept : node.Lasts();
  }
  [[nodiscard]] static double ForName(const Node& node) {
    if (!node.Steady()) return node.Lasts();
    return node.Overtakable() ? kOvertaken : kNamed;
  }

  // Something of the sandbox, or with none of the root, differs from before.
  void Changed(const std::string& uuid) EXCLUDES(mutex_);

 private:
  using Subjects = std::set<std::string>;
  void Post() EXCLUDES(mutex_);
  void Tell(const Subjects& subjects);

  InodeTable& inodes_;
  Timer& timer_;
  std::atomic<fuse_session*> session_ = nullptr;
  Mutex mutex_;
  Subjects changed_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_KERNEL_CACHE_H_
