#include "backend/image/image_file.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "backend/image/byte_source.h"
#include "backend/image/disk_layout.h"
#include "backend/image/qcow2.h"

namespace sbxfs {
namespace {

using std::string_view_literals::operator""sv;

// What a file that is no disk image here may be, by bytes at a place.
struct Foreign {
  uint64_t offset;
  std::string_view bytes;
  std::string_view what;  // "it is WHAT; REMEDY"
  std::string_view remedy;
};
constexpr std::string_view kConvert =
    "convert it by qemu-img convert -O qcow2 IN OUT";
constexpr std::string_view kBare =
    "a disk needs a partition table and a boot loader around it";
constexpr std::array kForeign = {
    Foreign{0, "# Disk DescriptorFile",
            "a VMDK descriptor, whose data is in other files", kConvert},
    Foreign{0, "vhdxfile", "a VHDX image", kConvert},
    Foreign{0, "WithoutFreeSpace", "a Parallels image", kConvert},
    Foreign{0, "WithouFreSpacExt", "a Parallels image", kConvert},
    Foreign{0, "LUKS\xba\xbe", "encrypted by LUKS", "give the disk decrypted"},
    Foreign{0, "\x1f\x8b", "compressed twice", "unpack it by gunzip FILE"},
    Foreign{0,
            "\xfd"
            "7zXZ\0"sv,
            "compressed twice", "unpack it by unxz FILE"},
    Foreign{0, "\x28\xb5\x2f\xfd", "compressed twice",
            "unpack it by unzstd FILE"},
    Foreign{0, "BZh", "compressed twice", "unpack it by bunzip2 FILE"},
    Foreign{0, "\x04\x22\x4d\x18", "compressed by lz4",
            "unpack it by unlz4 FILE"},
    Foreign{0, "PK\x03\x04", "a zip archive",
            "unpack it by unzip FILE and take the disk in it"},
    Foreign{0, "7z\xbc\xaf\x27\x1c", "a 7z archive",
            "unpack it by 7z x FILE and take the disk in it"},
    Foreign{257, "ustar", "a tar archive",
            "unpack it by tar -xf FILE and take the disk in it"},
    Foreign{0, "hsqs", "a bare squashfs file system", kBare},
    Foreign{0, "XFSB", "a bare XFS file system", kBare},
    Foreign{1080, "\x53\xef", "a bare ext file system", kBare},
    Foreign{65600, "_BHRfS_M", "a bare btrfs file system", kBare},
    Foreign{3, "NTFS    ", "a bare NTFS file system", kBare},
    Foreign{54, "FAT1", "a bare FAT file system", kBare},
    Foreign{82, "FAT32", "a bare FAT file system", kBare},
};

// What is converted, by bytes at a place.
struct Convertible {
  uint64_t offset;
  std::string_view bytes;
  std::string_view format;
};
constexpr std::array kConvertible = {
    Convertible{0, "KDMV", "vmdk"},
    Convertible{0, "COWD", "vmdk"},
    Convertible{64, "\x7f\x10\xda\xbe", "vdi"},
    // A fixed VHD, which has this at its end alone, is a raw disk.
    Convertible{0, "conectix", "vpc"},
    Convertible{0, "QED\0"sv, "qed"},
    Convertible{0, "QFI\xfb\0\0\0\1"sv, "qcow"},
};

bool LooksLikeMarkup(std::string_view head) {
  const size_t begin = head.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (begin == head.npos) return false;
  std::string start(head.substr(begin, 9));
  std::transform(start.begin(), start.end(), start.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return start.starts_with("<!doctype") || start.starts_with("<html") ||
         start.starts_with("<head") || start.starts_with("<?xml");
}

// Throws for a file that is recognised as something else.
void RefuseForeign(const ByteSource& file, std::string_view head) {
  for (const Foreign& foreign : kForeign) {
    const std::string_view at =
        foreign.offset < head.size() ? head.substr(foreign.offset) : "";
    if (at.starts_with(foreign.bytes) ||
        (foreign.offset >= head.size() &&
         file.UpTo(foreign.offset, foreign.bytes.size()) == foreign.bytes)) {
      file.Refuse(fmt::format("it is {}; {}", foreign.what, foreign.remedy));
    }
  }
  if (LooksLikeMarkup(head)) {
    file.Refuse(
        "it is a web page, of a download that failed perhaps; look into it "
        "and fetch the image again");
  }
}

void RefuseCut(const ByteSource& file, uint64_t end) {
  file.Refuse(
      fmt::format("it is cut short: it has {} bytes where its contents end at "
                  "{}; fetch or copy it again",
                  file.size, end));
}

ImageFacts InspectQcow2(const ByteSource& file) {
  const Qcow2 image(file);
  image.CheckTables();
  const ByteSource disk{file.name, image.VirtualSize(),
                        [&](uint64_t offset, size_t length) {
                          return image.Read(offset, length);
                        }};
  const DiskLayout layout = ReadDiskLayout(disk);
  return {"qcow2", disk.size, layout.boots_bios, layout.boots_uefi};
}

ImageFacts InspectIso(const ByteSource& file) {
  const IsoLayout layout = ReadIsoLayout(file);
  if (layout.end > file.size) RefuseCut(file, layout.end);
  return {"iso", file.size, layout.boots_bios, layout.boots_uefi};
}

ImageFacts InspectRaw(const ByteSource& file, std::string_view head) {
  const DiskLayout layout = ReadDiskLayout(file);
  // A file system's boot sector has the signature too; a partition table, or
  // else a boot sector of no known kind, makes it a disk.
  if (!layout.partitions) RefuseForeign(file, head);
  if (!layout.signature) {
    file.Refuse(
        "it is no disk image: neither qcow2 nor ISO 9660, and without a boot "
        "sector or partition table; give a cloud image in qcow2 form");
  }
  if (layout.end > file.size) RefuseCut(file, layout.end);
  return {"raw", (file.size + 511) / 512 * 512, layout.boots_bios,
          layout.boots_uefi};
}

constexpr char kFlatten[] =
    "flatten it by qemu-img convert -O qcow2 IN OUT where that file is";

// QEMU follows the header to a text that names the data's files when it gives
// no capacity, and looks for a parent in the text behind the header.
void CheckVmdk(const ByteSource& file) {
  constexpr size_t kCapacity = 12, kText = 20 * 512;
  const std::string head = file.UpTo(0, 512 + kText);
  if (head.starts_with("KDMV") &&
      (head.size() < 512 || LittleEndian<uint64_t>(head, kCapacity) == 0)) {
    file.Refuse(fmt::format("its data is in other files; {}", kFlatten));
  }
  if (head.find("parentFileNameHint") != std::string::npos) {
    file.Refuse(
        fmt::format("it is the difference to another file; {}", kFlatten));
  }
}

}  // namespace

std::string FormatToConvert(std::string_view head) {
  for (const Convertible& one : kConvertible) {
    if (one.offset < head.size() &&
        head.substr(one.offset).starts_with(one.bytes)) {
      return std::string(one.format);
    }
  }
  return "";
}

void CheckStandsAlone(const std::string& name, uint64_t file_size,
                      const ReadAt& read) {
  const ByteSource file{name, file_size, read};
  const std::string head = file.UpTo(0, 4096);
  const std::string format = FormatToConvert(head);
  bool difference = false;
  if (format == "vmdk") {
    CheckVmdk(file);
  } else if (format == "qcow") {
    difference = head.size() < 48 || BigEndian<uint64_t>(head, 8) != 0;
  } else if (format == "qed") {
    difference =
        head.size() < 64 || (LittleEndian<uint64_t>(head, 16) & 1) != 0;
  } else if (format == "vpc") {
    // Its type, of which 4 is one.
    difference = head.size() < 512 || BigEndian<uint32_t>(head, 60) == 4;
  } else if (format == "vdi") {
    difference = head.size() < 512 || LittleEndian<uint32_t>(head, 76) > 2;
  }
  if (difference) {
    file.Refuse(
        fmt::format("it is the difference to another file, or cut "
                    "short; {}",
                    kFlatten));
  }
}

ImageFacts InspectImage(const std::string& name, uint64_t file_size,
                        const ReadAt& read) {
  const ByteSource file{name, file_size, read};
  if (file_size == 0) file.Refuse("it is empty");
  const std::string head = file.UpTo(0, 4096);
  if (Qcow2::Is(head)) return InspectQcow2(file);
  if (IsIso(file)) return InspectIso(file);
  return InspectRaw(file, head);
}

}  // namespace sbxfs
