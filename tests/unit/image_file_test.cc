#include "backend/image/image_file.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;  // NOLINT: texts with NUL
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr size_t kMebi = 1 << 20;

void Put(std::string& bytes, uint64_t offset, const std::string& what) {
  if (bytes.size() < offset + what.size()) bytes.resize(offset + what.size());
  bytes.replace(offset, what.size(), what);
}
std::string Little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}
std::string Big(uint64_t value, int bytes) {
  const std::string little = Little(value, bytes);
  return {little.rbegin(), little.rend()};
}

// A disk of `size` bytes: boot code, an MBR with one partition of `type`.
std::string MbrDisk(size_t size, int type, bool code = true) {
  std::string disk(size, '\0');
  if (code) Put(disk, 0, "\xeb\x63\x90");
  Put(disk, 446,
      "\x80\0\0\0"s + Little(type, 1) + "\0\0\0"s + Little(2, 4) +
          Little(size / 512 - 2, 4));
  Put(disk, 510, "\x55\xaa");
  return disk;
}
// The same with a GPT, whose one partition is of EFI or of another kind.
std::string GptDisk(size_t size, bool efi, bool code, size_t sector = 512) {
  std::string disk = MbrDisk(size, 0xee, code);
  Put(disk, sector,
      "EFI PART"s + std::string(64, '\0') + Little(2, 8) + Little(128, 4) +
          Little(128, 4));
  const std::string type =
      efi ? "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\0\xa0\xc9\x3e\xc9\x3b"s
          : std::string(16, 'x');
  // The first entry is empty.
  Put(disk, 2 * sector + 128,
      type + std::string(16, 'u') + Little(34, 8) +
          Little(size / sector - 34, 8));
  return disk;
}
// Noise behind the first MiB, so that neither zlib nor zero detection bites.
void AddNoise(std::string& disk, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  for (size_t at = kMebi; at + 8 <= disk.size(); at += 8) {
    const uint64_t value = random();
    memcpy(disk.data() + at, &value, 8);
  }
}

ReadAt FromMemory(const std::string& bytes, uint64_t* read = nullptr) {
  return [&bytes, read](uint64_t offset, size_t size) {
    if (offset > bytes.size()) return ""s;
    std::string got = bytes.substr(offset, size);
    if (read != nullptr) *read += got.size();
    return got;
  };
}
ImageFacts Inspect(const std::string& bytes) {
  return InspectImage("x.img", bytes.size(), FromMemory(bytes));
}
// What InspectImage says, or "".
std::string Refusal(const std::string& bytes) {
  try {
    (void)Inspect(bytes);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL) << error.Sentence();
    EXPECT_THAT(error.Sentence(), StartsWith("Cannot use 'x.img': "));
    EXPECT_THAT(error.Sentence(), Not(testing::EndsWith(".")));
    return error.Sentence();
  }
}
std::string Describe(const ImageFacts& facts) {
  return fmt::format("{} {}{}{}", facts.format, facts.virtual_size,
                     facts.boots_bios ? " bios" : "",
                     facts.boots_uefi ? " uefi" : "");
}

// Makes images by qemu-img in a directory of its own.
class Qcow2File : public testing::Test {
 protected:
  void SetUp() override {
    if (system("command -v qemu-img qemu-io >/dev/null") != 0) {
      GTEST_SKIP() << "qemu-img is missing";
    }
    std::string name = testing::TempDir() + "/sbxfs-image.XXXXXX";
    dir_ = mkdtemp(name.data());
  }
  void TearDown() override {
    if (!dir_.empty()) fs::remove_all(dir_);
  }

  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
  }
  [[nodiscard]] std::string Read(const std::string& name) const {
    std::stringstream bytes;
    bytes << std::ifstream(dir_ / name, std::ios::binary).rdbuf();
    return bytes.str();
  }
  [[nodiscard]] bool Shell(const std::string& command) const {
    return system(
               ("cd " + dir_.string() + " && " + command + " >/dev/null 2>&1")
                   .c_str()) == 0;
  }
  // `disk` as qcow2.
  [[nodiscard]] std::string Convert(const std::string& disk,
                                    const std::string& options) const {
    Write("raw", disk);
    EXPECT_TRUE(
        Shell("qemu-img convert -f raw -O qcow2 " + options + " raw qcow2"))
        << options;
    return Read("qcow2");
  }

  static constexpr const char* kOptions[] = {
      "",
      "-o compat=0.10",
      "-o cluster_size=512",
      "-o cluster_size=2M",
      "-o extended_l2=on,cluster_size=128k",
      "-o preallocation=metadata",
      "-c",
      "-c -o cluster_size=4k",
      "-c -o compression_type=zstd",
      "-c -o extended_l2=on",
  };

  fs::path dir_;
};

