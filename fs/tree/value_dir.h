#ifndef SBXFS_FS_TREE_VALUE_DIR_H_
#define SBXFS_FS_TREE_VALUE_DIR_H_

#include <optional>
#include <string>
#include <vector>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// A collection of a sandbox: a file for each entry, which holds its value. A
// new file becomes an entry with the first line written to it; unlink, or
// `none` written, removes one, rename renames it.
class ValueDir : public Dir {
 public:
  ValueDir(TreePtr tree, const Row& row, const std::string& uuid);

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void Unlink(const Caller& caller, const std::string& name,
              Reply<Done> reply) override;
  void Create(const Caller& caller, const std::string& name, int flags,
              Reply<Made> reply) override;
  void Rename(const Caller& caller, const std::string& name, Dir& to,
              const std::string& new_name, Reply<Done> reply) override;
  [[nodiscard]] bool MakesOf(const std::string& name) const override;
  void Receive(const Caller& caller, const std::string& name,
               const std::shared_ptr<File>& scratch,
               Reply<Done> reply) override;

 private:
  // Null when there is no such entry.
  [[nodiscard]] std::optional<std::string> Find(const Caller& caller,
                                                const std::string& name);
  [[nodiscard]] std::shared_ptr<File> Item(const std::string& name);
  void Move(const Caller& caller, const std::string& name,
            const std::string& new_name, const std::string& value,
            Reply<Done> reply);

  const TreePtr tree_;
  const Row& row_;
  const Collection collection_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_VALUE_DIR_H_
