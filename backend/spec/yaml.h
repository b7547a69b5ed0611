#ifndef SBXFS_BACKEND_SPEC_YAML_H_
#define SBXFS_BACKEND_SPEC_YAML_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "backend/util/error.h"

namespace sbxfs {

// Longer texts are refused unread.
inline constexpr std::size_t kMaxYamlSize = 256 * 1024;

struct YamlEntry;

// A YAML document as a tree that knows where each part stands in the text, and
// the only door to yaml-cpp. Immutable values, safe from any thread.
struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  std::string value;                 // of a scalar
  bool quoted = false;               // of a scalar: by quotes, or a block
  bool flow = false;                 // of a list or map: in brackets
  std::size_t offset = 0;            // byte where it begins
  std::size_t line = 1, column = 1;  // the same for people, in characters
  std::string document;              // the name of the text it is from
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;  // in the text's order

  // Null when the map has no such key.
  [[nodiscard]] const YamlNode* Find(std::string_view key) const;
};

// One key of a map, with what it has.
struct YamlEntry {
  YamlNode key;
  YamlNode value;
};

// Whether both say the same, in whatever order and style they say it. An empty
// map says no more than null, and a newline at a value's end says nothing (a
// block that ends an open last line gets one when a line is put behind it).
[[nodiscard]] bool SameContent(const YamlNode& a, const YamlNode& b);

// The one document in `text`; kNull for a text that says nothing. Throws
// Error(EINVAL), `Cannot accept 'NAME': line L, column C: …`, for what is no
// YAML and for what no settings need: control characters, tabs that indent,
// duplicate keys, anchors, aliases, tags, several documents, deep nesting.
[[nodiscard]] YamlNode ReadYaml(std::string_view name, std::string_view text);

// A text out of the document as a sentence may show it: on one line, without
// control characters (a quoted scalar can hold any), cut when long.
[[nodiscard]] std::string ForSentence(std::string_view text);

// That sentence, for `reason` at `node`.
[[nodiscard]] Error YamlError(const YamlNode& node, std::string_view reason);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_YAML_H_
