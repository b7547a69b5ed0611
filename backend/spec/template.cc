#include "backend/spec/template.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "backend/spec/yaml.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr std::string_view kTemplateOpen = "{{";
constexpr std::string_view kTemplateClose = "}}";
constexpr std::string_view kParam = "Param.";

struct Action {
  enum class Kind { kValue, kText, kForeign, kUnsupported };
  Kind kind = Kind::kForeign;
  std::string text;  // of kValue the name, of kText the text
  bool trim_before = false, trim_after = false;
};

bool IsTemplateName(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '_' || c == '.';
  });
}

// Of what stands between the braces.
Action Read(std::string_view inside) {
  Action action;
  if (inside.starts_with("- ")) {
    action.trim_before = true;
    inside.remove_prefix(2);
  }
  if (inside.ends_with(" -")) {
    action.trim_after = true;
    inside.remove_suffix(2);
  }
  inside = Trim(inside);
  using Kind = Action::Kind;
  const char first = inside.empty() ? ' ' : inside.front();
  if ((first == '"' || first == '`') && inside.size() >= 2 &&
      inside.back() == first && inside.find(first, 1) == inside.size() - 1 &&
      inside.find('\\') == inside.npos) {
    action.kind = Kind::kText;
    action.text = inside.substr(1, inside.size() - 2);
  } else if (inside.starts_with("/*") && inside.ends_with("*/")) {
    action.kind = Kind::kText;
  } else if (first == '.' && IsTemplateName(inside.substr(1))) {
    action.kind = Kind::kValue;
    action.text = inside.substr(1);
  } else {
    const std::string_view word = inside.substr(0, inside.find_first_of(" ("));
    for (const char* keyword :
         {"if",    "else",     "end",    "range",    "with",    "define",
          "block", "template", "printf", "print",    "println", "index",
          "len",   "html",     "js",     "urlquery", "and",     "or",
          "not",   "eq",       "ne",     "lt",       "le",      "gt",
          "ge",    "slice",    "call",   "break",    "continue"}) {
      if (word == keyword) action.kind = Kind::kUnsupported;
    }
    if (first == '.' && inside.size() > 1) action.kind = Kind::kUnsupported;
    if (first == '$' || first == '"' || first == '`') {
      action.kind = Kind::kUnsupported;
    }
  }
  return action;
}

// Where the action that begins at `open` ends, past its braces.
std::size_t EndOf(std::string_view text, std::size_t open) {
  char quote = '\0';
  for (std::size_t at = open + kTemplateOpen.size(); at < text.size(); ++at) {
    const char c = text[at];
    if (quote != '\0') {
      if (c == quote) quote = '\0';
    } else if (c == '"' || c == '`') {
      quote = c;
    } else if (c == '\n') {
      break;
    } else if (text.substr(at).starts_with(kTemplateClose)) {
      return at + kTemplateClose.size();
    }
  }
  // No quotes then.
  const std::size_t close = text.find(kTemplateClose, open);
  const std::size_t line = text.find('\n', open);
  return close == text.npos || line < close ? text.npos
                                            : close + kTemplateClose.size();
}

// Calls `plain` with what is no template and `action` with each that is one.
template <typename Plain, typename Act>
void Walk(std::string_view text, Plain plain, Act act) {
  while (!text.empty()) {
    const std::size_t open = std::min(text.find(kTemplateOpen), text.size());
    plain(text.substr(0, open));
    text.remove_prefix(open);
    if (text.empty()) return;
    const std::size_t end = EndOf(text, 0);
    if (end == text.npos) {
      plain(text.substr(0, kTemplateOpen.size()));
      text.remove_prefix(kTemplateOpen.size());
      continue;
    }
    const std::string_view whole = text.substr(0, end);
    act(whole, Read(whole.substr(2, whole.size() - 4)));
    text.remove_prefix(end);
  }
}

std::vector<std::string_view> Names(TemplateSide side) {
  std::vector<std::string_view> names = {"Name", "Hostname", "User", "Home",
                                         "UID"};
  if (side == TemplateSide::kGuest) return names;
  names.insert(names.end(), {"Dir", "Instance"});
  if (side == TemplateSide::kHost) {
    names.insert(names.end(), {"TempDir", "GlobalTempDir"});
  } else {
    names.insert(names.end(), {"HostOS", "HostArch", "SSHLocalPort"});
  }
  return names;
}

}  // namespace

std::string CheckTemplate(std::string_view text, TemplateSide side,
                          std::vector<std::string>& params) {
  const std::vector<std::string_view> names = Names(side);
  std::string fault;
  const auto check = [&](std::string_view whole, const Action& action) {
    if (!fault.empty()) return;
    if (action.kind == Action::Kind::kUnsupported &&
        side != TemplateSide::kMessage) {
      fault = fmt::format(
          "'{}', which is more than sbxfs expands; for the braces themselves "
          "write {{{{\"{{{{\"}}}}",
          ForSentence(whole));
    }
    if (action.kind != Action::Kind::kValue) return;
    if (action.text.starts_with(kParam)) {
      params.push_back(action.text.substr(kParam.size()));
    } else if (std::find(names.begin(), names.end(), action.text) ==
               names.end()) {
      fault = fmt::format(
          "'{}', which is not known here; known are {}, Param.KEY; for the "
          "braces themselves write {{{{\"{{{{\"}}}}",
          ForSentence(whole), fmt::join(names, ", "));
    }
  };
  Walk(
      text, [](std::string_view) {}, check);
  return fault;
}

std::string ExpandTemplate(
    std::string_view text,
    const std::function<std::optional<std::string>(std::string_view)>& value) {
  std::string result;
  bool trim = false;
  const auto plain = [&](std::string_view part) {
    if (trim) {
      const auto first = part.find_first_not_of(kBlanks);
      part.remove_prefix(std::min(first, part.size()));
      trim = part.empty();
    }
    result += part;
  };
  const auto act = [&](std::string_view whole, const Action& action) {
    std::optional<std::string> text_of;
    if (action.kind == Action::Kind::kText) text_of = action.text;
    if (action.kind == Action::Kind::kValue) text_of = value(action.text);
    if (!text_of) {
      trim = false;
      result += whole;
      return;
    }
    if (action.trim_before) {
      result.erase(result.find_last_not_of(kBlanks) + 1);
    }
    result += *text_of;
    trim = action.trim_after;
  };
  Walk(text, plain, act);
  return result;
}

}  // namespace sbxfs
