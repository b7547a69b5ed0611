#ifndef SBXFS_BACKEND_SPEC_LAYOUT_H_
#define SBXFS_BACKEND_SPEC_LAYOUT_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "backend/spec/yaml.h"

namespace sbxfs {

// Where things lie in the text of a YAML document: yaml-cpp tells where they
// begin, this finds where they end, in block and in flow style. It may guess
// wrong in a text laid out strangely; who edits checks the result.
class Layout {
 public:
  // `text` must outlive it.
  explicit Layout(std::string_view text) : text_(text) {}

  [[nodiscard]] std::string_view EndOfLine() const;  // "\n" or "\r\n"
  [[nodiscard]] std::size_t LineStart(std::size_t at) const;
  // The offset of its "\n" or "\r\n", or the end of the text.
  [[nodiscard]] std::size_t LineEnd(std::size_t at) const;
  [[nodiscard]] std::size_t NextLine(std::size_t at) const;
  // The spaces that the line of `at` begins with.
  [[nodiscard]] std::size_t Indent(std::size_t at) const;

  [[nodiscard]] std::size_t ScalarEnd(const YamlNode& node) const;
  // Of a list or map in brackets: past its closing one; npos when none is.
  [[nodiscard]] std::size_t FlowEnd(const YamlNode& node) const;
  // False for a quoted scalar or a bracket that the text's end cuts off.
  [[nodiscard]] bool IsClosed(const YamlNode& node) const;
  // Whether a colon follows a key, on a later line too.
  [[nodiscard]] bool HasColon(const YamlNode& key) const;
  // Past the colon after a key, or past the key when none is there.
  [[nodiscard]] std::size_t ColonEnd(const YamlNode& key) const;
  // The `~` or `null` of an entry; empty, behind the colon, when it has none.
  [[nodiscard]] std::string_view NullToken(const YamlNode& key) const;
  [[nodiscard]] std::size_t ValueEnd(const YamlNode& key,
                                     const YamlNode& value) const;
  // The end of the last line that belongs to the block entry of `key`, comments
  // indented like its content included.
  [[nodiscard]] std::size_t BlockEnd(const YamlNode& key) const;

  // The end of the last line of the list's item whose '-' is at `dash`.
  [[nodiscard]] std::size_t ItemEnd(std::size_t dash) const;

  // Behind a commented-out `key` between two line starts, and behind what is
  // indented below it there: the start of the next line. The last of several.
  // `indent`: of the '#', and then the key follows it at once or after one
  // space; any when unset.
  [[nodiscard]] std::optional<std::size_t> AfterCommented(
      std::string_view key, std::size_t begin, std::size_t end,
      std::optional<std::size_t> indent) const;

  // The text between two offsets.
  [[nodiscard]] std::string_view Between(std::size_t begin,
                                         std::size_t end) const {
    return text_.substr(begin, end - begin);
  }
  [[nodiscard]] std::size_t OffsetOf(std::string_view part) const {
    return static_cast<std::size_t>(part.data() - text_.data());
  }

 private:
  // npos when the quote never closes.
  [[nodiscard]] std::size_t QuotedEnd(std::size_t at) const;
  [[nodiscard]] std::size_t PlainEnd(const YamlNode& node) const;
  [[nodiscard]] std::size_t BlockScalarEnd(std::size_t at) const;

  const std::string_view text_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_LAYOUT_H_
