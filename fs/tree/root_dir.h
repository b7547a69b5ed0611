#ifndef SBXFS_FS_TREE_ROOT_DIR_H_
#define SBXFS_FS_TREE_ROOT_DIR_H_

#include "fs/tree/furnished_dir.h"

namespace sbxfs {

// The root: .host, the sandboxes, and NAME.yaml for each, which is not listed.
// Copied to a NAME that is not there it makes one.
class RootDir : public FurnishedDir {
 public:
  explicit RootDir(TreePtr tree)
      : FurnishedDir(std::move(tree), DirKind::kRoot, "/", "") {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] bool Steady() const override { return true; }
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void MakeDir(const Caller& caller, const std::string& name, mode_t mode,
               Reply<NodePtr> reply) override;
  [[nodiscard]] bool MakesOf(const std::string& name) const override;
  void RemoveDir(const Caller& caller, const std::string& name,
                 Reply<Done> reply) override;
  void Create(const Caller& caller, const std::string& name, int flags,
              Reply<Made> reply) override;
  void Rename(const Caller& caller, const std::string& name, Dir& to,
              const std::string& new_name, Reply<Done> reply) override;

 protected:
  std::shared_ptr<File> Built(const Caller& caller,
                              const std::string& name) override;
  bool IsDocument(const std::string& name) const override;
  bool IsScratch(const std::string& name, int flags) const override;
  void RefuseNew(const std::string& name) const override;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_ROOT_DIR_H_