TEST(ImageFile, Raw) {
  EXPECT_EQ(Describe(Inspect(MbrDisk(kMebi, 0x83))), "raw 1048576 bios");
  EXPECT_EQ(Describe(Inspect(MbrDisk(kMebi, 0x83, false))), "raw 1048576");
  EXPECT_EQ(Describe(Inspect(MbrDisk(kMebi, 0xef))), "raw 1048576 bios uefi");
  EXPECT_EQ(Describe(Inspect(GptDisk(kMebi, true, true))),
            "raw 1048576 bios uefi");
  EXPECT_EQ(Describe(Inspect(GptDisk(kMebi, true, false))), "raw 1048576 uefi");
  EXPECT_EQ(Describe(Inspect(GptDisk(kMebi, false, true))), "raw 1048576 bios");
  EXPECT_EQ(Describe(Inspect(GptDisk(kMebi, true, false, 4096))),
            "raw 1048576 uefi");
  // A boot sector without partitions, and a size in no whole sectors.
  std::string sector(700, '\0');
  Put(sector, 0, "\xfa");
  Put(sector, 510, "\x55\xaa");
  EXPECT_EQ(Describe(Inspect(sector)), "raw 1024 bios");
}

TEST(ImageFile, RawCutShort) {
  for (const std::string& disk :
       {MbrDisk(kMebi, 0x83), GptDisk(kMebi, true, true)}) {
    EXPECT_THAT(Refusal(disk.substr(0, disk.size() - 33 * 512 - 1)),
                HasSubstr("it is cut short"));
  }
  EXPECT_THAT(Refusal(MbrDisk(kMebi, 0x83).substr(0, 511)),
              HasSubstr("no disk image"));
}

TEST(ImageFile, OtherFormatsAreNamed) {
  std::string tar = "a";
  Put(tar, 257, "ustar");
  std::string ext(2048, '\0');
  Put(ext, 1080, "\x53\xef");
  std::string btrfs(70000, '\0');
  Put(btrfs, 65600, "_BHRfS_M");
  std::string fat(512, '\0');
  Put(fat, 0, "\xeb\x3c\x90mkfs.fat");
  Put(fat, 54, "FAT16   ");
  Put(fat, 446, "message text, not a partition table");
  Put(fat, 510, "\x55\xaa");
  const std::pair<std::string, const char*> kCases[] = {
      {"", "it is empty"},
      {"# Disk DescriptorFile\n", "VMDK descriptor, whose data is in other"},
      {"vhdxfile", "VHDX image; convert"},
      {"\x1f\x8b\x08", "compressed twice; unpack it by gunzip"},
      {"\xfd"
       "7zXZ\0\0\4"s,
       "compressed twice; unpack it by unxz"},
      {"\x28\xb5\x2f\xfd\0"s, "compressed twice; unpack it by unzstd"},
      {"BZh91AY", "compressed twice; unpack it by bunzip2"},
      {"PK\3\4", "a zip archive"},
      {tar, "a tar archive; unpack it by tar -xf"},
      {" \n<!DOCTYPE html><html>", "a web page"},
      {"\xef\xbb\xbf<HTML>", "a web page"},
      {"<?xml version='1.0'?><Error/>", "a web page"},
      {ext, "a bare ext file system"},
      {btrfs, "a bare btrfs file system"},
      {fat, "a bare FAT file system"},
      {"LUKS\xba\xbe", "LUKS"},
      {"hello", "it is no disk image"},
      {std::string(kMebi, '\0'), "it is no disk image"},
  };
  for (const auto& [bytes, reason] : kCases) {
    EXPECT_THAT(Refusal(bytes), HasSubstr(reason)) << bytes.substr(0, 40);
  }
}

