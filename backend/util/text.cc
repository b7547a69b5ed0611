#include "backend/util/text.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

namespace sbxfs {
namespace {

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

std::optional<std::uint64_t> Power(char prefix) {
  const auto exponent = std::string_view("kmgtp").find(prefix);
  if (exponent == std::string_view::npos) return std::nullopt;
  std::uint64_t power = 1;
  for (std::size_t i = 0; i <= exponent; ++i) power *= 1024;
  return power;
}

// `unit` is in lower case.
std::optional<std::uint64_t> SizeUnit(std::string_view unit) {
  if (unit.empty() || unit == "b") return 1;
  const std::string_view rest = unit.substr(1);
  // Lima takes GB for GiB too.
  if (rest.empty() || rest == "i" || rest == "ib" || rest == "b") {
    return Power(unit[0]);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> DurationUnit(char unit) {
  switch (unit) {
    case 's':
      return 1;
    case 'm':
      return 60;
    case 'h':
      return 60 * 60;
    case 'd':
      return 24 * 60 * 60;
    default:
      return std::nullopt;
  }
}

// Edits between two words, two neighbours swapped being one ("statsu").
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> above(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(above.begin(), above.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

constexpr std::string_view kBase64Digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string_view Trim(std::string_view text) {
  const auto first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const auto end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = Lower(c);
  return lower;
}

std::optional<int> ParsePort(std::string_view text) {
  const auto number = ParseNumber(text);
  if (!number || *number == 0 || *number > 65535) return std::nullopt;
  return static_cast<int>(*number);
}

std::string ShellQuote(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + '\'';
}

bool IsAddress(std::string_view text) {
  std::array<unsigned char, sizeof(in6_addr)> address{};
  const std::string word(text);
  // It would be looked at up to a NUL alone, and used as a whole.
  if (word.find('\0') != std::string::npos) return false;
  return inet_pton(AF_INET, word.c_str(), address.data()) == 1 ||
         inet_pton(AF_INET6, word.c_str(), address.data()) == 1;
}

std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc() || stop != end) return std::nullopt;
  return number;
}

std::optional<std::chrono::seconds> ParseDuration(std::string_view text) {
  // A thousand years: whatever is computed with it later stays in range.
  constexpr std::uint64_t kLongest = 1000ULL * 366 * 24 * 60 * 60;
  text = Trim(text);
  if (text.empty()) return std::nullopt;
  std::uint64_t total = 0;
  bool first = true;
  while (!text.empty()) {
    const auto digits = static_cast<std::size_t>(
        std::find_if_not(text.begin(), text.end(), IsDigit) - text.begin());
    const auto number = ParseNumber(text.substr(0, digits));
    const bool plain = digits == text.size();
    if (!number || *number > kLongest || (plain && !first)) return std::nullopt;
    const auto unit = plain ? 1 : DurationUnit(text[digits]);
    if (!unit) return std::nullopt;
    total += *number * *unit;
    if (total > kLongest) return std::nullopt;
    text.remove_prefix(plain ? digits : digits + 1);
    first = false;
  }
  return std::chrono::seconds(total);
}

std::string FormatDuration(std::chrono::seconds duration) {
  const auto seconds = duration.count();
  for (const char unit : {'d', 'h', 'm'}) {
    const auto size = static_cast<std::int64_t>(*DurationUnit(unit));
    if (seconds != 0 && seconds % size == 0) {
      return fmt::format("{}{}", seconds / size, unit);
    }
  }
  return fmt::format("{}s", seconds);
}

std::optional<std::uint64_t> ParseSize(std::string_view text) {
  const std::string lower = Lower(Trim(text));
  const std::string_view all = lower;
  const auto end = all.find_first_not_of("0123456789.");
  const auto digits = all.substr(0, end);
  const auto unit =
      SizeUnit(end == std::string_view::npos ? "" : Trim(all.substr(end)));
  if (!unit || std::none_of(digits.begin(), digits.end(), IsDigit)) {
    return std::nullopt;
  }
  if (digits.find('.') == std::string_view::npos) {
    const auto number = ParseNumber(digits);
    if (!number || *number > std::numeric_limits<std::int64_t>::max() / *unit) {
      return std::nullopt;
    }
    return *number * *unit;
  }
  double number = 0;
  const auto [stop, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number);
  number *= static_cast<double>(*unit);
  // A part of a byte is left out, as Go does it for Lima.
  if (error != std::errc() || stop != digits.data() + digits.size() ||
      number >= 0x1p63) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(number);
}

std::string FormatSize(std::uint64_t bytes) {
  for (const char prefix : {'P', 'T', 'G', 'M', 'K'}) {
    const std::uint64_t unit = *Power(Lower(prefix));
    if (bytes != 0 && bytes % unit == 0) {
      return fmt::format("{}{}iB", bytes / unit, prefix);
    }
  }
  return fmt::format("{}", bytes);
}

std::string NearestName(std::string_view word,
                        const std::vector<std::string_view>& candidates) {
  const std::string lower = Lower(word);
  std::string_view nearest;
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (const std::string_view candidate : candidates) {
    const std::size_t distance = EditDistance(lower, Lower(candidate));
    if (distance > std::max(word.size(), candidate.size()) / 2) continue;
    if (distance < least) {
      least = distance;
      nearest = candidate;
    }
  }
  return std::string(nearest);
}

std::string Base64Encode(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    for (std::size_t k = 0; k < 3; ++k) {
      const auto byte =
          static_cast<unsigned char>(k < count ? bytes[i + k] : 0);
      group = group << 8 | byte;
    }
    for (std::size_t k = 0; k < 4; ++k) {
      text += k > count ? '=' : kBase64Digits[group >> (18 - 6 * k) & 63];
    }
  }
  return text;
}

std::optional<std::string> Base64Decode(std::string_view text) {
  std::string bytes;
  std::uint32_t group = 0;
  std::size_t count = 0;    // characters so far, padding too
  std::size_t padding = 0;  // of them '='
  for (const char c : text) {
    if (kBlanks.find(c) != std::string_view::npos) continue;
    const auto value = kBase64Digits.find(c);
    if (c == '=') {
      ++padding;
    } else if (value == std::string_view::npos || padding > 0) {
      return std::nullopt;
    }
    group = group << 6 | static_cast<std::uint32_t>(c == '=' ? 0 : value);
    if (++count % 4 != 0) continue;
    if (padding > 2) return std::nullopt;
    for (std::size_t k = 0; k < 3 - padding; ++k) {
      bytes += static_cast<char>(group >> (16 - 8 * k) & 255);
    }
    group = 0;
  }
  if (count % 4 != 0 || padding > 2) return std::nullopt;
  return bytes;
}

std::string Part(std::string_view text, std::uint64_t offset,
                 std::size_t size) {
  return offset >= text.size() ? std::string()
                               : std::string(text.substr(offset, size));
}

bool IsVariable(std::string_view name) {
  return !name.empty() &&
         std::isdigit(static_cast<unsigned char>(name[0])) == 0 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '_';
         });
}

std::uint32_t Hash32(std::string_view text) {
  std::uint32_t hash = 2166136261U;
  for (const unsigned char c : text) hash = (hash ^ c) * 16777619U;
  return hash;
}

}  // namespace sbxfs
