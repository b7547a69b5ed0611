#ifndef SBXFS_BACKEND_DISK_CACHED_READ_H_
#define SBXFS_BACKEND_DISK_CACHED_READ_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <utility>

#include "backend/image/image_file.h"

namespace sbxfs {

// What was read of a source lately, in pieces of one size. Not thread-safe.
class CachedRead {
 public:
  // `source` is asked for whole pieces, cut at `size`. At most `most` are kept.
  CachedRead(ReadAt source, uint64_t size, size_t piece, size_t most)
      : source_(std::move(source)), size_(size), piece_(piece), most_(most) {}

  // Up to `length` bytes from `offset`, fewer at the end alone.
  [[nodiscard]] std::string Read(uint64_t offset, size_t length);

 private:
  using Piece = std::pair<uint64_t, std::string>;  // its number, its bytes
  [[nodiscard]] const std::string& Get(uint64_t number);

  const ReadAt source_;
  const uint64_t size_;
  const size_t piece_;
  const size_t most_;
  std::list<Piece> pieces_;  // the one that was used last first
  std::unordered_map<uint64_t, std::list<Piece>::iterator> places_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_CACHED_READ_H_