TEST(ImageFile, AFixedVhdIsARawDisk) {
  EXPECT_EQ(Describe(Inspect(MbrDisk(kMebi, 0x83) + "conectix" +
                             std::string(504, '\0'))),
            "raw 1049088 bios");
}

// What CheckStandsAlone says, or "".
std::string Difference(const std::string& bytes) {
  try {
    CheckStandsAlone("x.img", bytes.size(), FromMemory(bytes));
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL);
    return error.Sentence();
  }
}

// Each may name a file that qemu-img would open with the hypervisor's rights.
TEST(ImageFile, WhatIsConvertedNamesNoOtherFile) {
  std::string vmdk(70000, '\0');
  Put(vmdk, 0, "KDMV\1\0\0\0\3\0\0\0"s + Little(2048, 8));
  Put(vmdk, 512, "# Disk DescriptorFile\nparentCID=ffffffff\n");
  EXPECT_EQ(FormatToConvert(vmdk.substr(0, 4096)), "vmdk");
  EXPECT_EQ(Difference(vmdk), "");
  std::string parent = vmdk;
  Put(parent, 9000, "parentFileNameHint=\"/etc/shadow\"\n");
  EXPECT_THAT(Difference(parent), HasSubstr("difference to another file"));
  std::string descriptor = vmdk;
  Put(descriptor, 12, Little(0, 8));
  EXPECT_THAT(Difference(descriptor), HasSubstr("data is in other files"));
  std::string sparse = "COWD" + std::string(4000, '\0');
  EXPECT_EQ(FormatToConvert(sparse), "vmdk");
  Put(sparse, 600, "parentFileNameHint=\"/etc/shadow\"\n");
  EXPECT_THAT(Difference(sparse), HasSubstr("difference to another file"));
  struct Case {
    const char* format;
    uint64_t magic_at;
    std::string magic;
    uint64_t at;  // of what tells a difference
    std::string no, yes;
  };
  const Case kCases[] = {
      {"vdi", 64, "\x7f\x10\xda\xbe", 76, Little(1, 4), Little(4, 4)},
      {"vpc", 0, "conectix", 60, Big(3, 4), Big(4, 4)},
      {"qed", 0, "QED\0"s, 16, Little(2, 8), Little(3, 8)},
      {"qcow", 0, "QFI\xfb\0\0\0\1"s, 8, Big(0, 8), Big(512, 8)},
  };
  for (const Case& one : kCases) {
    std::string image(4096, '\0');
    Put(image, one.magic_at, one.magic);
    EXPECT_EQ(FormatToConvert(image), one.format);
    Put(image, one.at, one.no);
    EXPECT_EQ(Difference(image), "") << one.format;
    Put(image, one.at, one.yes);
    EXPECT_THAT(Difference(image), HasSubstr("difference to another file"))
        << one.format;
    EXPECT_THAT(Difference(image.substr(0, 68)), HasSubstr("cut short"))
        << one.format;
  }
  for (const std::string& kept : {"QFI\xfb\0\0\0\2"s, "QFI\xfb\0\0\0\3"s,
                                  "vhdxfile"s, ""s, MbrDisk(4096, 0x83)}) {
    EXPECT_EQ(FormatToConvert(kept), "");
  }
}

TEST(ImageFile, Iso) {
  std::string iso(40 * 2048, '\0');
  Put(iso, 16 * 2048, "\1CD001");
  Put(iso, 16 * 2048 + 80, Little(40, 4));
  Put(iso, 16 * 2048 + 128, Little(2048, 2));
  EXPECT_EQ(Describe(Inspect(iso)), "iso 81920");
  Put(iso, 17 * 2048, "\0CD001\1EL TORITO SPECIFICATION"s);
  Put(iso, 17 * 2048 + 71, Little(20, 4));
  Put(iso, 20 * 2048, "\1"s);
  Put(iso, 20 * 2048 + 32, "\x88");
  EXPECT_EQ(Describe(Inspect(iso)), "iso 81920 bios");
  Put(iso, 20 * 2048 + 64, "\x91\xef");
  Put(iso, 20 * 2048 + 96, "\x88");
  EXPECT_EQ(Describe(Inspect(iso)), "iso 81920 bios uefi");
  EXPECT_THAT(Refusal(iso.substr(0, 39 * 2048)), HasSubstr("it is cut short"));
  Put(iso, 17 * 2048 + 71, Little(UINT32_MAX, 4));
  EXPECT_EQ(Describe(Inspect(iso)), "iso 81920");
}

