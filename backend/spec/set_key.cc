#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/spec/editor.h"
#include "backend/spec/keys.h"
#include "backend/spec/layout.h"
#include "backend/spec/scalar.h"
#include "backend/spec/spec.h"
#include "backend/spec/yaml.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

constexpr std::size_t kIndentStep = 2;

using Kind = YamlNode::Kind;
using Entry = YamlEntry;

const Entry* FindEntry(const YamlNode& map, std::string_view key) {
  for (const Entry& entry : map.entries) {
    if (entry.key.value == key) return &entry;
  }
  return nullptr;
}

// `node` with `value` at `path` (taken away when empty): what a right edit
// reads back as.
void ChangeTree(YamlNode& node, const std::vector<std::string_view>& path,
                std::size_t depth, std::string_view value) {
  if (depth == path.size()) {
    node = YamlNode();
    node.kind = Kind::kScalar;
    node.value = value;
    return;
  }
  node.kind = Kind::kMap;
  auto& entries = node.entries;
  const auto found = std::find_if(
      entries.begin(), entries.end(),
      [&](const Entry& entry) { return entry.key.value == path[depth]; });
  if (value.empty()) {
    if (found == entries.end()) return;
    if (depth + 1 < path.size()) {
      ChangeTree(found->value, path, depth + 1, value);
      if (!found->value.entries.empty()) return;
    }
    entries.erase(found);
    return;
  }
  if (found != entries.end()) {
    ChangeTree(found->value, path, depth + 1, value);
    return;
  }
  YamlNode key;
  key.kind = Kind::kScalar;
  key.value = path[depth];
  YamlNode child;
  ChangeTree(child, path, depth + 1, value);
  entries.push_back({std::move(key), std::move(child)});
}

// Proposes edits of one text for one key, best first.
class KeyEditor : public Editor {
 public:
  KeyEditor(std::string_view text, std::string_view key, std::string_view value)
      : Editor(text), key_(key), value_(value), path_(Split(key, '.')) {}

  // Throws Error(EINVAL) when none of the proposals does it.
  std::string Run() {
    YamlNode wanted = root_;
    CheckPath();
    ChangeTree(wanted, path_, 0, value_);
    if (Says(wanted)) return std::string(text_);
    value_.empty() ? Remove() : Set();
    return Best(wanted, Verb());
  }

 private:
  [[nodiscard]] std::string Verb() const {
    return fmt::format("{} '{}'", value_.empty() ? "remove" : "set", key_);
  }

  // The way to the key must lead through maps.
  void CheckPath() const {
    const YamlNode* node = &root_;
    for (std::size_t depth = 0; node != nullptr; ++depth) {
      const bool last = depth == path_.size();
      const bool container =
          node->kind == Kind::kMap || (last && node->kind == Kind::kList);
      const bool good = node->kind == Kind::kNull || container != last;
      if (!good && !(last && value_.empty())) {
        throw Error(
            EINVAL,
            fmt::format("Cannot {}: line {}, column {}: '{}' is {} here; "
                        "change it in {} by hand",
                        Verb(), node->line, node->column,
                        depth == 0 ? kEdited : path_[depth - 1],
                        container ? "a list or a map" : "no map", kEdited));
      }
      if (last) return;
      node = node->Find(path_[depth]);
    }
  }

  void ProposeKey(std::size_t at, std::size_t depth, std::size_t indent) {
    ProposeLines(at, Lines(depth, indent));
  }

  // The key from `depth` on, as block lines.
  [[nodiscard]] std::string Lines(std::size_t depth, std::size_t indent) const {
    const std::string_view eol = layout_.EndOfLine();
    std::string lines;
    for (; depth + 1 < path_.size(); ++depth, indent += kIndentStep) {
      lines += fmt::format("{:{}}{}:{}", "", indent, path_[depth], eol);
    }
    return lines + fmt::format("{:{}}{}: {}{}", "", indent, path_.back(),
                               Scalar(false, '\0'), eol);
  }

  // The same as the inside of a flow map.
  [[nodiscard]] std::string Flow(std::size_t depth) const {
    if (depth + 1 == path_.size()) {
      return fmt::format("{}: {}", path_[depth], Scalar(true, '\0'));
    }
    return fmt::format("{}: {{{}}}", path_[depth], Flow(depth + 1));
  }

  // `quote`: the style of the value it replaces.
  [[nodiscard]] std::string Scalar(bool flow, char quote) const {
    return FormatScalar(value_, TypeOfKey(key_), flow, quote);
  }

  void Set() {
    const YamlNode* map = &root_;
    const Entry* entry = nullptr;  // the one that holds `map`
    bool flow = false;
    for (std::size_t depth = 0;; ++depth) {
      flow = flow || map->flow;
      if (map->kind == Kind::kNull) {
        entry == nullptr ? InsertInRoot() : InsertInNull(*entry, depth, flow);
        return;
      }
      const Entry* next = FindEntry(*map, path_[depth]);
      if (next == nullptr) {
        Insert(*map, entry, depth);
        return;
      }
      entry = next;
      map = &entry->value;
      if (depth + 1 == path_.size()) {
        Replace(*entry, flow);
        return;
      }
    }
  }

