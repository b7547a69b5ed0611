#ifndef SBXFS_FS_TREE_SANDBOX_DIR_H_
#define SBXFS_FS_TREE_SANDBOX_DIR_H_

#include <string>
#include <utility>

#include "fs/tree/furnished_dir.h"

namespace sbxfs {

// A sandbox, at the root or in .host/trash, whatever its name.
class SandboxDir : public FurnishedDir {
 public:
  // `name`: which it was found by at the root; none: it is in the trash.
  SandboxDir(TreePtr tree, const std::string& uuid, std::string name = {})
      : FurnishedDir(std::move(tree), DirKind::kSandbox, uuid + '/', uuid),
        name_(std::move(name)),
        identity_(name_.empty() ? key + "trashed" : key) {}

  // Error(ESTALE) when another sandbox has its name by now.
  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] bool Steady() const override { return true; }
  // To the kernel what rmdir took is dead, and a directory is in one place: who
  // finds it in the trash while somebody has it at the root would be told
  // ESTALE (d_splice_alias).
  [[nodiscard]] const std::string& Identity() const override {
    return identity_;
  }
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override;

 protected:
  NodePtr SubDir(const Row& row) override;
  bool UnlinkRow(const Caller& caller, const Row& row,
                 Reply<Done>& reply) override;

 private:
  const std::string name_;
  const std::string identity_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_SANDBOX_DIR_H_
