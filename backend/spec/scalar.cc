#include "backend/spec/scalar.h"

#include <algorithm>
#include <cctype>

namespace sbxfs {
namespace {

constexpr std::string_view kIndicators = "-?:,[]{}#&*!|>'\"%@`";

// Whether YAML would read it as itself, out of quotes.
bool IsPlainScalar(std::string_view value, bool flow) {
  if (value.empty() || value.front() == ' ' || value.back() == ' ' ||
      value.back() == ':' || value.find_first_of("\t\r\n") != value.npos ||
      value.find(": ") != value.npos || value.find(" #") != value.npos) {
    return false;
  }
  if (flow && value.find_first_of(",[]{}:?") != value.npos) return false;
  if (value == "..." || value.starts_with("---")) return false;
  // A number below zero is no list.
  if (value.size() > 1 && value.front() == '-' && value[1] >= '0' &&
      value[1] <= '9') {
    return true;
  }
  return kIndicators.find(value.front()) == kIndicators.npos;
}

// Whether some reader of YAML would take it for something else than a text.
bool LooksLikeNoText(std::string_view value) {
  std::string lower(value);
  for (char& c : lower) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  for (const char* word : {"null", "~", "true", "false", "yes", "no", "on",
                           "off", "y", "n", ".nan", "<<", "="}) {
    if (lower == word) return true;
  }
  // Numbers in any base, dates, times.
  return value.find_first_of("0123456789") != value.npos &&
         lower.find_first_not_of("0123456789abcdefox.+-_:tz ") == lower.npos;
}

std::string SingleQuoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    quoted += c;
    if (c == '\'') quoted += c;
  }
  return quoted + '\'';
}

}  // namespace

std::string QuoteScalar(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    switch (c) {
      case '\n':
        quoted += "\\n";
        break;
      case '\r':
        quoted += "\\r";
        break;
      case '\t':
        quoted += "\\t";
        break;
      case '"':
      case '\\':
        quoted += '\\';
        [[fallthrough]];
      default:
        quoted += c;
    }
  }
  return quoted + '"';
}

std::string FormatScalar(std::string_view value, ValueType type, bool flow,
                         char quote) {
  const bool one_line = value.find_first_of("\t\r\n") == value.npos;
  if (type != ValueType::kPlain && quote == '\'' && one_line) {
    return SingleQuoted(value);
  }
  const bool keep = type != ValueType::kPlain && quote == '"';
  const bool text = type == ValueType::kText && LooksLikeNoText(value);
  if (keep || text || !IsPlainScalar(value, flow)) return QuoteScalar(value);
  return std::string(value);
}

}  // namespace sbxfs
