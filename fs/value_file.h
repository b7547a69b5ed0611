#ifndef SBXFS_FS_VALUE_FILE_H_
#define SBXFS_FS_VALUE_FILE_H_

#include <string>
#include <string_view>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// A file that holds one value: shown as it was at open, and a line written to
// it is a command whose verdict is the write's.
class ValueFile : public File {
 public:
  static constexpr std::size_t kLongestLine = 4096;

  ValueFile(TreePtr tree, std::string key, std::string subject)
      : File(std::move(key), std::move(subject)), tree_(std::move(tree)) {}

  [[nodiscard]] virtual std::string Show(const View& view) = 0;
  [[nodiscard]] virtual bool Polled() const { return false; }
  // OpenValueFile of it.
  void Open(const Caller& caller, int flags, Reply<OpenFilePtr> reply) override;
  // One write of `bytes`.
  virtual void Command(const Caller& caller, const std::string& bytes,
                       bool wait, Reply<Done> reply) = 0;
  // Whether that command may be done twice, as setting a value may.
  [[nodiscard]] virtual bool MayRepeat(const std::string&) { return true; }
  // An open file of it has gone.
  virtual void Released() {}

  void StoreWhole(const Caller& caller, const std::string& text,
                  Reply<Done> reply) override {
    Command(caller, text, true, std::move(reply));
  }

  [[nodiscard]] virtual View ViewFor(const Caller& reader) {
    return tree_->ViewFor(reader, subject);
  }
  [[nodiscard]] Tree& tree() const { return *tree_; }

 protected:
  const TreePtr tree_;
};

// The one line in `bytes`. Throws Error(EINVAL) or Error(E2BIG).
[[nodiscard]] std::string OneLine(std::string_view noun,
                                  std::string_view bytes);

// Throws Error(EACCES) for a sandbox in the trash.
void CheckNotTrashed(const View& view, std::string_view noun);

// The value of one moment.
[[nodiscard]] OpenFilePtr OpenValueFile(const std::shared_ptr<ValueFile>& file,
                                        const Caller& caller, int flags);

}  // namespace sbxfs

#endif  // SBXFS_FS_VALUE_FILE_H_
