#include "backend/spec/layout.h"

#include <algorithm>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

bool IsBlank(char c) { return kBlanks.find(c) != std::string_view::npos; }

// A line of comment, taken apart.
struct Comment {
  std::size_t indent = 0;  // of its '#'
  std::size_t depth = 0;   // spaces between '#' and text
  std::string_view text;
};

std::optional<Comment> ParseComment(std::string_view line) {
  const auto hash = line.find_first_not_of(' ');
  if (hash == line.npos || line[hash] != '#') return std::nullopt;
  const std::string_view rest = line.substr(hash + 1);
  const auto depth = std::min(rest.find_first_not_of(' '), rest.size());
  return Comment{hash, depth, Trim(rest.substr(depth))};
}

}  // namespace

std::string_view Layout::EndOfLine() const {
  const auto newline = text_.find('\n');
  return newline != text_.npos && newline > 0 && text_[newline - 1] == '\r'
             ? "\r\n"
             : "\n";
}

std::size_t Layout::LineStart(std::size_t at) const {
  return text_.substr(0, at).rfind('\n') + 1;
}

std::size_t Layout::LineEnd(std::size_t at) const {
  const auto newline = text_.find('\n', at);
  if (newline == text_.npos) return text_.size();
  return newline > at && text_[newline - 1] == '\r' ? newline - 1 : newline;
}

std::size_t Layout::NextLine(std::size_t at) const {
  const auto newline = text_.find('\n', at);
  return newline == text_.npos ? text_.size() : newline + 1;
}

std::size_t Layout::Indent(std::size_t at) const {
  const std::size_t start = LineStart(at);
  return std::min(text_.find_first_not_of(' ', start), text_.size()) - start;
}

std::size_t Layout::QuotedEnd(std::size_t at) const {
  const char quote = text_[at];
  for (++at; at < text_.size(); ++at) {
    if (quote == '"' && text_[at] == '\\') {
      ++at;
    } else if (text_[at] == quote) {
      const bool doubled =
          quote == '\'' && at + 1 < text_.size() && text_[at + 1] == quote;
      if (!doubled) return at + 1;
      ++at;
    }
  }
  return text_.npos;
}

// A plain scalar says itself, but for line breaks, which it folds.
std::size_t Layout::PlainEnd(const YamlNode& node) const {
  std::size_t at = node.offset;
  const std::string_view value = node.value;
  for (std::size_t i = 0; i < value.size() && at < text_.size();) {
    if (value[i] == text_[at]) {
      ++i;
      ++at;
      continue;
    }
    if (!IsBlank(value[i]) && !IsBlank(text_[at])) break;
    while (i < value.size() && IsBlank(value[i])) ++i;
    while (at < text_.size() && IsBlank(text_[at])) ++at;
  }
  return at;
}

std::size_t Layout::BlockScalarEnd(std::size_t at) const {
  const std::size_t indent = Indent(at);
  std::size_t end = LineEnd(at);
  for (std::size_t line = NextLine(at); line < text_.size();
       line = NextLine(line)) {
    if (Trim(Between(line, LineEnd(line))).empty()) continue;
    if (Indent(line) <= indent) break;
    end = LineEnd(line);
  }
  return end;
}

std::size_t Layout::ScalarEnd(const YamlNode& node) const {
  if (!node.quoted) return PlainEnd(node);
  const char first = node.offset < text_.size() ? text_[node.offset] : '\0';
  return first == '|' || first == '>'
             ? BlockScalarEnd(node.offset)
             : std::min(QuotedEnd(node.offset), text_.size());
}

std::size_t Layout::FlowEnd(const YamlNode& node) const {
  std::size_t depth = 0;
  bool fresh = true;  // here a scalar may begin; only there a quote is one
  for (std::size_t at = node.offset; at < text_.size(); ++at) {
    const char c = text_[at];
    if (IsBlank(c)) continue;
    if (c == '#' && (fresh || IsBlank(text_[at - 1]))) {
      at = NextLine(at) - 1;
      continue;
    }
    if (fresh && (c == '"' || c == '\'')) {
      at = QuotedEnd(at);
      if (at == text_.npos) return at;
      --at;
    }
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && --depth == 0) return at + 1;
    fresh = std::string_view("[{,:?").find(c) != std::string_view::npos;
  }
  return text_.npos;
}

