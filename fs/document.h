#ifndef SBXFS_FS_DOCUMENT_H_
#define SBXFS_FS_DOCUMENT_H_

#include <string>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// A text that is taken whole: what an open file writes is staged, and stored
// when the process that opened it closes it. Others' closes do not count (a
// shell block's children flush too), nor does a killed process's: half a text
// is often a valid one.
class DocumentFile : public File {
 public:
  static constexpr uint64_t kLongest = 1 << 20;

  DocumentFile(TreePtr tree, std::string key, std::string subject,
               std::string name)
      : File(std::move(key), std::move(subject)),
        name(std::move(name)),
        tree_(std::move(tree)) {}

  const std::string name;

  [[nodiscard]] virtual std::string Text(const Caller& reader) = 0;
  // Checks and stores it.
  void StoreWhole(const Caller& caller, const std::string& text,
                  Reply<Done> reply) override = 0;
  // Throws unless the caller may write it.
  virtual void CheckWrite(const Caller&) {}
  // `reader` reads `text`, which it was when it was opened.
  virtual void Seen(const Caller&, const std::string&) {}
  // An open file of it has gone.
  virtual void Released() {}

  void Open(const Caller& caller, int flags, Reply<OpenFilePtr> reply) override;
  void Reopen(const Caller& caller, int flags, bool whole,
              Reply<OpenFilePtr> reply) override;
  // One that is no sandbox's file yet has none to keep.
  void Change(const Caller&, const Changes&, Reply<Done> reply) override {
    reply.Ok();
  }

  [[nodiscard]] Tree& tree() const { return *tree_; }

 protected:
  const TreePtr tree_;
};

// A document of the table.
class RowDocument : public DocumentFile {
 public:
  RowDocument(TreePtr tree, const Row& row, const std::string& uuid);

  [[nodiscard]] virtual View ViewFor(const Caller& reader) {
    return tree_->ViewFor(reader, subject);
  }

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] std::string Text(const Caller& reader) override;
  void StoreWhole(const Caller& caller, const std::string& text,
                  Reply<Done> reply) override;
  void CheckWrite(const Caller& caller) override;
  void Seen(const Caller& reader, const std::string& text) override;
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override;

 protected:
  RowDocument(TreePtr tree, const Row& row, std::string key,
              const std::string& uuid)
      : DocumentFile(std::move(tree), std::move(key), uuid,
                     std::string(row.name)),
        row_(row) {}

 private:
  const Row& row_;
};

// An editor's scratch file, in memory.
class ScratchFile : public File {
 public:
  ScratchFile(const Caller& owner, std::string subject, std::string text);

  [[nodiscard]] struct stat Stat(const Caller& reader) override
      EXCLUDES(mutex_);
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override EXCLUDES(mutex_);
  void Open(const Caller& caller, int flags, Reply<OpenFilePtr> reply) override
      EXCLUDES(mutex_);

  [[nodiscard]] bool Transient() const override { return true; }
  [[nodiscard]] std::string Text() EXCLUDES(mutex_);
  void Write(uint64_t offset, const std::string& bytes, bool append)
      EXCLUDES(mutex_);
  void Truncate(uint64_t size) override EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  uid_t uid_ GUARDED_BY(mutex_);
  gid_t gid_ GUARDED_BY(mutex_);
  mode_t mode_ GUARDED_BY(mutex_) = 0600;
  Time modified_ GUARDED_BY(mutex_);
  std::string text_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_DOCUMENT_H_
