#include "backend/disk/disk_reader.h"

#include <sys/stat.h>

#include <cerrno>
#include <exception>
#include <utility>

#include "backend/disk/root_partition.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

// Whether it has what a system's root has, and not /boot's or a home's.
bool LooksLikeRoot(ExtFiles& files) {
  try {
    return S_ISDIR(files.Look("etc").mode);
  } catch (const Error& error) {
    if (error.Errno() != ENOENT) throw;
    return false;
  }
}

}  // namespace

DiskReader::DiskReader(std::vector<ChainFile> files, ReadFileAt read)
    : chain_(std::move(files), std::move(read)) {
  const ByteSource disk{"the disk", chain_.Size(),
                        [this](uint64_t offset, size_t size) {
                          return chain_.Read(offset, size);
                        }};
  std::exception_ptr why;
  for (const Partition& partition : ExtPartitions(disk)) {
    try {
      auto found = std::make_unique<ExtFiles>(
          [this, partition](uint64_t offset, size_t size) {
            return chain_.Read(partition.offset + offset, size);
          },
          partition.size);
      const bool root = LooksLikeRoot(*found);
      // The first of those that are no root is better than none.
      if (root || !files_) files_ = std::move(found);
      if (root) return;
    } catch (const Error& error) {
      if (error.Errno() != EIO) throw;
      if (!why) why = std::current_exception();
    }
  }
  if (!files_) std::rethrow_exception(why);
}

}  // namespace sbxfs
