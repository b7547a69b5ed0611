#include "backend/util/utf8.h"

#include <cstdint>

namespace sbxfs {
namespace {

// The length of the plain character that `text` begins with, or 0.
std::size_t PlainLength(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) {
    const bool blank = first == '\t' || first == '\n' || first == '\r';
    return (first >= ' ' && first != 0x7f) || blank ? 1 : 0;
  }
  std::size_t length = 0;
  std::uint32_t code = 0;
  std::uint32_t least = 0;
  if ((first & 0xe0) == 0xc0) {
    length = 2, code = first & 0x1f, least = 0xa0;  // below: control characters
  } else if ((first & 0xf0) == 0xe0) {
    length = 3, code = first & 0x0f, least = 0x800;
  } else if ((first & 0xf8) == 0xf0) {
    length = 4, code = first & 0x07, least = 0x10000;
  }
  if (length == 0 || text.size() < length) return 0;
  for (const unsigned char next : text.substr(1, length - 1)) {
    if ((next & 0xc0) != 0x80) return 0;
    code = code << 6 | (next & 0x3f);
  }
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  const bool none = (code & 0xfffe) == 0xfffe || code > 0x10ffff;
  return code < least || surrogate || none ? 0 : length;
}

}  // namespace

std::size_t FindNotPlain(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = PlainLength(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

bool IsPlainLine(std::string_view text) {
  return FindNotPlain(text) == std::string_view::npos &&
         text.find_first_of("\t\r\n") == std::string_view::npos;
}

}  // namespace sbxfs
