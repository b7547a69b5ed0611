#ifndef SBXFS_FS_TREE_SNAPSHOTS_DIR_H_
#define SBXFS_FS_TREE_SNAPSHOTS_DIR_H_

#include <string>
#include <vector>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// A sandbox's snapshots: mkdir takes one, rmdir deletes it, mv renames it.
class SnapshotsDir : public Dir {
 public:
  SnapshotsDir(TreePtr tree, const std::string& uuid)
      : Dir(uuid + "/snapshots/", uuid), tree_(std::move(tree)) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  void FreshStat(const Caller& reader, Reply<struct stat> reply) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void MakeDir(const Caller& caller, const std::string& name, mode_t mode,
               Reply<NodePtr> reply) override;
  void RemoveDir(const Caller& caller, const std::string& name,
                 Reply<Done> reply) override;
  void Rename(const Caller& caller, const std::string& name, Dir& to,
              const std::string& new_name, Reply<Done> reply) override;

 private:
  const TreePtr tree_;
};

// One snapshot: fixed files. The same node whatever its name.
class SnapshotDir : public Dir {
 public:
  SnapshotDir(TreePtr tree, const std::string& uuid, const Snapshot& snapshot);

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  void FreshStat(const Caller& reader, Reply<struct stat> reply) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  [[nodiscard]] std::vector<Entry> Unlisted(const Caller& reader) override;
  void Unlink(const Caller& caller, const std::string& name,
              Reply<Done> reply) override;

 private:
  [[nodiscard]] NodePtr Child(const Row& row);

  const TreePtr tree_;
  const std::string id_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_SNAPSHOTS_DIR_H_
