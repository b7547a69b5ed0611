#ifndef SBXFS_FS_INODE_TABLE_H_
#define SBXFS_FS_INODE_TABLE_H_

#include <cstdint>
#include <deque>
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
// It follows from the object's key and the mount's seed, so that a daemon that
// goes on with the mount of another finds what the kernel means (Number of each
// node until one fits), and one that lists need not remember what it listed.
//
// May be called from any thread. Lock order in fs/: this table's lock, then a
// node's or the tree's; none is held across a call of the backend or a reply.
class InodeTable {
 public:
  static constexpr uint64_t kRoot = 1;

  // Whoever may choose names must not know `seed`: two of one number would be
  // taken for each other.
  InodeTable(const NodePtr& root, uint64_t seed);

  // Null for a number the kernel does not hold.
  [[nodiscard]] NodePtr Find(uint64_t number) EXCLUDES(mutex_);
  // For listings: counts nothing.
  [[nodiscard]] uint64_t Number(const Node& node) EXCLUDES(mutex_);
  // The kernel gets to know it once more.
  [[nodiscard]] uint64_t Remember(const NodePtr& node) EXCLUDES(mutex_);
  // The kernel knows it by that number from another daemon.
  void Adopt(uint64_t number, const NodePtr& node) EXCLUDES(mutex_);
  // Whether `number` is or was one of the node, in whichever mount of the seed.
  [[nodiscard]] bool Fits(uint64_t number, const Node& node) const;
  // Whether it can be one of that sandbox.
  [[nodiscard]] bool FitsSubject(uint64_t number,
                                 const std::string& subject) const;
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
  [[nodiscard]] uint64_t Hash(const Node& node, uint32_t age) const;
  uint64_t NumberOf(const Node& node) REQUIRES(mutex_);
  [[nodiscard]] uint32_t AgeOf(const std::string& key) REQUIRES(mutex_);
  void Age(const std::string& key) REQUIRES(mutex_);
  void Add(uint64_t number, const NodePtr& node, NodePtr& freed)
      REQUIRES(mutex_);

  const uint64_t seed_;
  const std::string root_;
  Mutex mutex_;
  // How many objects of that key, or below it if it ends in '/', have gone. Of
  // the last of them: the kernel has long forgotten those before.
  std::unordered_map<std::string, uint32_t> ages_ GUARDED_BY(mutex_);
  std::deque<std::string> aged_ GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, Entry> entries_ GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::vector<uint64_t>> steady_
      GUARDED_BY(mutex_);  // by subject
  std::unordered_map<uint64_t, int> waiting_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_INODE_TABLE_H_
