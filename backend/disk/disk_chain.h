#ifndef SBXFS_BACKEND_DISK_DISK_CHAIN_H_
#define SBXFS_BACKEND_DISK_DISK_CHAIN_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/disk/cached_read.h"
#include "backend/image/byte_source.h"
#include "backend/image/qcow2.h"

namespace sbxfs {

// A file of a disk's chain.
struct ChainFile {
  std::string name;
  uint64_t size = 0;   // bytes of the file
  std::string format;  // "qcow2" or "raw"
};

// Up to `size` bytes from `offset` of the file of that number in a chain.
using ReadFileAt =
    std::function<std::string(size_t file, uint64_t offset, size_t size)>;

// What a guest sees of its disk, by the files of a chain, of which each stands
// on the next one. All of them are hostile input. Not thread-safe.
class DiskChain {
 public:
  // Throws Error(EINVAL) for files that are not what they are said to be, and
  // what `read` throws.
  DiskChain(std::vector<ChainFile> files, ReadFileAt read);
  DiskChain(const DiskChain&) = delete;
  DiskChain& operator=(const DiskChain&) = delete;

  [[nodiscard]] uint64_t Size() const { return size_; }
  // Up to `length` bytes from `offset`, fewer at the end alone.
  [[nodiscard]] std::string Read(uint64_t offset, size_t length);

 private:
  struct Layer {
    ByteSource file;
    std::unique_ptr<CachedRead> cache;
    std::unique_ptr<Qcow2> image;  // null: raw
    uint64_t size = 0;             // of the disk that it shows
  };
  // Exactly so many bytes: zeros where that layer, or those below it, end.
  [[nodiscard]] std::string ReadLayer(size_t number, uint64_t offset,
                                      size_t length);

  std::vector<Layer> layers_;  // never resized once it is full
  uint64_t size_ = 0;
  std::unique_ptr<CachedRead> cache_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_DISK_CHAIN_H_
