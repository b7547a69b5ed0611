#ifndef SBXFS_FS_TREE_SANDBOX_DIR_H_
#define SBXFS_FS_TREE_SANDBOX_DIR_H_

#include <string>

#include "fs/tree/furnished_dir.h"

namespace sbxfs {

// A sandbox, at the root or in .host/trash: the same node wherever it is and
// whatever its name.
class SandboxDir : public FurnishedDir {
 public:
  SandboxDir(TreePtr tree, const std::string& uuid)
      : FurnishedDir(std::move(tree), DirKind::kSandbox, uuid + '/', uuid) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override;

 protected:
  NodePtr SubDir(const Row& row) override;
  bool UnlinkRow(const Caller& caller, const Row& row,
                 Reply<Done>& reply) override;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_SANDBOX_DIR_H_
