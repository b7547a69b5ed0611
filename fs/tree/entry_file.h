#ifndef SBXFS_FS_TREE_ENTRY_FILE_H_
#define SBXFS_FS_TREE_ENTRY_FILE_H_

#include <memory>
#include <string>
#include <utility>

#include "fs/value_file.h"

namespace sbxfs {

// A value in a directory where writing one makes it: an entry that is there, or
// a new file, in the tree's `passing`, that becomes one with its first line.
class EntryFile : public ValueFile {
 public:
  // `dir`: the directory's key.
  EntryFile(TreePtr tree, std::string dir, std::string name,
            std::string subject)
      : ValueFile(std::move(tree), dir + name, std::move(subject)),
        dir_(std::move(dir)),
        name_(std::move(name)) {}

  // Tools that make files set their mode and owner; those stay as they are.
  void Change(const Caller&, const Changes&, Reply<Done> reply) override {
    reply.Ok();
  }

  // Never written: it was no entry. Written: it needs no place beside it.
  void Released() override {
    const NodePtr passing = tree_->passing.Find(dir_, name_);
    if (std::dynamic_pointer_cast<EntryFile>(passing)) {
      tree_->passing.Remove(dir_, name_, passing.get());
    }
  }

 protected:
  [[nodiscard]] bool IsNew() const {
    return tree_->passing.Find(dir_, name_) != nullptr;
  }

  const std::string dir_;
  const std::string name_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_ENTRY_FILE_H_