bool Layout::IsClosed(const YamlNode& node) const {
  if (node.offset >= text_.size()) return true;
  if (node.flow && std::string_view("[{").find(text_[node.offset]) !=
                       std::string_view::npos) {
    return FlowEnd(node) != text_.npos;
  }
  const bool quote =
      node.quoted && (text_[node.offset] == '"' || text_[node.offset] == '\'');
  return !quote || QuotedEnd(node.offset) != text_.npos;
}

bool Layout::HasColon(const YamlNode& key) const {
  std::size_t at = ScalarEnd(key);
  while (at < text_.size() && (IsBlank(text_[at]) || text_[at] == '#')) {
    at = text_[at] == '#' ? LineEnd(at) : at + 1;
  }
  return at < text_.size() && text_[at] == ':';
}

std::size_t Layout::ColonEnd(const YamlNode& key) const {
  const std::size_t end = ScalarEnd(key);
  const auto colon = text_.find_first_not_of(' ', end);
  return colon != text_.npos && text_[colon] == ':' ? colon + 1 : end;
}

std::string_view Layout::NullToken(const YamlNode& key) const {
  const std::size_t colon = ColonEnd(key);
  const auto begin =
      std::min(text_.find_first_not_of(' ', colon), text_.size());
  for (const std::string_view word : {"~", "null", "Null", "NULL"}) {
    if (text_.substr(begin).starts_with(word)) {
      return text_.substr(begin, word.size());
    }
  }
  return text_.substr(colon, 0);
}

std::size_t Layout::ValueEnd(const YamlNode& key, const YamlNode& value) const {
  switch (value.kind) {
    case YamlNode::Kind::kNull: {
      const std::string_view token = NullToken(key);
      return OffsetOf(token) + token.size();
    }
    case YamlNode::Kind::kScalar:
      return ScalarEnd(value);
    case YamlNode::Kind::kList:
    case YamlNode::Kind::kMap:
      break;
  }
  return value.flow ? std::min(FlowEnd(value), text_.size()) : BlockEnd(key);
}

std::size_t Layout::BlockEnd(const YamlNode& key) const {
  const std::size_t indent = Indent(key.offset);
  std::size_t end = LineEnd(key.offset);
  for (std::size_t line = NextLine(key.offset); line < text_.size();
       line = NextLine(line)) {
    const std::string_view content = Trim(Between(line, LineEnd(line)));
    if (content.empty()) continue;
    const bool comment = content.starts_with('#');
    const bool item = content.starts_with("- ") && Indent(line) == indent;
    if (Indent(line) > indent || item) {
      end = LineEnd(line);
    } else if (!comment) {
      break;
    }
  }
  return end;
}

std::size_t Layout::ItemEnd(std::size_t dash) const {
  const std::size_t column = dash - LineStart(dash);
  std::size_t end = LineEnd(dash);
  for (std::size_t line = NextLine(dash); line < text_.size();
       line = NextLine(line)) {
    if (Trim(Between(line, LineEnd(line))).empty()) continue;
    if (Indent(line) <= column) break;
    end = LineEnd(line);
  }
  return end;
}

std::optional<std::size_t> Layout::AfterCommented(
    std::string_view key, std::size_t begin, std::size_t end,
    std::optional<std::size_t> indent) const {
  std::optional<std::size_t> found;
  std::optional<Comment> block;  // the commented-out key we are below
  for (std::size_t line = begin; line < end; line = NextLine(line)) {
    const auto comment = ParseComment(Between(line, LineEnd(line)));
    if (!comment) {
      block.reset();
      continue;
    }
    const bool names = comment->text.starts_with(key) &&
                       (comment->text.substr(key.size()) == ":" ||
                        comment->text.substr(key.size()).starts_with(": "));
    const bool fits =
        !indent || (comment->indent == *indent && comment->depth <= 1);
    if (names && fits) {
      block = comment;
    } else if (block &&
               (comment->indent != block->indent || comment->text.empty() ||
                (comment->depth <= block->depth &&
                 !comment->text.starts_with("- ")))) {
      block.reset();
    }
    if (block) found = NextLine(line);
  }
  return found;
}

}  // namespace sbxfs
