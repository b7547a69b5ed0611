#ifndef SBXFS_FS_INODE_TABLE_H_
#define SBXFS_FS_INODE_TABLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/util/mutex.h"
#include "fs/node.h"

namespace sbxfs {

// The numbers the kernel knows nodes by. A number stands for one object for
// ever: an object keeps it as long as it lives, and none gets it after that.
//
// May be called from any thread. Lock order in fs/: this table's lock, then a
// node's or the tree's; none is held across a call of the backend or a reply.
class InodeTable {
 public:
  static constexpr uint64_t kRoot = 1;

  explicit InodeTable(const NodePtr& root);

  // Null for a number the kernel does not hold.
  [[nodiscard]] NodePtr Find(uint64_t number) EXCLUDES(mutex_);
  // For listings: counts nothing.
  [[nodiscard]] uint64_t Number(const Node& node) EXCLUDES(mutex_);
  // The kernel gets to know it once more.
  [[nodiscard]] uint64_t Remember(const NodePtr& node) EXCLUDES(mutex_);
  void Forget(uint64_t number, uint64_t count) EXCLUDES(mutex_);

  // The object is gone: one of that key to come is another. A key ending in
  // '/' stands for all that begin with it.
  void Retire(const std::string& key) EXCLUDES(mutex_);

  // The nodes of a sandbox that the kernel holds and may keep attributes of.
  [[nodiscard]] std::vector<uint64_t> Steady(const std::string& subject)
      EXCLUDES(mutex_);

  // While the returned value lives, lookups of an overtakable node do not get
  // this number.
  [[nodiscard]] std::shared_ptr<void> Waiting(uint64_t number) EXCLUDES(mutex_);

  [[nodiscard]] bool IsWaiting(uint64_t number) EXCLUDES(mutex_);

  // Drops all nodes.
  void Clear() EXCLUDES(mutex_);

 private:
  struct Entry {
    NodePtr node;
    uint64_t lookups = 0;
  };
  uint64_t NumberOf(const std::string& key) REQUIRES(mutex_);

  Mutex mutex_;
  uint64_t last_ GUARDED_BY(mutex_) = kRoot;
  std::unordered_map<std::string, uint64_t> numbers_ GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, Entry> entries_ GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::vector<uint64_t>> steady_
      GUARDED_BY(mutex_);  // by subject
  std::unordered_map<uint64_t, int> waiting_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_INODE_TABLE_H_
