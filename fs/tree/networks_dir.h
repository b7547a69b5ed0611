#ifndef SBXFS_FS_TREE_NETWORKS_DIR_H_
#define SBXFS_FS_TREE_NETWORKS_DIR_H_

#include <memory>
#include <string>
#include <vector>

#include "fs/node.h"
#include "fs/tree.h"
#include "fs/tree/furnished_dir.h"

namespace sbxfs {

// .host/networks: libvirt's networks, those of others among them.
class NetworksDir : public Dir {
 public:
  explicit NetworksDir(TreePtr tree)
      : Dir(tree->options.at + "networks/", ""), tree_(std::move(tree)) {}

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

// One of them.
class NetworkDir : public FurnishedDir {
 public:
  NetworkDir(const TreePtr& tree, const std::string& name);

  [[nodiscard]] struct stat Stat(const Caller& reader) override;

 protected:
  [[nodiscard]] std::shared_ptr<File> Built(const Caller& caller,
                                            const std::string& name) override;

 private:
  const std::string name_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_NETWORKS_DIR_H_
