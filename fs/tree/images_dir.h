#ifndef SBXFS_FS_TREE_IMAGES_DIR_H_
#define SBXFS_FS_TREE_IMAGES_DIR_H_

#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// .host/images: base images, uploaded while they are written, front to back.
class ImagesDir : public Dir {
 public:
  explicit ImagesDir(TreePtr tree)
      : Dir(tree->options.at + "images/", ""), tree_(std::move(tree)) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void Unlink(const Caller& caller, const std::string& name,
              Reply<Done> reply) override;
  void Create(const Caller& caller, const std::string& name, int flags,
              Reply<Made> reply) override;

 private:
  const TreePtr tree_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_IMAGES_DIR_H_