TEST_F(Qcow2File, FactsHoweverItIsWritten) {
  // A size that is no multiple of any cluster.
  std::string disk = GptDisk(3 * kMebi + 512 * 7, true, true);
  AddNoise(disk);
  const std::string facts = fmt::format("qcow2 {} bios uefi", disk.size());
  for (const char* options : kOptions) {
    EXPECT_EQ(Describe(Inspect(Convert(disk, options))), facts) << options;
  }
  EXPECT_EQ(Describe(Inspect(Convert(MbrDisk(kMebi, 0x83), "-c"))),
            "qcow2 1048576 bios");
  EXPECT_EQ(Describe(Inspect(Convert(std::string(kMebi, '\0'), ""))),
            "qcow2 1048576");
}

TEST_F(Qcow2File, AsQemuLeavesThem) {
  for (const char* create :
       {"", "-o lazy_refcounts=on", "-o extended_l2=on", "-o cluster_size=512",
        "-o preallocation=falloc", "-o refcount_bits=64"}) {
    ASSERT_TRUE(Shell("qemu-img create -f qcow2 "s + create + " q 5000000"))
        << create;
    EXPECT_EQ(Describe(Inspect(Read("q"))), "qcow2 5000192") << create;
    ASSERT_TRUE(
        Shell("qemu-io -c 'write -P 1 4999680 512' -c 'write -P 0x55 510 1' "
              "-c 'write -P 0xaa 511 1' -c 'write -z 1M 1M' "
              "-c 'write -P 3 1500000 700' -c 'discard 3M 1M' q"))
        << create;
    EXPECT_EQ(Describe(Inspect(Read("q"))), "qcow2 5000192") << create;
    ASSERT_TRUE(Shell("qemu-img snapshot -c s q && qemu-img resize q 9M"));
    EXPECT_EQ(Describe(Inspect(Read("q"))), "qcow2 9437184") << create;
  }
}

TEST_F(Qcow2File, ReadsOnlyTheTables) {
  std::string disk = GptDisk(64 * kMebi, true, true);
  AddNoise(disk);
  const std::string image = Convert(disk, "");
  uint64_t read = 0;
  (void)InspectImage("x", image.size(), FromMemory(image, &read));
  EXPECT_LT(read, 600000);
}

// Wherever it is cut: either a refusal, or nothing of the disk was lost.
TEST_F(Qcow2File, CutShort) {
  std::string disk = GptDisk(2 * kMebi + 512 * 3, true, true);
  AddNoise(disk);
  std::mt19937 random(2);
  for (const char* options : kOptions) {
    const std::string image = Convert(disk, options);
    for (int i = 0; i < 60; ++i) {
      // Most of them near the end, where it is hardest to see.
      const size_t cut = i < 20   ? i + 1
                         : i < 40 ? random() % 70000 + 1
                                  : random() % image.size() + 1;
      const std::string rest = image.substr(0, image.size() - cut);
      if (!Refusal(rest).empty()) continue;
      EXPECT_LT(cut, image.size() / 2) << options;
      Write("cut", rest);
      EXPECT_TRUE(Shell("qemu-img compare -f qcow2 -F raw cut raw"))
          << options << ": " << cut << " of " << image.size();
    }
  }
}

