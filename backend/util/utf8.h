#ifndef SBXFS_BACKEND_UTIL_UTF8_H_
#define SBXFS_BACKEND_UTIL_UTF8_H_

#include <cstddef>
#include <string_view>

namespace sbxfs {

// Where `text` stops being plain text: the first byte that is not UTF-8
// (shortest forms alone, no surrogates) or that begins a control character
// other than tab, newline and return. npos when all of it is plain.
[[nodiscard]] std::size_t FindNotPlain(std::string_view text);

// Plain, and without a tab, a newline or a return.
[[nodiscard]] bool IsPlainLine(std::string_view text);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_UTF8_H_
