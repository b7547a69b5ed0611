#include "backend/disk/root_partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <string_view>

#include "backend/util/error.h"

// By hand, since libblkid and libfdisk, which know all of this, want a file.

namespace sbxfs {
namespace {

using std::string_view_literals::operator""sv;

constexpr uint64_t kMbrSector = 512;
constexpr size_t kTableAt = 446, kTableEntries = 4, kTableWidth = 16;
constexpr unsigned kExtended = 0x05, kExtendedLba = 0x0f, kProtective = 0xee;
constexpr size_t kMostLogical = 64;
constexpr uint64_t kMostGpt = 1 << 20;  // bytes of its table

// The types of roots by the Discoverable Partitions Specification, as they lie
// on disk: x86-64, AArch64, RISC-V 64, PowerPC 64 LE, s390x.
constexpr std::array kRootTypes = {
    "\xe3\xbc\x68\x4f\xcd\xe8\xb1\x4d\x96\xe7\xfb\xca\xf9\x84\xb7\x09"sv,
    "\x45\xb0\x21\xb9\xf0\x1d\xc3\x41\xaf\x44\x4c\x6f\x28\x0d\x3f\xae"sv,
    "\x0f\x0e\xec\x72\xd3\xcf\xaa\x4b\xa7\xc1\x32\xee\x34\xc5\x2b\x8a"sv,
    "\x26\x59\x1c\xc3\x4a\xb1\x34\x47\xbf\x0a\x7f\xe3\xcf\xa4\x26\x3c"sv,
    "\xc6\xaa\xea\x5e\xc9\xf1\x01\x4a\x80\xfa\xee\x0d\xf0\x0e\xa0\xdd"sv,
};

// What is in a part of a disk, by bytes at a place.
struct Content {
  uint64_t offset;
  std::string_view bytes;
  std::string_view what;
};
constexpr std::string_view kExt = "ext4";
constexpr std::array kContents = {
    Content{1080, "\x53\xef", kExt},
    Content{0, "XFSB", "XFS"},
    Content{65600, "_BHRfS_M", "btrfs"},
    Content{0, "LUKS\xba\xbe", "LUKS, which is encrypted"},
    Content{512, "LABELONE", "LVM"},
    Content{0, "LABELONE", "LVM"},
    Content{4096, "\xfc\x4e\x2b\xa9", "a RAID of Linux"},
    Content{0, "\xfc\x4e\x2b\xa9", "a RAID of Linux"},
    Content{1024, "\x10\x20\xf5\xf2", "F2FS"},
    Content{0, "hsqs", "squashfs"},
    Content{1024, "\xe2\xe1\xf5\xe0", "EROFS"},
    Content{4104,
            "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
            "bcachefs"},
    Content{4086, "SWAPSPACE2", "swap"},
    Content{3, "NTFS    ", "NTFS"},
    Content{82, "FAT32", "FAT"},
    Content{54, "FAT1", "FAT"},
    Content{32769, "CD001", "ISO 9660"},
};

// Cut where the disk ends.
void AddPartition(const ByteSource& disk, uint64_t offset, uint64_t size,
                  bool root, std::vector<Partition>& list) {
  if (offset >= disk.size || size == 0) return;
  list.push_back({offset, std::min(size, disk.size - offset), root});
}

// Those that an extended partition is a chain of.
void ReadLogical(const ByteSource& disk, uint64_t begin,
                 std::vector<Partition>& list) {
  std::set<uint64_t> seen;
  uint64_t at = begin;
  while (seen.size() < kMostLogical && seen.insert(at).second) {
    const std::string sector = disk.UpTo(at, kMbrSector);
    if (sector.size() < kMbrSector || !sector.ends_with("\x55\xaa")) return;
    uint64_t next = 0;
    for (size_t i = 0; i < 2; ++i) {
      const size_t entry = kTableAt + i * kTableWidth;
      const auto type = LittleEndian<uint8_t>(sector, entry + 4);
      const uint64_t start = LittleEndian<uint32_t>(sector, entry + 8);
      const uint64_t count = LittleEndian<uint32_t>(sector, entry + 12);
      if (type == 0 || count == 0) continue;
      if (type == kExtended || type == kExtendedLba) {
        next = begin + start * kMbrSector;
      } else {
        AddPartition(disk, at + start * kMbrSector, count * kMbrSector, false,
                     list);
      }
    }
    if (next == 0) return;
    at = next;
  }
}

// Whether the first sector is one of a table at all.
bool ReadPrimary(const ByteSource& disk, std::vector<Partition>& list) {
  const std::string sector = disk.UpTo(0, kMbrSector);
  if (sector.size() < kMbrSector || !sector.ends_with("\x55\xaa")) return false;
  for (size_t i = 0; i < kTableEntries; ++i) {
    // A boot sector of a file system has other things here.
    if ((sector[kTableAt + i * kTableWidth] & 0x7f) != 0) return false;
  }
  for (size_t i = 0; i < kTableEntries; ++i) {
    const size_t entry = kTableAt + i * kTableWidth;
    const auto type = LittleEndian<uint8_t>(sector, entry + 4);
    const uint64_t start = LittleEndian<uint32_t>(sector, entry + 8);
    const uint64_t count = LittleEndian<uint32_t>(sector, entry + 12);
    if (type == 0 || count == 0 || type == kProtective) continue;
    if (type == kExtended || type == kExtendedLba) {
      ReadLogical(disk, start * kMbrSector, list);
    } else {
      AddPartition(disk, start * kMbrSector, count * kMbrSector, false, list);
    }
  }
  return true;
}

bool ReadGptOf(const ByteSource& disk, uint64_t sector,
               std::vector<Partition>& list) {
  const std::string header = disk.UpTo(sector, kMbrSector);
  if (header.size() < kMbrSector || !header.starts_with("EFI PART")) {
    return false;
  }
  const auto table = LittleEndian<uint64_t>(header, 72);
  const uint64_t count = LittleEndian<uint32_t>(header, 80);
  const uint64_t width = LittleEndian<uint32_t>(header, 84);
  if (width < 128 || width > 4096 || count * width > kMostGpt ||
      table > disk.size / sector) {
    return false;
  }
  const std::string entries = disk.UpTo(table * sector, count * width);
  for (size_t at = 0; at + width <= entries.size(); at += width) {
    const std::string_view entry(entries.data() + at, width);
    const std::string_view type = entry.substr(0, 16);
    const auto first = LittleEndian<uint64_t>(entry, 32);
    const auto last = LittleEndian<uint64_t>(entry, 40);
    const uint64_t sectors = disk.size / sector;
    if (type.find_first_not_of('\0') == type.npos || first >= sectors ||
        last < first) {
      continue;
    }
    const bool root = std::find(kRootTypes.begin(), kRootTypes.end(), type) !=
                      kRootTypes.end();
    AddPartition(disk, first * sector,
                 (std::min(last, sectors - 1) - first + 1) * sector, root,
                 list);
  }
  return true;
}

std::string Refused(const std::set<std::string>& found) {
  if (found.empty()) {
    return "there is no file system on it that is known; start the sandbox to "
           "see its files";
  }
  std::string names;
  for (const std::string& name : found) {
    names += names.empty() ? name : " and " + name;
  }
  return fmt::format(
      "it has {}, and of a disk at rest ext2, ext3 and ext4 can be read; start "
      "the sandbox to see its files",
      names);
}

}  // namespace

std::vector<Partition> ReadPartitions(const ByteSource& disk) {
  std::vector<Partition> list;
  for (const uint64_t sector : {uint64_t{512}, uint64_t{4096}}) {
    if (ReadGptOf(disk, sector, list)) return list;
  }
  if (!ReadPrimary(disk, list) || list.empty()) {
    list.assign(1, {0, disk.size, false});
  }
  return list;
}

std::string ContentOf(const ByteSource& disk, const Partition& partition) {
  for (const Content& content : kContents) {
    if (partition.size >= content.offset + content.bytes.size() &&
        disk.UpTo(partition.offset + content.offset, content.bytes.size()) ==
            content.bytes) {
      return std::string(content.what);
    }
  }
  return "";
}

std::vector<Partition> ExtPartitions(const ByteSource& disk) {
  std::vector<Partition> list;
  std::set<std::string> found;
  for (const Partition& partition : ReadPartitions(disk)) {
    const std::string content = ContentOf(disk, partition);
    if (content == kExt) {
      list.push_back(partition);
    } else if (!content.empty()) {
      found.insert(content);
    }
  }
  if (list.empty()) {
    throw Error(EOPNOTSUPP,
                fmt::format("Cannot read the disk: {}", Refused(found)));
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const Partition& a, const Partition& b) {
                     return a.root != b.root ? a.root : a.size > b.size;
                   });
  return list;
}

}  // namespace sbxfs
