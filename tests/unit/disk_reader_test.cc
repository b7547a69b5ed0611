#include "backend/disk/disk_reader.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <memory>

#include "backend/util/error.h"
#include "tests/support/disk_images.h"

namespace sbxfs {
namespace {

using testing::HasSubstr;

// What is on a disk of this machine, read in this process.
class TreeOfReader : public FileTree {
 public:
  explicit TreeOfReader(const std::vector<std::filesystem::path>& paths)
      : reader_(std::make_shared<DiskReader>(Chain(paths), ReadOf(paths))) {}

  FileFacts Look(const std::string& path) override {
    return reader_->Files().Look(path);
  }
  std::vector<Entry> List(const std::string& path) override {
    return reader_->Files().List(path);
  }
  std::string Target(const std::string& path) override {
    return reader_->Files().Target(path);
  }
  FileSpace Space(const std::string&) override {
    return reader_->Files().Space();
  }
  std::unique_ptr<Opened> Open(const std::string& path, int, mode_t) override {
    return std::make_unique<File>(reader_, reader_->Files().Find(path));
  }
  [[nodiscard]] ExtFiles& Files() { return reader_->Files(); }

 private:
  class File : public Opened {
   public:
    File(std::shared_ptr<DiskReader> reader, uint64_t number)
        : reader_(std::move(reader)), number_(number) {}
    std::string Read(uint64_t offset, size_t size) override {
      return reader_->Files().Read(number_, offset, size);
    }

   private:
    const std::shared_ptr<DiskReader> reader_;
    const uint64_t number_;
  };
  static std::vector<ChainFile> Chain(
      const std::vector<std::filesystem::path>& paths) {
    std::vector<ChainFile> files;
    for (const auto& path : paths) files.push_back(ChainFileOf(path));
    return files;
  }

