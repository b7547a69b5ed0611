#ifndef SBXFS_BACKEND_UTIL_TEXT_H_
#define SBXFS_BACKEND_UTIL_TEXT_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sbxfs {

// Small pure functions on text, safe from any thread. None throws for a bad
// text; who calls knows the noun and words the sentence.

// `text` without the spaces, tabs, returns and newlines at both ends.
[[nodiscard]] std::string_view Trim(std::string_view text);

// The parts between the separators, empty ones too: n separators, n + 1 parts.
// The parts point into `text`.
[[nodiscard]] std::vector<std::string_view> Split(std::string_view text,
                                                  char separator);

// A whole decimal number, digits alone; nullopt for anything else.
[[nodiscard]] std::optional<std::uint64_t> ParseNumber(std::string_view text);

// A port: a whole decimal number from 1 to 65535.
[[nodiscard]] std::optional<int> ParsePort(std::string_view text);

// With the letters A to Z in lower case.
[[nodiscard]] std::string Lower(std::string_view text);

// What Trim takes away.
inline constexpr std::string_view kBlanks = " \t\r\n";

// For a shell: in one pair of single quotes, whatever it holds.
[[nodiscard]] std::string ShellQuote(std::string_view text);

// Whether it is an IPv4 or IPv6 address, without brackets.
[[nodiscard]] bool IsAddress(std::string_view text);

// Seconds out of "90", "90s", "15m", "2h", "1d" or a run of them ("1h30m").
[[nodiscard]] std::optional<std::chrono::seconds> ParseDuration(
    std::string_view text);

// The shortest form ParseDuration reads back: "1d", "90s", "0s".
[[nodiscard]] std::string FormatDuration(std::chrono::seconds duration);

// Bytes out of "4GiB", "512MB", "1.5G" or "1048576"; case does not count.
// K to P are powers of 1024, with iB, B or alone, as Lima has them.
[[nodiscard]] std::optional<std::uint64_t> ParseSize(std::string_view text);

// The largest binary unit that loses nothing: "4GiB", "1536MiB", "1000".
// ParseSize reads it back exactly.
[[nodiscard]] std::string FormatSize(std::uint64_t bytes);

// The candidate that `word` is most likely a slip of the pen for, whatever the
// case; empty when none is half alike. The first of equals.
[[nodiscard]] std::string NearestName(
    std::string_view word, const std::vector<std::string_view>& candidates);

// Of a text, what a read at that offset gets.
[[nodiscard]] std::string Part(std::string_view text, std::uint64_t offset,
                               std::size_t size);

// RFC 4648, with padding, in one line.
[[nodiscard]] std::string Base64Encode(std::string_view bytes);
// White space is skipped; nullopt for any other stranger or a wrong length.
[[nodiscard]] std::optional<std::string> Base64Decode(std::string_view text);

// Whether a shell takes it for a variable's.
[[nodiscard]] bool IsVariable(std::string_view name);

// FNV-1a: a short, stable name for a text; no protection against anyone.
[[nodiscard]] std::uint32_t Hash32(std::string_view text);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_TEXT_H_
