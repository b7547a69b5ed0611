#ifndef SBXFS_FS_TREE_SOCK_DIR_H_
#define SBXFS_FS_TREE_SOCK_DIR_H_

#include <string>
#include <vector>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// The forwarded sockets of a sandbox that runs: a link to each.
class SockDir : public Dir {
 public:
  SockDir(TreePtr tree, const Row& row, const std::string& uuid);

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;

 private:
  const TreePtr tree_;
  const Row& row_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_SOCK_DIR_H_
