#include "backend/image/disk_layout.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace sbxfs {
namespace {

constexpr size_t kSector = 512;
constexpr size_t kBootCode = 440;
constexpr size_t kMbrEntries = 446;
constexpr unsigned kGptProtective = 0xee, kMbrEfi = 0xef;

// C12A7328-F81F-11D2-BA4B-00A0C93EC93B as it lies on disk.
constexpr std::string_view kEfiSystem(
    "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b", 16);

void ReadMbr(std::string_view sector, DiskLayout& layout) {
  for (size_t at = kMbrEntries; at < kMbrEntries + 64; at += 16) {
    // A boot sector of a file system has other things here.
    if ((sector[at] & 0x7f) != 0) return;
  }
  for (size_t at = kMbrEntries; at < kMbrEntries + 64; at += 16) {
    const auto type = LittleEndian<uint8_t>(sector, at + 4);
    const uint64_t start = LittleEndian<uint32_t>(sector, at + 8);
    const uint64_t count = LittleEndian<uint32_t>(sector, at + 12);
    // The protective entry's length is what its maker liked.
    if (type == 0 || count == 0 || type == kGptProtective) continue;
    layout.partitions = true;
    layout.boots_uefi |= type == kMbrEfi;
    layout.end = std::max(layout.end, (start + count) * kSector);
  }
}

void ReadGpt(const ByteSource& disk, uint64_t sector_size, DiskLayout& layout) {
  const std::string header = disk.UpTo(sector_size, kSector);
  if (header.size() < kSector || !header.starts_with("EFI PART")) return;
  const uint64_t table = LittleEndian<uint64_t>(header, 72);
  const uint64_t count = LittleEndian<uint32_t>(header, 80);
  const uint64_t width = LittleEndian<uint32_t>(header, 84);
  constexpr uint64_t kMaxTable = 1 << 20;
  if (width < 128 || width > 4096 || count * width > kMaxTable ||
      table > disk.size / sector_size) {
    return;
  }
  const std::string entries = disk.UpTo(table * sector_size, count * width);
  for (size_t at = 0; at + width <= entries.size(); at += width) {
    const std::string_view entry(entries.data() + at, width);
    if (entry.substr(0, 16).find_first_not_of('\0') == entry.npos) continue;
    layout.partitions = true;
    layout.boots_uefi |= entry.starts_with(kEfiSystem);
    const auto last = LittleEndian<uint64_t>(entry, 40);
    layout.end = std::max(layout.end, last < UINT64_MAX / sector_size
                                          ? (last + 1) * sector_size
                                          : UINT64_MAX);
  }
}

constexpr uint64_t kIsoBlock = 2048;
constexpr uint64_t kIsoVolume = 16 * kIsoBlock;
constexpr unsigned kPlatformUefi = 0xef, kBootable = 0x88;

}  // namespace

DiskLayout ReadDiskLayout(const ByteSource& disk) {
  DiskLayout layout;
  const std::string sector = disk.UpTo(0, kSector);
  if (sector.size() < kSector || !sector.ends_with("\x55\xaa")) return layout;
  layout.signature = true;
  layout.boots_bios = sector.find_first_not_of('\0') < kBootCode;
  ReadMbr(sector, layout);
  for (const uint64_t sector_size : {uint64_t{512}, uint64_t{4096}}) {
    ReadGpt(disk, sector_size, layout);
  }
  return layout;
}

bool IsIso(const ByteSource& file) {
  return file.UpTo(kIsoVolume + 1, 5) == "CD001";
}

IsoLayout ReadIsoLayout(const ByteSource& file) {
  IsoLayout layout;
  const std::string volume = file.UpTo(kIsoVolume, kIsoBlock);
  if (volume.size() < kIsoBlock) return layout;
  layout.end = uint64_t{LittleEndian<uint32_t>(volume, 80)} *
               LittleEndian<uint16_t>(volume, 128);
  const std::string record = file.UpTo(kIsoVolume + kIsoBlock, kIsoBlock);
  if (record.size() < kIsoBlock || record.substr(1, 5) != "CD001" ||
      !record.substr(7).starts_with("EL TORITO SPECIFICATION")) {
    return layout;
  }
  const std::string catalog =
      file.UpTo(LittleEndian<uint32_t>(record, 71) * kIsoBlock, kIsoBlock);
  // Entries of 32 bytes: a validation entry names the platform of the first,
  // section headers those of the ones behind them.
  unsigned platform = 0;
  for (size_t at = 0; at + 32 <= catalog.size(); at += 32) {
    const auto kind = LittleEndian<uint8_t>(catalog, at);
    if ((at == 0 && kind == 1) || kind == 0x90 || kind == 0x91) {
      platform = LittleEndian<uint8_t>(catalog, at + 1);
    } else if (kind == kBootable) {
      (platform == kPlatformUefi ? layout.boots_uefi : layout.boots_bios) =
          true;
    }
  }
  return layout;
}

}  // namespace sbxfs
