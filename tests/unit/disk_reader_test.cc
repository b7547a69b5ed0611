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

}  // namespace
}  // namespace sbxfs
