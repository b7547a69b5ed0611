#include "backend/disk/disk_chain.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "backend/disk/root_partition.h"
#include "backend/util/error.h"
#include "tests/support/disk_images.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

constexpr size_t kBlock = 4096;

std::string BytesOf(const stdfs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class DiskChainTest : public DiskImages {
 protected:
  void Run(const std::string& command) const {
    Sh(fmt::format("cd {} && {}", dir_.string(), command));
  }
  // All that a chain of files in dir_ shows, the top first, read in pieces that
  // fit nothing.
  [[nodiscard]] std::string Shown(const std::vector<std::string>& names) const {
    std::vector<stdfs::path> paths;
    std::vector<ChainFile> files;
    for (const auto& name : names) {
      paths.push_back(dir_ / name);
      files.push_back(ChainFileOf(paths.back()));
    }
    DiskChain chain(files, ReadOf(paths));
    std::string bytes;
    while (bytes.size() < chain.Size()) {
      const std::string part = chain.Read(bytes.size(), 200'001);
      EXPECT_FALSE(part.empty());
      if (part.empty()) break;
      bytes += part;
    }
    EXPECT_EQ(chain.Read(chain.Size(), 1), "");
    return bytes;
  }
  [[nodiscard]] std::string Refusal(
      const std::vector<std::string>& names) const {
    try {
      (void)Shown(names);
      return "";
    } catch (const Error& error) {
      return fmt::format("{} {}", error.Errno(), error.Sentence());
    }
  }
  // Writes to an overlay what makes it show `now` where its base has `before`.
  void Overlay(const std::string& name, const std::string& before,
               const std::string& now, bool compressed) const {
    const size_t block = compressed ? 65536 : kBlock;
    std::string commands;
    for (size_t at = 0; at < now.size(); at += block) {
      const std::string is = now.substr(at, block);
      if (at < before.size() && before.compare(at, block, is) == 0) continue;
      if (is.find_first_not_of('\0') == is.npos) {
        commands += fmt::format("write -z {} {}\n", at, is.size());
        continue;
      }
      const std::string file = fmt::format("{}.{}", name, at);
      std::ofstream(dir_ / file, std::ios::binary) << is;
      commands += fmt::format("write {} -s {} {} {}\n", compressed ? "-c" : "",
                              file, at, is.size());
    }
    std::ofstream(dir_ / "commands") << commands;
    Run(fmt::format("qemu-io {} < commands && rm -f {}.[0-9]*", name, name));
  }
  void Put(const std::string& name, uint64_t offset,
           const std::string& bytes) const {
    std::fstream file(dir_ / name,
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file << bytes;
  }
};

struct ChainKinds {
  const char* base;
  const char* middle;
  const char* top;
};

class DiskChainKinds : public DiskChainTest,
                       public testing::WithParamInterface<ChainKinds> {};

TEST_P(DiskChainKinds, ShowsWhatQemuShows) {
  // Three states of a disk, with blocks that come, change and are zero again.
  std::string one(6 << 20, '\0');
  for (size_t at = 0; at < one.size(); at += kBlock) {
    if (at / kBlock % 3 != 0) one.replace(at, 8, fmt::format("{:8}", at));
  }
  std::string two = one;
  for (size_t at = 0; at < two.size(); at += 7 * kBlock) {
    two.replace(at, kBlock, std::string(kBlock, at % 2 == 0 ? 'x' : '\0'));
  }
  two.replace(1 << 20, 65536, std::string(65536, '\0'));
  std::string three = two + std::string(kBlock, 'y') + std::string(65536, '\0');
  three.replace(3 << 20, 3 * kBlock, std::string(3 * kBlock, 'z'));
  std::ofstream(dir_ / "one.raw", std::ios::binary) << one;
  const auto& [base, middle, top] = GetParam();
  const std::string bottom =
      std::string(base) == "raw" ? "one.raw" : "one.qcow2";
  if (bottom != "one.raw") {
    Run(fmt::format("qemu-img convert -O qcow2 {} one.raw one.qcow2", base));
  }
  Run(fmt::format("qemu-img create -q -f qcow2 -b {} -F {} {} two.qcow2",
                  bottom, ChainFileOf(dir_ / bottom).format, middle));
  const auto compressed = [](const std::string& options) {
    return options.find("compression") != options.npos;
  };
  Overlay("two.qcow2", one, two, compressed(middle));
  Run(fmt::format(
      "qemu-img create -q -f qcow2 -b two.qcow2 -F qcow2 {} three.qcow2 {}",
      top, three.size()));
  Overlay("three.qcow2", two, three, compressed(top));
  EXPECT_TRUE(Shown({bottom}) == one);
  EXPECT_TRUE(Shown({"two.qcow2", bottom}) == two);
  EXPECT_TRUE(Shown({"three.qcow2", "two.qcow2", bottom}) == three);
  Run("qemu-img convert -O raw three.qcow2 three.raw");
  EXPECT_TRUE(BytesOf(dir_ / "three.raw") == three);
}

INSTANTIATE_TEST_SUITE_P(
    All, DiskChainKinds,
    testing::Values(
        ChainKinds{"raw", "", ""},
        ChainKinds{"-c", "-o compat=0.10", "-o cluster_size=4096"},
        ChainKinds{"-c -o compression_type=zstd", "-o extended_l2=on", ""},
        ChainKinds{"-o cluster_size=2M", "-o cluster_size=512",
                   "-o extended_l2=on,cluster_size=128k"},
        ChainKinds{"", "-o compression_type=zstd", "-o compression_type=zlib"},
        ChainKinds{"-o lazy_refcounts=on", "-o lazy_refcounts=on", ""}));

TEST_F(DiskChainTest, RefusesWhatItCannotRead) {
  Run("qemu-img create -q -f qcow2 base.qcow2 4M");
  Run("qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2");
  EXPECT_EQ(Refusal({"top.qcow2", "base.qcow2"}), "");
  // Without what it stands on.
  EXPECT_THAT(Refusal({"top.qcow2"}), HasSubstr("has a backing file"));
  EXPECT_THAT(Refusal({}), HasSubstr("a chain of 0 files"));
  EXPECT_THAT(Refusal(std::vector<std::string>(300, "base.qcow2")),
              HasSubstr("a chain of 300 files"));
  Run("qemu-img create -q -f qcow2 -o data_file=data.raw,data_file_raw=on "
      "out.qcow2 1M");
  EXPECT_THAT(Refusal({"out.qcow2"}), HasSubstr("its data is in another file"));
  Run("qemu-img create -q -f qcow2 luks.qcow2 1M");
  Put("luks.qcow2", 32, std::string("\0\0\0\2", 4));
  EXPECT_THAT(Refusal({"luks.qcow2"}), HasSubstr("it is encrypted"));
  std::ofstream(dir_ / "not.qcow2") << std::string(1 << 20, 'x');
  EXPECT_THAT(Refusal({"not.qcow2"}), HasSubstr("it is no qcow2 file"));
  EXPECT_THAT(Refusal({"top.qcow2", "not.qcow2"}),
              HasSubstr("'not.qcow2': it is no qcow2 file"));
  // An unknown feature.
  Put("base.qcow2", 72, std::string("\x80", 1));
  EXPECT_THAT(Refusal({"base.qcow2"}), HasSubstr("are unknown here"));
}

TEST_F(DiskChainTest, RefusesDamage) {
  std::ofstream(dir_ / "one.raw") << std::string(4 << 20, 'x');
  Run("qemu-img convert -O qcow2 one.raw one.qcow2");
  const std::string whole = BytesOf(dir_ / "one.qcow2");
  stdfs::resize_file(dir_ / "one.qcow2", whole.size() - 100'000);
  EXPECT_THAT(Refusal({"one.qcow2"}), HasSubstr("it is cut short"));
  stdfs::resize_file(dir_ / "one.qcow2", 80);
  EXPECT_THAT(Refusal({"one.qcow2"}), HasSubstr("it is cut short"));
  std::ofstream(dir_ / "one.qcow2") << whole;
  // The L1 table at the end of all files.
  Put("one.qcow2", 40, std::string("\x7f\xff\xff\xff\xff\xff\0\0", 8));
  EXPECT_THAT(Refusal({"one.qcow2"}), StartsWith("22 Cannot use 'one.qcow2'"));
  std::ofstream(dir_ / "one.qcow2") << whole;
  // A disk of eight exabytes, for which its table is too short.
  Put("one.qcow2", 24, std::string("\x7f\xff\xff\xff\xff\xff\xff\xff", 8));
  EXPECT_THAT(Refusal({"one.qcow2"}), HasSubstr("its header is damaged"));
}

TEST_F(DiskChainTest, KnowsWhatIsOnADisk) {
  const auto content = [&](const std::string& head) {
    std::string bytes = head;
    bytes.resize(128 << 10, '\0');
    const ByteSource disk{"x", bytes.size(), [&](uint64_t at, size_t size) {
                            return bytes.substr(at, size);
                          }};
    const auto parts = ReadPartitions(disk);
    return parts.size() == 1 ? ContentOf(disk, parts[0]) : "parts";
  };
  EXPECT_EQ(content(""), "");
  EXPECT_EQ(content("XFSB"), "XFS");
  EXPECT_EQ(content(std::string(512, '\0') + "LABELONE"), "LVM");
  EXPECT_EQ(content("LUKS\xba\xbe"), "LUKS, which is encrypted");
  EXPECT_EQ(content(std::string(65600, '\0') + "_BHRfS_M"), "btrfs");
  EXPECT_EQ(content(std::string(4086, '\0') + "SWAPSPACE2"), "swap");
  EXPECT_EQ(content(std::string(1080, '\0') + "\x53\xef"), "ext4");
}

}  // namespace
}  // namespace sbxfs
