#include "backend/spec/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <sstream>

#include "backend/spec/layout.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

// No settings nest deeper than five; yaml-cpp recurses.
constexpr std::size_t kMaxDepth = 20;
constexpr char kNoAnchors[] =
    "anchors and aliases (&, *) are not supported; write the value out";
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// Tells lines and columns of bytes, quickly when they are asked in order.
class Places {
 public:
  Places(std::string_view name, std::string_view text) : text_(text) {
    start_.document = name;
    node_ = start_;
  }

  [[nodiscard]] YamlNode At(std::size_t offset) {
    offset = std::min(offset, text_.size());
    if (offset < node_.offset) node_ = start_;
    for (; node_.offset < offset; ++node_.offset) {
      const char c = text_[node_.offset];
      if (c == '\n') {
        ++node_.line;
        node_.column = 1;
      } else if ((c & 0xc0) != 0x80) {
        ++node_.column;
      }
    }
    return node_;
  }

 private:
  const std::string_view text_;
  YamlNode start_;
  YamlNode node_;
};

// Turns yaml-cpp's events into a tree.
class Builder : public YAML::EventHandler {
 public:
  // `skipped`: bytes of the text that yaml-cpp does not count.
  Builder(std::string_view name, std::string_view text, std::size_t skipped)
      : name_(name), text_(text), skipped_(skipped) {}

  YamlNode Take() { return std::move(root_); }

  YamlNode NodeAt(const YAML::Mark& mark) {
    // yaml-cpp has no place for some errors.
    return places_.At(static_cast<std::size_t>(std::max(mark.pos, 0)) +
                      skipped_);
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (seen_) {
      throw YamlError(NodeAt(mark),
                      "another document begins here; leave one, and check the "
                      "indentation");
    }
    seen_ = true;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Add(Begin(mark, "?", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    (void)Begin(mark, "?", 1);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor, const std::string& value) override {
    YamlNode node = Begin(mark, tag, anchor);
    node.kind = YamlNode::Kind::kScalar;
    node.value = value;
    node.quoted = tag == "!";
    if (!layout_.IsClosed(node)) {
      throw YamlError(node, "a quote that is opened here never closes");
    }
    Add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value style) override {
    Open(YamlNode::Kind::kList, Begin(mark, tag, anchor), style);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag,
                  YAML::anchor_t anchor,
                  YAML::EmitterStyle::value style) override {
    Open(YamlNode::Kind::kMap, Begin(mark, tag, anchor), style);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    YamlNode node;
    std::optional<YamlNode> key;  // waits for its value
    std::map<std::string, std::size_t, std::less<>> lines;  // of the keys
  };

  YamlNode Begin(const YAML::Mark& mark, const std::string& tag,
                 YAML::anchor_t anchor) {
    YamlNode node = NodeAt(mark);
    if (anchor != 0) {
      throw YamlError(node, kNoAnchors);
    }
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw YamlError(node, "tags (!) are not supported; remove it");
    }
    return node;
  }

  void Open(YamlNode::Kind kind, YamlNode node,
            YAML::EmitterStyle::value style) {
    if (levels_.size() >= kMaxDepth) {
      throw YamlError(node,
                      fmt::format("more than {} levels of nesting", kMaxDepth));
    }
    node.kind = kind;
    node.flow = style == YAML::EmitterStyle::Flow;
    if (!layout_.IsClosed(node)) {
      throw YamlError(node, "a bracket that is opened here never closes");
    }
    levels_.push_back({std::move(node), std::nullopt, {}});
  }

  void Close() {
    YamlNode node = std::move(levels_.back().node);
    levels_.pop_back();
    Add(std::move(node));
  }

  void Add(YamlNode node) {
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == YamlNode::Kind::kList) {
      level.node.items.push_back(std::move(node));
    } else if (level.key) {
      CheckColon(*level.key, node);
      level.node.entries.push_back({*std::move(level.key), std::move(node)});
      level.key.reset();
    } else {
      CheckKey(level, node);
      level.key = std::move(node);
    }
  }

  void CheckKey(Level& level, const YamlNode& key) const {
    if (key.kind != YamlNode::Kind::kScalar) {
      throw YamlError(
          key, "a key must be a word; check the brackets, colons and quotes");
    }
    const auto [known, fresh] = level.lines.emplace(key.value, key.line);
    if (fresh) return;
    throw YamlError(key,
                    fmt::format("duplicate key '{}', first on line {}; remove "
                                "one of them",
                                ForSentence(key.value), known->second));
  }

  // yaml-cpp takes a word alone for a key without a value.
  void CheckColon(const YamlNode& key, const YamlNode& value) const {
    if (value.kind != YamlNode::Kind::kNull || layout_.HasColon(key)) return;
    throw YamlError(key,
                    fmt::format("no ':' behind '{}'; write a key, a colon, a "
                                "space and a value",
                                ForSentence(key.value)));
  }

