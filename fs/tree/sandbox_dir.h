#ifndef SBXFS_FS_TREE_SANDBOX_DIR_H_
#define SBXFS_FS_TREE_SANDBOX_DIR_H_

#include <string>
#include <utility>

#include "fs/tree/furnished_dir.h"

namespace sbxfs {

// A sandbox, at the root or in .host/trash: the same node wherever it is and
// whatever its name.
class SandboxDir : public FurnishedDir {
 public:
  // `name`: which it was found by at the root, if there.
  SandboxDir(TreePtr tree, const std::string& uuid, std::string name = {})
      : FurnishedDir(std::move(tree), DirKind::kSandbox, uuid + '/', uuid),
        name_(std::move(name)) {}

  // Error(ESTALE) when another sandbox has its name by now.
  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] bool Steady() const override { return true; }
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override;

 protected:
  NodePtr SubDir(const Row& row) override;
  bool UnlinkRow(const Caller& caller, const Row& row,
                 Reply<Done>& reply) override;

 private:
  const std::string name_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_SANDBOX_DIR_H_