  const std::shared_ptr<DiskReader> reader_;
};

class DiskReaderTest : public DiskImages {
 protected:
  // Of a chain of files in dir_, the top first.
  [[nodiscard]] TreeOfReader Tree(const std::vector<std::string>& names) const {
    std::vector<std::filesystem::path> paths;
    for (const auto& name : names) paths.push_back(dir_ / name);
    return TreeOfReader(paths);
  }
  // The errno and sentence of what reading that disk comes to.
  [[nodiscard]] std::string Refusal(
      const std::vector<std::string>& names) const {
    try {
      TreeOfReader tree = Tree(names);
      (void)LinesOf(tree);
      return "";
    } catch (const Error& error) {
      return fmt::format("{} {}", error.Errno(), error.Sentence());
    }
  }
  void Put(const std::string& name, uint64_t offset,
           const std::string& bytes) const {
    std::fstream file(dir_ / name,
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file << bytes;
  }
};

class DiskReaderOptions : public DiskReaderTest,
                          public testing::WithParamInterface<const char*> {};

TEST_P(DiskReaderOptions, ReadsWhatMkfsWrote) {
  MakeExt("disk.raw", GetParam());
  TreeOfReader tree = Tree({"disk.raw"});
  EXPECT_EQ(Differences(LinesOf(tree), LinesOf(Source())), "");
  const FileSpace space = tree.Space("");
  EXPECT_EQ(space.block * space.blocks, 64U << 20);
  EXPECT_LE(space.available, space.free);
  EXPECT_LT(space.free, space.blocks);
  EXPECT_GT(space.free_files, 0U);
  EXPECT_LT(space.free_files, space.files);
}

INSTANTIATE_TEST_SUITE_P(
    All, DiskReaderOptions,
    testing::Values("-t ext4", "-t ext2", "-t ext3", "-t ext4 -b 1024",
                    "-t ext4 -O inline_data -I 256",
                    "-t ext4 -O inline_data -I 1024",
                    "-t ext4 -I 128 -O ^metadata_csum,^64bit",
                    "-t ext4 -O bigalloc",
                    "-t ext4 -O ^flex_bg,meta_bg,^resize_inode",
                    "-t ext4 -O metadata_csum_seed,large_dir"));

TEST_F(DiskReaderTest, FindsTheRootAmongPartitions) {
  MakeExt("root.raw", "-t ext4", 48);
  std::filesystem::remove_all(Source() / "etc");
  // A larger one that is no root.
  MakeExt("data.raw", "-t ext4", 64);
  const auto assemble = [&](const std::string& table) {
    Sh(fmt::format(
        "cd {} && rm -f disk.raw && truncate -s 130M disk.raw && "
        "printf '{}' | sfdisk -q disk.raw && "
        "dd if=data.raw of=disk.raw bs=1M seek=2 conv=notrunc status=none && "
        "dd if=root.raw of=disk.raw bs=1M seek=68 conv=notrunc status=none",
        dir_.string(), table));
  };
  const auto has_etc = [&](const std::vector<std::string>& names) {
    TreeOfReader tree = Tree(names);
    return S_ISDIR(tree.Look("etc").mode) &&
           tree.Look("etc/hostname").size == 4;
  };
  assemble("label: gpt\\n1M,1M,U\\n2M,64M,L\\n68M,48M,L\\n");
  EXPECT_TRUE(has_etc({"disk.raw"}));
  assemble(
      "label: gpt\\n2M,64M,L\\n68M,48M,"
      "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\\n");
  EXPECT_TRUE(has_etc({"disk.raw"}));
  assemble("label: dos\\n2M,64M,L\\n68M,48M,L,*\\n");
  EXPECT_TRUE(has_etc({"disk.raw"}));
  // Logical ones, each behind a table of its own.
  assemble("label: dos\\n1M,128M,E\\n2M,64M,L\\n68M,48M,L\\n");
  EXPECT_TRUE(has_etc({"disk.raw"}));
  Sh(fmt::format("cd {} && qemu-img convert -c -O qcow2 disk.raw disk.qcow2",
                 dir_.string()));
  EXPECT_TRUE(has_etc({"disk.qcow2"}));
  // The one that is no root, where there is no other.
  assemble("label: gpt\\n2M,64M,L\\n");
  TreeOfReader tree = Tree({"disk.raw"});
  EXPECT_EQ(Differences(LinesOf(tree), LinesOf(Source())), "");
}

TEST_F(DiskReaderTest, SaysWhatIsThereInstead) {
  Sh(fmt::format("cd {} && truncate -s 32M disk.raw", dir_.string()));
  EXPECT_EQ(Refusal({"disk.raw"}),
            fmt::format("{} Cannot read the disk: there is no file system on "
                        "it that is known; start the sandbox to see its files",
                        EOPNOTSUPP));
  Sh(fmt::format(
      "cd {} && printf 'label: gpt\\n1M,8M,U\\n9M,8M,L\\n17M,8M,S\\n' "
      "| sfdisk -q disk.raw",
      dir_.string()));
  Put("disk.raw", (1 << 20) + 82, "FAT32");
  Put("disk.raw", 9 << 20, "XFSB");
  Put("disk.raw", (17 << 20) + 4086, "SWAPSPACE2");
  EXPECT_THAT(Refusal({"disk.raw"}),
              HasSubstr("it has FAT and XFS and swap, and of a disk at rest "
                        "ext2, ext3 and ext4 can be read; start the sandbox"));
}

TEST_F(DiskReaderTest, TellsEachErrno) {
  MakeExt("disk.raw", "-t ext4 -O encrypt");
  Sh(fmt::format(
      "cd {} && debugfs -w -R 'set_inode_field /noise flags 0x80800' "
      "disk.raw",
      dir_.string()));
  TreeOfReader tree = Tree({"disk.raw"});
  const auto number = [&](const std::function<void()>& call) {
    try {
      call();
      return 0;
    } catch (const Error& error) {
      return error.Errno();
    }
  };
  const auto open = [&](const std::string& path) {
    return number([&] { (void)tree.Open(path, 0, 0); });
  };
  EXPECT_EQ(open("none"), ENOENT);
  EXPECT_EQ(open("etc/none"), ENOENT);
  EXPECT_EQ(open("empty/none"), ENOTDIR);
  EXPECT_EQ(open("short-link/none"), ENOTDIR);
  EXPECT_EQ(open("etc"), EISDIR);
  EXPECT_EQ(open(""), EISDIR);
  EXPECT_EQ(open("fifo"), ENXIO);
  EXPECT_EQ(open("short-link"), ELOOP);
  EXPECT_EQ(open("noise"), EACCES);
  EXPECT_EQ(open(std::string(5000, 'x')), ENAMETOOLONG);
  EXPECT_EQ(number([&] { (void)tree.List("empty"); }), ENOTDIR);
  EXPECT_EQ(number([&] { (void)tree.Target("empty"); }), EINVAL);
  EXPECT_EQ(number([&] { (void)tree.Files().Read(99'999'999, 0, 1); }), EIO);
  EXPECT_EQ(number([&] { (void)tree.Files().Read(2, 0, 1); }), EBADF);
  EXPECT_EQ(number([&] { tree.Remove("empty"); }), EROFS);
}

TEST_F(DiskReaderTest, HasTimesToTheNanosecondAndBeyond2038) {
  MakeExt("disk.raw", "-t ext4 -I 256");
  // 2^32 more seconds, and 123456789 ns.
  Sh(
      fmt::format("cd {} && debugfs -w -R 'set_inode_field /empty mtime_extra "
                  "{:#x}' disk.raw",
                  dir_.string(), 123'456'789U << 2 | 1));
  TreeOfReader tree = Tree({"disk.raw"});
  const auto since = tree.Look("empty").modified.time_since_epoch();
  EXPECT_EQ(std::chrono::nanoseconds(since).count(),
            (1'234'567'890LL + (1LL << 32)) * 1'000'000'000 + 123'456'789);
}

}  // namespace
}  // namespace sbxfs
