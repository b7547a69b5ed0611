#ifndef SBXFS_FS_TEXT_FILE_H_
#define SBXFS_FS_TEXT_FILE_H_

#include <string>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"
#include "fs/value_file.h"

namespace sbxfs {

// The key of a row's node.
[[nodiscard]] std::string RowKey(const Tree& tree, const Row& row,
                                 const std::string& uuid);

// A file of the table that is no document; those that are logs go on growing.
class TextFile : public ValueFile {
 public:
  TextFile(TreePtr tree, const Row& row, const std::string& uuid)
      : TextFile(tree, row, RowKey(*tree, row, uuid), uuid) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  void FreshStat(const Caller& reader, Reply<struct stat> reply) override;
  [[nodiscard]] bool Overtakable() const override;
  // Status alone is asked for so often that it matters.
  [[nodiscard]] bool Steady() const override { return Overtakable(); }
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override;
  void Open(const Caller& caller, int flags, Reply<OpenFilePtr> reply) override;
  [[nodiscard]] std::string Show(const View& view) override {
    return row_.show(view);
  }
  [[nodiscard]] bool Polled() const override { return row_.poll; }
  void Command(const Caller& caller, const std::string& bytes, bool wait,
               Reply<Done> reply) override;
  [[nodiscard]] bool MayRepeat(const std::string& bytes) override;
  void Reopen(const Caller& caller, int flags, bool whole,
              Reply<OpenFilePtr> reply) override;

  [[nodiscard]] const Row& row() const { return row_; }

 protected:
  TextFile(TreePtr tree, const Row& row, std::string key,
           const std::string& uuid)
      : ValueFile(std::move(tree), std::move(key), uuid), row_(row) {}

 private:
  [[nodiscard]] std::shared_ptr<TextFile> Self() {
    return std::static_pointer_cast<TextFile>(shared_from_this());
  }

  const Row& row_;
};

// The log behind a row: of what it shows, or of what changes it.
[[nodiscard]] LineLogPtr LogOf(const View& view, const Row& row);

// Throws Error(EACCES) unless the row can be written in this view.
void CheckWritable(const View& view, const Row& row);

}  // namespace sbxfs

#endif  // SBXFS_FS_TEXT_FILE_H_
