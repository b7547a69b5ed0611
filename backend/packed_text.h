#ifndef SBXFS_BACKEND_PACKED_TEXT_H_
#define SBXFS_BACKEND_PACKED_TEXT_H_

#include <string>
#include <string_view>

namespace sbxfs {

// What a packed text is much like: the first one of each kind is the dictionary
// of all others in this process, so that of thousands of domains that differ in
// names and keys each takes a few hundred bytes.
enum class PackedKind { kDomainXml, kMetadata };

// A long text that is kept in memory, many times and seldom looked at.
// Unpacking takes some ten microseconds. Thread-safe, as a const string is.
template <PackedKind kind>
class PackedText {
 public:
  PackedText() = default;
  explicit PackedText(std::string_view text);

  [[nodiscard]] std::string Text() const;
  [[nodiscard]] bool empty() const { return packed_.empty(); }
  // Texts of one kind are packed alike in all the life of a process.
  bool operator==(const PackedText&) const = default;

 private:
  std::string packed_;  // empty for an empty text
};

extern template class PackedText<PackedKind::kDomainXml>;
extern template class PackedText<PackedKind::kMetadata>;

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_PACKED_TEXT_H_
