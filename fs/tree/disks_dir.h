#ifndef SBXFS_FS_TREE_DISKS_DIR_H_
#define SBXFS_FS_TREE_DISKS_DIR_H_

#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// .host/disks: additional disks, each a file that holds its size.
class DisksDir : public Dir {
 public:
  explicit DisksDir(TreePtr tree)
      : Dir(tree->options.at + "disks/", ""), tree_(std::move(tree)) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void Unlink(const Caller& caller, const std::string& name,
              Reply<Done> reply) override;
  void Create(const Caller& caller, const std::string& name, int flags,
              Reply<Made> reply) override;
  void Rename(const Caller& caller, const std::string& name, Dir& to,
              const std::string& new_name, Reply<Done> reply) override;
  void Receive(const Caller& caller, const std::string& name,
               const std::shared_ptr<File>& scratch,
               Reply<Done> reply) override;
  [[nodiscard]] bool MakesOf(const std::string& name) const override;

 private:
  const TreePtr tree_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_DISKS_DIR_H_