  const std::string_view name_;
  const std::string_view text_;
  const Layout layout_{text_};
  Places places_{name_, text_};
  const std::size_t skipped_;
  bool seen_ = false;
  YamlNode root_;
  std::vector<Level> levels_;
};

// The first tab that indents a line which says something, or npos.
std::size_t FindIndentingTab(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    const std::size_t first = line.find_first_not_of(" \t\r");
    const std::size_t tab = line.find('\t');
    if (first != std::string_view::npos && line[first] != '#' && tab < first) {
      return at + tab;
    }
    at = end + 1;
  }
  return std::string_view::npos;
}

// A directive that YAML does not have, or npos: they come before all else that
// says something. yaml-cpp passes over them.
std::size_t FindUnknownDirective(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    const std::size_t first = line.find_first_not_of(" \t\r");
    const bool known = line.starts_with("%YAML ") || line.starts_with("%TAG ");
    if (line.starts_with('%') && !known) return at;
    if (!known && first != std::string_view::npos && line[first] != '#') break;
    at += line.size() + 1;
  }
  return std::string_view::npos;
}

void CheckCharacters(std::string_view name, std::string_view text) {
  if (text.size() > kMaxYamlSize) {
    throw Error(EINVAL, fmt::format("Cannot accept '{}': it has {} bytes; {} "
                                    "are allowed",
                                    name, text.size(), kMaxYamlSize));
  }
  if (const auto bad = FindNotPlain(text); bad != std::string_view::npos) {
    const YamlNode place = Places(name, text).At(bad);
    const auto byte = static_cast<unsigned char>(text[bad]);
    throw YamlError(
        place, byte < 0x80
                   ? fmt::format("control character 0x{:02x}; remove it", byte)
                   : fmt::format("byte 0x{:02x} is not UTF-8 text, or a "
                                 "control character; save it as UTF-8",
                                 byte));
  }
}

// yaml-cpp's own words, made to say what to look for.
std::string Explain(const std::string& message) {
  // Since yaml-cpp 0.8 the anchor's name follows.
  if (message.starts_with(YAML::ErrorMsg::UNKNOWN_ANCHOR)) return kNoAnchors;
  return fmt::format(
      "this is no YAML ({}); check the indentation, colons and quotes",
      message);
}

}  // namespace

const YamlNode* YamlNode::Find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name.value == key) return &value;
  }
  return nullptr;
}

bool SameContent(const YamlNode& a, const YamlNode& b) {
  const auto nothing = [](const YamlNode& node) {
    return node.kind == YamlNode::Kind::kNull ||
           (node.kind == YamlNode::Kind::kMap && node.entries.empty());
  };
  if (nothing(a) || nothing(b)) return nothing(a) && nothing(b);
  const auto value = [](const YamlNode& node) {
    const auto last = node.value.find_last_not_of('\n');
    return std::string_view(node.value).substr(0, last + 1);
  };
  return a.kind == b.kind && value(a) == value(b) &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(),
                    b.items.end(), SameContent) &&
         a.entries.size() == b.entries.size() &&
         std::all_of(
             a.entries.begin(), a.entries.end(), [&](const auto& entry) {
               const YamlNode* other = b.Find(entry.key.value);
               return other != nullptr && SameContent(entry.value, *other);
             });
}

YamlNode ReadYaml(std::string_view name, std::string_view text) {
  CheckCharacters(name, text);
  const std::size_t skipped =
      text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  std::istringstream stream{std::string(text.substr(skipped))};
  if (const auto at = FindUnknownDirective(text.substr(skipped));
      at != std::string_view::npos) {
    throw YamlError(Places(name, text).At(at + skipped),
                    "a line that begins with % is a directive, and YAML has no "
                    "such one; remove it");
  }
  Builder builder(name, text, skipped);
  const std::size_t tab = FindIndentingTab(text);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
    return builder.Take();
  } catch (const YAML::Exception& error) {
    const YamlNode place = builder.NodeAt(error.mark);
    if (tab > place.offset) {
      throw YamlError(place, Explain(error.msg));
    }
    throw YamlError(Places(name, text).At(tab),
                    "a tab indents this line; YAML takes spaces alone");
  }
}

std::string ForSentence(std::string_view text) {
  constexpr std::size_t kLongest = 40;
  bool cut = false;
  if (text.size() > kLongest) {
    std::size_t end = kLongest;
    while (end > 0 && (text[end] & 0xc0) == 0x80) --end;  // whole characters
    text = text.substr(0, end);
    cut = true;
  }
  std::string shown;
  while (!text.empty()) {
    const std::size_t plain = std::min(FindNotPlain(text), text.size());
    shown += text.substr(0, plain);
    if (plain < text.size()) shown += '?';
    text.remove_prefix(std::min(plain + 1, text.size()));
  }
  for (char& c : shown) {
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  }
  return cut ? shown + "…" : shown;
}

Error YamlError(const YamlNode& node, std::string_view reason) {
  return Error(EINVAL,
               fmt::format("Cannot accept '{}': line {}, column {}: {}",
                           node.document, node.line, node.column, reason));
}

}  // namespace sbxfs
