#include "backend/spec/value.h"

#include <arpa/inet.h>

#include <array>
#include <optional>

#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {

Error Value::Wrong(std::string_view allowed) const {
  return Fault(fmt::format("is {}; it must be {}", Found(), allowed));
}

Error Value::Fault(std::string_view reason) const {
  return YamlError(node_, fmt::format("{} {}", key_, reason));
}

std::string Value::Text(std::string_view allowed) const {
  if (!IsScalar()) throw Wrong(allowed);
  return node_.value;
}

std::string Value::Line(std::string_view allowed) const {
  std::string text = Text(allowed);
  if (text.empty() || !IsPlainLine(text)) throw Wrong(allowed);
  return text;
}

std::string Value::Prose() const {
  std::string text = Text();
  if (FindNotPlain(text) != std::string::npos ||
      text.find('\r') != std::string::npos) {
    throw Wrong("a text without control characters");
  }
  // A block of YAML ends with a newline that is no part of what is meant.
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string Value::Template(std::string_view allowed, TemplateSide side) const {
  std::string text = Text(allowed);
  if (FindNotPlain(text) != std::string::npos) throw Wrong(allowed);
  std::vector<std::string> params;
  if (const std::string fault = CheckTemplate(text, side, params);
      !fault.empty()) {
    throw Fault("has the template " + fault);
  }
  for (std::string& name : params) {
    params_.push_back({std::move(name), key_, node_});
  }
  return text;
}

std::string Value::OneOf(std::span<const std::string_view> words) const {
  const std::string allowed =
      fmt::format("one of {}", fmt::join(words.begin(), words.end(), ", "));
  std::string word = Text(allowed);
  if (std::find(words.begin(), words.end(), word) == words.end()) {
    throw Wrong(allowed);
  }
  return word;
}

uint64_t Value::Number(uint64_t least, uint64_t most,
                       std::string_view allowed) const {
  // 010 is eight to some readers and ten to others.
  const bool octal = node_.value.size() > 1 && node_.value[0] == '0';
  const auto number =
      Plain() && !octal ? ParseNumber(node_.value) : std::nullopt;
  if (!number || *number < least || *number > most) throw Wrong(allowed);
  return *number;
}

uint64_t Value::Size(uint64_t least, uint64_t most) const {
  const auto size = IsScalar() ? ParseSize(node_.value) : std::nullopt;
  if (!size || *size < least || *size > most) {
    throw Wrong(fmt::format("a size from {} to {}, as in '4GiB'",
                            FormatSize(least), FormatSize(most)));
  }
  return *size;
}

std::chrono::seconds Value::Duration() const {
  const auto duration = IsScalar() ? ParseDuration(node_.value) : std::nullopt;
  if (!duration) throw Wrong("a time, as in '30m' or '2h', or 0 for never");
  return *duration;
}

bool Value::Bool() const {
  for (const char* word : {"true", "True", "TRUE"}) {
    if (Plain() && node_.value == word) return true;
  }
  for (const char* word : {"false", "False", "FALSE"}) {
    if (Plain() && node_.value == word) return false;
  }
  throw Wrong("true or false");
}

std::vector<Value> Value::Items(std::string_view allowed) const {
  if (!IsList()) throw Wrong(allowed);
  std::vector<Value> items;
  for (std::size_t i = 0; i < node_.items.size(); ++i) {
    items.push_back(Item(i));
  }
  return items;
}

std::string Value::Found() const {
  switch (node_.kind) {
    case YamlNode::Kind::kNull:
      return "empty";
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
    case YamlNode::Kind::kScalar:
      break;
  }
  const std::string shown = ForSentence(node_.value);
  return node_.quoted ? fmt::format("the text \"{}\"", shown)
                      : fmt::format("'{}'", shown);
}

Error UnknownKey(std::string_view map, const YamlNode& key,
                 const std::vector<std::string_view>& known) {
  const auto dotted = [map](std::string_view name) {
    return map.empty() ? std::string(name) : fmt::format("{}.{}", map, name);
  };
  const std::string nearest = NearestName(key.value, known);
  const std::string unknown =
      fmt::format("unknown key '{}'", dotted(ForSentence(key.value)));
  const std::string guess =
      nearest.empty() ? "" : fmt::format("did you mean '{}'?", dotted(nearest));
  // The root has too many for a sentence.
  if (map.empty()) {
    return YamlError(
        key, fmt::format("{}; {}", unknown,
                         guess.empty() ? "sbxfs(5) has them all" : guess));
  }
  return YamlError(key, fmt::format("{}; {}nown keys of {}: {}", unknown,
                                    guess.empty() ? "k" : guess + " K", map,
                                    fmt::join(known, ", ")));
}

bool Consists(std::string_view text, std::string_view others) {
  constexpr std::string_view kAlnum =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return kAlnum.find(c) != kAlnum.npos || others.find(c) != others.npos;
  });
}

bool IsAbsolute(std::string_view text) {
  return text.starts_with('/') || text.starts_with("{{");
}

bool HasDots(std::string_view path) {
  const auto parts = Split(path, '/');
  return std::any_of(parts.begin(), parts.end(), [](const auto& part) {
    return part == ".." || part == ".";
  });
}

}  // namespace sbxfs