  void Replace(const Entry& entry, bool flow) {
    const auto& [key, value] = entry;
    if (value.kind == Kind::kNull) {
      ReplaceNull(key, Scalar(flow, '\0'));
      return;
    }
    const char first = text_[value.offset];
    const std::size_t end = layout_.ScalarEnd(value);
    std::string text = Scalar(flow, value.quoted ? first : '\0');
    if (value.quoted && (first == '|' || first == '>')) {
      // The comment behind a block's indicator.
      const std::string_view header =
          layout_.Between(value.offset, layout_.LineEnd(value.offset));
      if (const auto hash = header.find(" #"); hash != header.npos) {
        text += header.substr(hash);
      }
    }
    Propose(value.offset, end, std::move(text));
  }

  void ReplaceNull(const YamlNode& key, const std::string& text) {
    const std::string_view token = layout_.NullToken(key);
    const std::size_t begin = layout_.OffsetOf(token);
    if (!token.empty()) {
      Propose(begin, begin + token.size(), text);
      return;
    }
    Propose(begin, begin, " " + text);
    Propose(begin, begin, ": " + text);  // `{key}`
  }

  // Below `parent`, which is there and empty.
  void InsertInNull(const Entry& parent, std::size_t depth, bool flow) {
    const YamlNode& key = parent.key;
    if (!flow && layout_.NullToken(key).empty()) {
      InsertInBlock(parent, depth, layout_.Indent(key.offset) + kIndentStep);
    }
    ReplaceNull(key, fmt::format("{{{}}}", Flow(depth)));
  }

  // Among the lines of `parent`, whose entries are indented by `indent`.
  void InsertInBlock(const Entry& parent, std::size_t depth,
                     std::size_t indent) {
    const std::size_t begin = layout_.NextLine(parent.key.offset);
    const std::size_t end = layout_.BlockEnd(parent.key);
    if (const auto at =
            layout_.AfterCommented(path_[depth], begin, end, std::nullopt)) {
      ProposeKey(*at, depth, indent);
    }
    if (parent.value.kind != Kind::kNull) {
      ProposeKey(layout_.NextLine(end), depth, indent);
    }
    ProposeKey(begin, depth, indent);
  }

  // Into a map that has entries, or brackets. `parent` null: the root.
  void Insert(const YamlNode& map, const Entry* parent, std::size_t depth) {
    if (map.flow) {
      InsertInFlow(map, depth);
    } else if (parent == nullptr) {
      InsertInRoot();
    } else {
      InsertInBlock(*parent, depth, layout_.Indent(map.offset));
    }
  }

  void InsertInFlow(const YamlNode& map, std::size_t depth) {
    if (map.entries.empty()) {
      Propose(map.offset, layout_.FlowEnd(map),
              fmt::format("{{{}}}", Flow(depth)));
      return;
    }
    const auto& [key, value] = map.entries.back();
    const std::size_t end = layout_.ValueEnd(key, value);
    Propose(end, end, ", " + Flow(depth));
  }

  void InsertInRoot() {
    const std::size_t indent =
        root_.kind == Kind::kNull ? 0 : layout_.Indent(root_.offset);
    if (const auto at =
            layout_.AfterCommented(path_[0], 0, text_.size(), indent)) {
      ProposeKey(*at, 0, indent);
    }
    ProposeKey(text_.size(), 0, indent);
    // Before the mark that ends a document.
    const auto mark = text_.rfind("\n...");
    if (mark != text_.npos) ProposeKey(mark + 1, 0, indent);
  }

  void Remove() {
    std::vector<const YamlNode*> maps;
    std::vector<const Entry*> entries;
    const YamlNode* map = &root_;
    for (const std::string_view name : path_) {
      maps.push_back(map);
      entries.push_back(FindEntry(*map, name));
      map = &entries.back()->value;
    }
    // A parent that is left with nothing, not even a comment, goes too.
    std::size_t depth = path_.size() - 1;
    while (depth > 0 && maps[depth]->entries.size() == 1 &&
           layout_.Between(entries[depth - 1]->key.offset,
                           layout_.BlockEnd(entries[depth - 1]->key))
                   .find('#') == std::string_view::npos) {
      --depth;
    }
    for (; depth < path_.size(); ++depth) {
      RemoveEntry(*maps[depth], *entries[depth]);
    }
  }

  void RemoveEntry(const YamlNode& map, const Entry& entry) {
    const auto& [key, value] = entry;
    const std::size_t end = layout_.ValueEnd(key, value);
    if (!map.flow) {
      Propose(layout_.LineStart(key.offset), layout_.NextLine(end), "");
      return;
    }
    ProposeFlowRemoval(key.offset, end);
  }

  const std::string_view key_;
  const std::string_view value_;
  const std::vector<std::string_view> path_;
};

}  // namespace

std::string SetKey(std::string_view text, std::string_view key,
                   std::string_view value) {
  if (FindNotPlain(value) != std::string_view::npos) {
    throw Error(EINVAL, fmt::format("Cannot set '{}': the value has control "
                                    "characters or is not UTF-8; remove them",
                                    key));
  }
  return KeyEditor(text, key, value).Run();
}

}  // namespace sbxfs
