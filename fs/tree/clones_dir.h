#ifndef SBXFS_FS_TREE_CLONES_DIR_H_
#define SBXFS_FS_TREE_CLONES_DIR_H_

#include <string>
#include <vector>

#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// clones/ of a sandbox or of one of its snapshots: mkdir makes a new sandbox
// at the root of the mount; the entries are links to those that there are.
class ClonesDir : public Dir {
 public:
  // `layer` names the snapshot; empty: the sandbox's own, which lists them all.
  ClonesDir(TreePtr tree, const std::string& uuid, const std::string& layer);

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void MakeDir(const Caller& caller, const std::string& name, mode_t mode,
               Reply<NodePtr> reply) override;
  [[nodiscard]] bool MakingTakesLong() override;
  void Unlink(const Caller& caller, const std::string& name,
              Reply<Done> reply) override;

 private:
  [[nodiscard]] bool IsHere(const Sandbox& sandbox) const;
  // The tag of its snapshot; empty for the sandbox's own.
  [[nodiscard]] std::string Tag(const Caller& caller);

  const TreePtr tree_;
  const std::string layer_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_CLONES_DIR_H_
