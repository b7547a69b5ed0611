#ifndef SBXFS_BACKEND_SPEC_VALUE_H_
#define SBXFS_BACKEND_SPEC_VALUE_H_

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/keys.h"
#include "backend/spec/template.h"
#include "backend/spec/yaml.h"

// How values get out of a YAML document, and the sentences that may stop them.

namespace sbxfs {

// A {{.Param.x}} that was met; whether there is an x is known at the end.
struct ParamUse {
  std::string name;
  std::string key;
  YamlNode node;  // its place
};

class Value {
 public:
  Value(std::string key, const YamlNode& node, std::vector<ParamUse>& params)
      : key_(std::move(key)), node_(node), params_(params) {}

  [[nodiscard]] Value Child(std::string_view name, const YamlNode& node) const {
    return {key_.empty() ? std::string(name) : fmt::format("{}.{}", key_, name),
            node, params_};
  }
  [[nodiscard]] Value Item(std::size_t index) const {
    return {fmt::format("{}[{}]", key_, index), node_.items[index], params_};
  }

  [[nodiscard]] const std::string& Key() const { return key_; }
  [[nodiscard]] const YamlNode& Node() const { return node_; }
  [[nodiscard]] bool IsList() const {
    return node_.kind == YamlNode::Kind::kList;
  }
  [[nodiscard]] bool IsMap() const {
    return node_.kind == YamlNode::Kind::kMap;
  }
  [[nodiscard]] bool IsScalar() const {
    return node_.kind == YamlNode::Kind::kScalar;
  }

  [[nodiscard]] Error Wrong(std::string_view allowed) const;
  // `KEY reason`, at its place.
  [[nodiscard]] Error Fault(std::string_view reason) const;

  // Any scalar is a text, as in YAML.
  [[nodiscard]] std::string Text(std::string_view allowed = "a text") const;
  // One line.
  [[nodiscard]] std::string Line(std::string_view allowed) const;
  // Several lines, without control characters or newlines at the end.
  [[nodiscard]] std::string Prose() const;
  // A text whose templates are known ones.
  [[nodiscard]] std::string Template(std::string_view allowed,
                                     TemplateSide side) const;
  [[nodiscard]] std::string OneOf(
      std::span<const std::string_view> words) const;
  [[nodiscard]] uint64_t Number(uint64_t least, uint64_t most,
                                std::string_view allowed) const;
  [[nodiscard]] uint64_t Size(uint64_t least, uint64_t most) const;
  [[nodiscard]] std::chrono::seconds Duration() const;
  [[nodiscard]] bool Bool() const;
  [[nodiscard]] std::vector<Value> Items(std::string_view allowed) const;

 private:
  [[nodiscard]] bool Plain() const { return IsScalar() && !node_.quoted; }
  [[nodiscard]] std::string Found() const;

  const std::string key_;
  const YamlNode& node_;
  std::vector<ParamUse>& params_;
};

// One key of a map that is read into a `T`.
template <typename T>
struct Key {
  std::string_view name;
  ValueType type;
  void (*read)(const Value&, T&);
};

// The sentence for a key of `map` (empty: the root) that is not in `known`.
[[nodiscard]] Error UnknownKey(std::string_view map, const YamlNode& key,
                               const std::vector<std::string_view>& known);

// Calls the readers of `keys` with what the map `value` holds. Null sets
// nothing.
template <typename T, std::size_t size>
void ReadMap(const Value& value, const Key<T> (&keys)[size], T& target) {
  std::vector<std::string_view> names;
  for (const auto& key : keys) names.push_back(key.name);
  if (!value.IsMap()) {
    throw value.Wrong(
        fmt::format("a map with the keys {}", fmt::join(names, ", ")));
  }
  for (const YamlEntry& entry : value.Node().entries) {
    const auto found = std::find(names.begin(), names.end(), entry.key.value);
    if (found == names.end()) throw UnknownKey(value.Key(), entry.key, names);
    if (entry.value.kind == YamlNode::Kind::kNull) continue;
    keys[found - names.begin()].read(value.Child(entry.key.value, entry.value),
                                     target);
  }
}

// Letters, digits and `others` alone.
[[nodiscard]] bool Consists(std::string_view text, std::string_view others);

[[nodiscard]] bool IsArch(std::string_view text);
// A path, or a template that will be one.
[[nodiscard]] bool IsAbsolute(std::string_view text);
// Whether a path has parts `.` or `..`.
[[nodiscard]] bool HasDots(std::string_view path);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_VALUE_H_
