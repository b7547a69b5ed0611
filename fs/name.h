#ifndef SBXFS_FS_NAME_H_
#define SBXFS_FS_NAME_H_

#include <string>
#include <string_view>
#include <utility>

namespace sbxfs {

// Ends the names of texts that make something of them.
inline constexpr std::string_view kYaml = ".yaml";

// The name of a sandbox or an image: one path component that is fit to be a
// host name and a volume's name too. The only way to get one is Parse.
class Name {
 public:
  static constexpr std::size_t kLongest = 58;

  // Throws Error(EINVAL) or Error(ENAMETOOLONG); `verb` begins the sentence:
  // "Cannot VERB 'TEXT': …".
  [[nodiscard]] static Name Parse(std::string_view verb, std::string_view text);
  // Whether Parse would take it.
  [[nodiscard]] static bool Valid(std::string_view text);

  [[nodiscard]] const std::string& Text() const { return text_; }

 private:
  explicit Name(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

// Whether it is such as programs give to files they are not done with, or keep
// a copy in: .x, #x, x~, x.bak, x.new, x.orig, x.swp, x.tmp and x.tmp.1234.
[[nodiscard]] bool LooksScratch(std::string_view text);

// Whether it can name an entry of a directory; libvirt takes others too.
[[nodiscard]] bool IsEntryName(std::string_view text);

// "box" out of "box.yaml" when that is a valid name, else empty.
[[nodiscard]] std::string StripYaml(std::string_view text);

}  // namespace sbxfs

#endif  // SBXFS_FS_NAME_H_
