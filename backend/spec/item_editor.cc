#include "backend/spec/item_editor.h"

#include <fmt/format.h>

#include "backend/spec/spec.h"

namespace sbxfs {
namespace {

using Kind = YamlNode::Kind;

std::string FlowMap(const std::vector<Field>& fields) {
  std::string text;
  for (const Field& field : fields) {
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", field.key,
                        field.text);
  }
  return fmt::format("{{{}}}", text);
}

// Sets one field of a tree's map.
void SetField(YamlNode& map, const Field& field) {
  YamlNode read = ReadYaml(kEdited, FlowMap({field}));
  for (YamlEntry& entry : map.entries) {
    if (entry.key.value != field.key) continue;
    entry.value = std::move(read.entries[0].value);
    return;
  }
  map.entries.push_back(std::move(read.entries[0]));
}

}  // namespace

ItemEditor::ItemEditor(std::string_view text, std::string_view list,
                       std::string_view verb)
    : Editor(text), list_(list), verb_(verb) {
  for (const YamlEntry& entry : root_.entries) {
    if (entry.key.value == list) entry_ = &entry;
  }
}

std::string ItemEditor::Add(const std::vector<Field>& fields, bool first) {
  YamlNode wanted = root_;
  wanted.kind = Kind::kMap;
  YamlNode& list = ListIn(wanted);
  list.kind = Kind::kList;
  list.items.insert(first ? list.items.begin() : list.items.end(),
                    ReadYaml(kEdited, FlowMap(fields)));
  ProposeAdding(fields, first);
  return Best(wanted, verb_);
}

std::string ItemEditor::Remove(std::size_t index) {
  const YamlNode& list = entry_->value;
  if (list.items.size() == 1) return SetKey(text_, list_, "");
  YamlNode wanted = root_;
  auto& items = ListIn(wanted).items;
  items.erase(items.begin() + static_cast<std::ptrdiff_t>(index));
  const YamlNode& item = list.items[index];
  if (list.flow) {
    ProposeFlowRemoval(item.offset, layout_.FlowEnd(item));
  } else if (const auto dash = DashOf(item)) {
    Propose(layout_.LineStart(*dash), layout_.NextLine(layout_.ItemEnd(*dash)),
            "");
  }
  return Best(wanted, verb_);
}

std::string ItemEditor::Change(std::size_t index, const Field& field) {
  YamlNode wanted = root_;
  SetField(ListIn(wanted).items[index], field);
  if (Says(wanted)) return std::string(text_);
  ProposeChange(entry_->value.items[index], field);
  return Best(wanted, verb_);
}

YamlNode& ItemEditor::ListIn(YamlNode& root) const {
  for (YamlEntry& entry : root.entries) {
    if (entry.key.value == list_) return entry.value;
  }
  YamlNode key;
  key.kind = Kind::kScalar;
  key.value = list_;
  root.entries.push_back({std::move(key), {}});
  return root.entries.back().value;
}

std::optional<std::size_t> ItemEditor::DashOf(const YamlNode& item) const {
  if (item.offset == 0) return std::nullopt;
  const auto dash = text_.find_last_not_of(" \r\n", item.offset - 1);
  if (dash == text_.npos || text_[dash] != '-') return std::nullopt;
  return dash;
}

std::string ItemEditor::Block(const std::vector<Field>& fields,
                              std::size_t indent) const {
  std::string lines;
  for (const Field& field : fields) {
    lines +=
        fmt::format("{:{}}{} {}: {}{}", "", indent, lines.empty() ? '-' : ' ',
                    field.key, field.text, layout_.EndOfLine());
  }
  return lines;
}

