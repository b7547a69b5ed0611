#ifndef SBXFS_FS_TREE_EXEC_DIR_H_
#define SBXFS_FS_TREE_EXEC_DIR_H_

#include <string>
#include <vector>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// Commands in a sandbox's guest: mkdir makes a job, rmdir ends it; and `new`.
class ExecDir : public Dir {
 public:
  ExecDir(TreePtr tree, const std::string& uuid)
      : Dir(uuid + "/exec/", uuid), tree_(std::move(tree)) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void MakeDir(const Caller& caller, const std::string& name, mode_t mode,
               Reply<NodePtr> reply) override;
  void RemoveDir(const Caller& caller, const std::string& name,
                 Reply<Done> reply) override;

 private:
  const TreePtr tree_;
};

// One job: fixed files.
class JobDir : public Dir {
 public:
  JobDir(TreePtr tree, const JobPtr& job);

  [[nodiscard]] std::string Place() const override { return place_; }
  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void Unlink(const Caller& caller, const std::string& name,
              Reply<Done> reply) override;

 private:
  const TreePtr tree_;
  const std::string id_;
  const std::string place_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_EXEC_DIR_H_
