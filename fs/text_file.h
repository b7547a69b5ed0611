#ifndef SBXFS_FS_TEXT_FILE_H_
#define SBXFS_FS_TEXT_FILE_H_

#include <string>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// The key of a row's node.
[[nodiscard]] std::string RowKey(const Row& row, const std::string& uuid);

// A file of the table that is no document: shown as it was at open (logs go
// on growing), and a line written to it is a command whose verdict is the
// write's.
class TextFile : public File {
 public:
  static constexpr std::size_t kLongestLine = 4096;

  TextFile(TreePtr tree, const Row& row, const std::string& uuid)
      : File(RowKey(row, uuid), uuid), tree_(std::move(tree)), row_(row) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  void FreshStat(const Caller& reader, Reply<struct stat> reply) override;
  [[nodiscard]] bool Overtakable() const override;
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override;
  void Open(const Caller& caller, int flags, Reply<OpenFilePtr> reply) override;
  void StoreWhole(const Caller& caller, const std::string& text,
                  Reply<Done> reply) override;

  [[nodiscard]] View ViewFor(const Caller& reader) {
    return tree_->ViewFor(reader, subject);
  }
  [[nodiscard]] const Row& row() const { return row_; }
  [[nodiscard]] Tree& tree() const { return *tree_; }

  // One write of `bytes`.
  void Command(const Caller& caller, const std::string& bytes, bool wait,
               Reply<Done> reply);

 private:
  [[nodiscard]] std::shared_ptr<TextFile> Self() {
    return std::static_pointer_cast<TextFile>(shared_from_this());
  }

  const TreePtr tree_;
  const Row& row_;
};

// Throws Error(EACCES) unless the row can be written in this view.
void CheckWritable(const View& view, const Row& row);

}  // namespace sbxfs

#endif  // SBXFS_FS_TEXT_FILE_H_