// An image is a stranger's: damage gives a refusal or facts, never a crash, a
// hang or endless reading.
TEST_F(Qcow2File, Damaged) {
  std::string disk = GptDisk(kMebi + 64 * 1024, true, true);
  AddNoise(disk);
  std::mt19937 random(3);
  for (const char* options : kOptions) {
    const std::string image = Convert(disk, options);
    for (int i = 0; i < 300; ++i) {
      std::string damaged = image;
      // The header in half of the rounds, else any of the tables or clusters.
      const size_t range = i % 2 == 0 ? 120 : damaged.size();
      for (unsigned n = random() % 8 + 1; n > 0; --n) {
        damaged[random() % range] = static_cast<char>(
            random() % 3 == 0 ? 0xff : static_cast<int>(random()));
      }
      damaged.replace(0, 4, "QFI\xfb");
      uint64_t read = 0;
      try {
        (void)InspectImage("x", damaged.size(), FromMemory(damaged, &read));
      } catch (const Error& error) {
        EXPECT_EQ(error.Errno(), EINVAL) << error.Sentence();
      }
      EXPECT_LE(read, 4 * damaged.size() + 8 * kMebi) << options << i;
    }
  }
}

TEST_F(Qcow2File, RefusedFeatures) {
  const std::string good = Convert(MbrDisk(kMebi, 0x83), "");
  const struct {
    uint64_t offset;
    std::string bytes;
    const char* reason;
  } kCases[] = {
      {4, Big(4, 4), "qcow2 version is 4"},
      {8, Big(256, 8), "backing file"},
      {20, Big(22, 4), "clusters of 2^22"},
      {20, Big(8, 4), "clusters of 2^8"},
      {24, Big(0, 8), "no size"},
      {24, Big(UINT64_MAX, 8), "header is damaged: an L1 table"},
      {24, Big(uint64_t{1} << 45, 8), "header is damaged: an L1 table"},
      {32, Big(2, 4), "encrypted"},
      {36, Big(UINT32_MAX, 4), "header is damaged: an L1 table"},
      {36, Big(4 << 20, 4), "cut short: its L1 table"},
      {36, Big(0, 4), "header is damaged: an L1 table"},
      {40, Big(1, 8), "header is damaged: an L1 table"},
      {40, Big(uint64_t{1} << 62, 8), "cut short: its L1 table"},
      {48, Big(uint64_t{1} << 62, 8), "cut short: its refcount table"},
      {56, Big(UINT32_MAX, 4), "no sound refcount table"},
      {72, Big(1, 8), "marked as in use"},
      {72, Big(2, 8), "marked as corrupt"},
      {72, Big(4, 8), "data is in another file"},
      {72, Big(8, 8), "compression type 0"},
      {72, Big(32, 8), "features that are unknown here (bits 0x20)"},
      {104, Big(1, 1), "compression type 1"},
  };
  for (const auto& c : kCases) {
    std::string image = good;
    Put(image, c.offset, c.bytes);
    EXPECT_THAT(Refusal(image), HasSubstr(c.reason)) << c.offset;
  }
  // Two L1 entries for one table.
  std::string twice = Convert(MbrDisk(kMebi, 0x83), "-o cluster_size=512");
  uint64_t l1 = 0;
  for (const char byte : twice.substr(40, 8)) {
    l1 = l1 << 8 | static_cast<unsigned char>(byte);
  }
  Put(twice, l1 + 8, twice.substr(l1, 8));
  EXPECT_THAT(Refusal(twice), HasSubstr("entries 0 and 1 are the same"));
  EXPECT_THAT(Refusal(good.substr(0, 60)), HasSubstr("its header"));
}

TEST_F(Qcow2File, BackingAndDataFilesAsQemuMakesThem) {
  ASSERT_TRUE(
      Shell("qemu-img create -f qcow2 base 1M && qemu-img create -f qcow2 -b "
            "base -F qcow2 over && qemu-img create -f qcow2 -o "
            "data_file=d,data_file_raw=on ext 1M"));
  EXPECT_THAT(Refusal(Read("over")), HasSubstr("it has a backing file"));
  EXPECT_THAT(Refusal(Read("ext")), HasSubstr("its data is in another file"));
}

TEST(ImageFile, AFileThatEndsEarly) {
  const std::string disk = MbrDisk(kMebi, 0x83);
  try {
    (void)InspectImage("x", disk.size(), [&](uint64_t offset, size_t size) {
      return disk.substr(offset, size / 2);
    });
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EIO);
    EXPECT_THAT(error.Sentence(), StartsWith("Cannot read 'x': it ended"));
  }
}

}  // namespace
}  // namespace sbxfs
