#ifndef SBXFS_BACKEND_IMAGE_BYTE_SOURCE_H_
#define SBXFS_BACKEND_IMAGE_BYTE_SOURCE_H_

#include <fmt/format.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include "backend/image/image_file.h"
#include "backend/util/error.h"

namespace sbxfs {

// A file, or the disk in one, that may hold anything. Not thread-safe.
struct ByteSource {
  std::string name;
  uint64_t size = 0;
  ReadAt read;

  // Throws Error(EINVAL): `Cannot use 'NAME': REASON`.
  [[noreturn]] void Refuse(std::string_view reason) const {
    throw Error(EINVAL, fmt::format("Cannot use '{}': {}", name, reason));
  }
  [[nodiscard]] bool Has(uint64_t offset, uint64_t length) const {
    return offset <= size && length <= size - offset;
  }
  // Exactly `length` bytes, which must be there (see Has). Throws Error(EIO)
  // when they are not.
  [[nodiscard]] std::string At(uint64_t offset, size_t length) const {
    std::string bytes = Has(offset, length) ? read(offset, length) : "";
    if (bytes.size() != length) {
      throw Error(EIO, fmt::format("Cannot read '{}': it ended early at {} of "
                                   "{} bytes; was it changed meanwhile",
                                   name, offset + bytes.size(), size));
    }
    return bytes;
  }
  // What is there of them.
  [[nodiscard]] std::string UpTo(uint64_t offset, size_t length) const {
    if (offset >= size) return "";
    return At(offset, length < size - offset ? length : size - offset);
  }
};

// The number of sizeof(T) bytes at `offset`, which must be in `bytes`.
template <typename T>
[[nodiscard]] T BigEndian(std::string_view bytes, size_t offset) {
  T value = 0;
  for (const char byte : bytes.substr(offset, sizeof(T))) {
    value = static_cast<T>(value << 8 | static_cast<unsigned char>(byte));
  }
  return value;
}
template <typename T>
[[nodiscard]] T LittleEndian(std::string_view bytes, size_t offset) {
  T value = 0;
  for (size_t i = sizeof(T); i-- > 0;) {
    value = static_cast<T>(value << 8 |
                           static_cast<unsigned char>(bytes[offset + i]));
  }
  return value;
}

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGE_BYTE_SOURCE_H_
