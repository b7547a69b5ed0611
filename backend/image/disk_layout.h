#ifndef SBXFS_BACKEND_IMAGE_DISK_LAYOUT_H_
#define SBXFS_BACKEND_IMAGE_DISK_LAYOUT_H_

#include <cstdint>

#include "backend/image/byte_source.h"

namespace sbxfs {

// What the first sectors of a disk say. Hostile input: whatever is out of
// range is taken as not there.
struct DiskLayout {
  bool signature = false;   // 0x55AA ends the first sector
  bool partitions = false;  // an MBR or GPT with at least one entry
  bool boots_bios = false;  // code before that signature
  bool boots_uefi = false;  // an EFI system partition
  uint64_t end = 0;         // where the last partition ends, in bytes
};
[[nodiscard]] DiskLayout ReadDiskLayout(const ByteSource& disk);

// ISO 9660, by El Torito.
struct IsoLayout {
  uint64_t end = 0;  // of the file system, in bytes
  bool boots_bios = false;
  bool boots_uefi = false;
};
[[nodiscard]] bool IsIso(const ByteSource& file);
[[nodiscard]] IsoLayout ReadIsoLayout(const ByteSource& file);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGE_DISK_LAYOUT_H_