void ItemEditor::ProposeAdding(const std::vector<Field>& fields, bool first) {
  if (entry_ == nullptr) {
    ProposeList(fields);
    return;
  }
  const auto& [key, value] = *entry_;
  if (value.kind == Kind::kList && !value.items.empty()) {
    value.flow ? AddToFlow(value, fields, first)
               : AddToBlock(value, fields, first);
    return;
  }
  if (root_.flow) {
    Propose(layout_.ColonEnd(key), layout_.ValueEnd(key, value),
            fmt::format(" [{}]", FlowMap(fields)));
    return;
  }
  // Nothing is there yet, or `null`, or `[]`.
  const std::size_t indent = layout_.Indent(key.offset);
  std::string lines = Block(fields, indent);
  lines.erase(lines.find_last_not_of("\r\n") + 1);
  Propose(layout_.ColonEnd(key), layout_.ValueEnd(key, value),
          fmt::format("{}{}", layout_.EndOfLine(), lines));
  Propose(layout_.NextLine(key.offset), layout_.NextLine(key.offset),
          lines + std::string(layout_.EndOfLine()));
}

void ItemEditor::ProposeList(const std::vector<Field>& fields) {
  if (root_.flow) {
    const std::string inside = fmt::format("{}: [{}]", list_, FlowMap(fields));
    if (root_.entries.empty()) {
      Propose(root_.offset, layout_.FlowEnd(root_),
              fmt::format("{{{}}}", inside));
      return;
    }
    const auto& [key, value] = root_.entries.back();
    const std::size_t end = layout_.ValueEnd(key, value);
    Propose(end, end, ", " + inside);
    return;
  }
  const std::size_t indent =
      root_.kind == Kind::kNull ? 0 : layout_.Indent(root_.offset);
  const std::string lines =
      fmt::format("{:{}}{}:{}{}", "", indent, list_, layout_.EndOfLine(),
                  Block(fields, indent));
  if (const auto at = layout_.AfterCommented(list_, 0, text_.size(), indent)) {
    ProposeLines(*at, lines);
  }
  ProposeLines(text_.size(), lines);
  const auto mark = text_.rfind("\n...");
  if (mark != text_.npos) ProposeLines(mark + 1, lines);
}

void ItemEditor::AddToFlow(const YamlNode& list,
                           const std::vector<Field>& fields, bool first) {
  const std::string map = FlowMap(fields);
  if (first) {
    const std::size_t at = list.items.front().offset;
    Propose(at, at, map + ", ");
    return;
  }
  const std::size_t at = layout_.FlowEnd(list.items.back());
  Propose(at, at, ", " + map);
}

void ItemEditor::AddToBlock(const YamlNode& list,
                            const std::vector<Field>& fields, bool first) {
  const auto dash = DashOf(first ? list.items.front() : list.items.back());
  if (!dash) return;
  const std::size_t indent = *dash - layout_.LineStart(*dash);
  const std::string lines = Block(fields, indent);
  if (first) {
    // Before the comments of the one that was the first.
    ProposeLines(layout_.NextLine(entry_->key.offset), lines);
  } else {
    ProposeLines(layout_.NextLine(layout_.ItemEnd(*dash)), lines);
  }
}

void ItemEditor::ProposeChange(const YamlNode& item, const Field& field) {
  for (const auto& [key, value] : item.entries) {
    if (key.value != field.key) continue;
    if (value.kind == Kind::kScalar) {
      Propose(value.offset, layout_.ScalarEnd(value), field.text);
    }
    Propose(layout_.ColonEnd(key), layout_.ValueEnd(key, value),
            " " + field.text);
    return;
  }
  if (item.entries.empty()) return;
  const auto& [key, value] = item.entries.front();
  const std::size_t end = layout_.ValueEnd(key, value);
  if (item.flow) {
    Propose(end, end, fmt::format(", {}: {}", field.key, field.text));
    return;
  }
  const std::size_t column = item.offset - layout_.LineStart(item.offset);
  ProposeLines(layout_.NextLine(end),
               fmt::format("{:{}}{}: {}{}", "", column, field.key, field.text,
                           layout_.EndOfLine()));
}

}  // namespace sbxfs
