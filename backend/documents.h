#ifndef SBXFS_BACKEND_DOCUMENTS_H_
#define SBXFS_BACKEND_DOCUMENTS_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/storage.h"

namespace sbxfs {

// Texts of the hypervisor, kept as volumes `doc.NAME.N`. A new text is written
// under the next number before the old one goes, and begins with a line that
// tells whether the rest of it is whole: a crash leaves the old or the new.
// All functions block.
class Documents {
 public:
  explicit Documents(Storage& storage) : storage_(storage) {}

  struct Text {
    std::string text;
    Time modified;
  };
  // Empty when there is none.
  [[nodiscard]] Text Read(const std::string& name);
  // Those whose names begin with `prefix`, by name.
  [[nodiscard]] std::map<std::string, Text> ReadAll(const std::string& prefix);
  void Write(const std::string& name, const std::string& text);
  // One that is not there is no error.
  void Remove(const std::string& name);
  // Among `volumes`, those that a crash left of documents: cut-off texts, and
  // old ones beside the new.
  [[nodiscard]] std::vector<std::string> Leftovers(
      const std::vector<std::string>& volumes);

 private:
  struct Found {
    std::string volume;
    int number = 0;
    std::string text;
  };
  // The newest whole one of those that begin with `prefix`; number 0: none.
  [[nodiscard]] Found Newest(const std::string& prefix,
                             const std::vector<std::string>& volumes);

  Storage& storage_;
};

// The text with that line before it, and back: nothing when it is not whole.
[[nodiscard]] std::string SealText(std::string_view text);
[[nodiscard]] std::optional<std::string> UnsealText(std::string_view sealed);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DOCUMENTS_H_
