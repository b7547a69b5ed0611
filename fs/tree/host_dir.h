#ifndef SBXFS_FS_TREE_HOST_DIR_H_
#define SBXFS_FS_TREE_HOST_DIR_H_

#include "fs/tree/furnished_dir.h"

namespace sbxfs {

// .host: the hypervisor behind the mount.
class HostDir : public FurnishedDir {
 public:
  explicit HostDir(TreePtr tree)
      : FurnishedDir(std::move(tree), DirKind::kHost, ".host/", "") {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;

 protected:
  NodePtr SubDir(const Row& row) override;
};

// .host/hosts: each of several hypervisors.
class HostsDir : public Dir {
 public:
  explicit HostsDir(TreePtr tree)
      : Dir(".host/hosts/", ""), tree_(std::move(tree)) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;

 private:
  const TreePtr tree_;
};

// One of them.
class HypervisorDir : public FurnishedDir {
 public:
  // `tree`: Tree::Of it.
  explicit HypervisorDir(const TreePtr& tree)
      : FurnishedDir(tree, DirKind::kHypervisor, tree->options.at, "") {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;

 protected:
  NodePtr SubDir(const Row& row) override;
};

// .host/trash: what rmdir took. rmdir here is final.
class TrashDir : public Dir {
 public:
  explicit TrashDir(TreePtr tree)
      : Dir(".host/trash/", ""), tree_(std::move(tree)) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void RemoveDir(const Caller& caller, const std::string& name,
                 Reply<Done> reply) override;
  void Rename(const Caller& caller, const std::string& name, Dir& to,
              const std::string& new_name, Reply<Done> reply) override;

 private:
  const TreePtr tree_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_HOST_DIR_H_
