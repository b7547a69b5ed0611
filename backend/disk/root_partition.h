#ifndef SBXFS_BACKEND_DISK_ROOT_PARTITION_H_
#define SBXFS_BACKEND_DISK_ROOT_PARTITION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "backend/image/byte_source.h"

namespace sbxfs {

// A part of a disk, in bytes.
struct Partition {
  uint64_t offset = 0;
  uint64_t size = 0;
  bool root = false;  // its type says that it is a system's root
};

// Those of a GPT or MBR, the latter's logical ones included; the whole disk
// alone where there is neither. Hostile input: what is out of range is cut, or
// taken as not there.
[[nodiscard]] std::vector<Partition> ReadPartitions(const ByteSource& disk);

// What its first bytes say that is in there, as a person calls it: "ext4" for
// ext2 to ext4, "XFS", "LVM" and so on; empty for what is not known.
[[nodiscard]] std::string ContentOf(const ByteSource& disk,
                                    const Partition& partition);

// Those with an ext file system, the one that is most likely the root's first.
// Throws Error(EOPNOTSUPP) with what there is when none has one.
[[nodiscard]] std::vector<Partition> ExtPartitions(const ByteSource& disk);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_ROOT_PARTITION_H_
