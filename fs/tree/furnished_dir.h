#ifndef SBXFS_FS_TREE_FURNISHED_DIR_H_
#define SBXFS_FS_TREE_FURNISHED_DIR_H_

#include <string>
#include <vector>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// A directory with files of the table, which cannot be removed, made or
// renamed. Its documents can be edited the way editors do: scratch files,
// renames over and away, unlink and anew.
class FurnishedDir : public Dir {
 public:
  FurnishedDir(TreePtr tree, DirKind kind, std::string key, std::string subject)
      : Dir(std::move(key), std::move(subject)),
        tree_(std::move(tree)),
        kind_(kind) {}

  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  [[nodiscard]] std::vector<Entry> Unlisted(const Caller& reader) override;
  void Unlink(const Caller& caller, const std::string& name,
              Reply<Done> reply) override;
  void Create(const Caller& caller, const std::string& name, int flags,
              Reply<Made> reply) override;
  void Rename(const Caller& caller, const std::string& name, Dir& to,
              const std::string& new_name, Reply<Done> reply) override;
  void Receive(const Caller& caller, const std::string& name,
               const std::shared_ptr<File>& scratch,
               Reply<Done> reply) override;

 protected:
  // The node of a row's directory.
  [[nodiscard]] virtual NodePtr SubDir(const Row&) { return nullptr; }
  // The file `name` is that a text can be stored in; null: none. Without
  // regard to whether it was taken away.
  [[nodiscard]] virtual std::shared_ptr<File> Built(const Caller& caller,
                                                    const std::string& name);
  [[nodiscard]] virtual bool IsDocument(const std::string& name) const;
  // Whether a new file of that name can only be an editor's.
  [[nodiscard]] virtual bool IsScratch(const std::string& name,
                                       int flags) const;
  // What to say of another new name.
  [[noreturn]] virtual void RefuseNew(const std::string& name) const;
  // unlink of config.yaml.rejected and its like; false: cannot be removed.
  virtual bool UnlinkRow(const Caller&, const Row&, Reply<Done>&) {
    return false;
  }

  [[nodiscard]] std::string Thing(const std::string& name) const {
    return key + ' ' + name;
  }

  const TreePtr tree_;
  const DirKind kind_;

 private:
  void TakeAway(const Caller& caller, const std::string& name, Dir& to,
                const std::string& new_name);
};

// A node for a row that is a file.
[[nodiscard]] std::shared_ptr<File> RowNode(const TreePtr& tree, const Row& row,
                                            const std::string& uuid);

// Renames the scratch file `name` of the directory of key `from`, wherever to;
// false when there is none.
bool MoveScratch(const TreePtr& tree, const Caller& caller,
                 const std::string& from, const std::string& name, Dir& to,
                 const std::string& new_name, const Reply<Done>& reply);

// `reply`, whose success empties the error file of the sandbox.
[[nodiscard]] Reply<Done> Clearing(const TreePtr& tree, const std::string& uuid,
                                   const Reply<Done>& reply);

// Opens a file that was made.
void OpenMade(const std::shared_ptr<File>& file, const Caller& caller,
              int flags, const Reply<Made>& reply);

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_FURNISHED_DIR_H_
