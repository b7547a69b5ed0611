// What a journal has that is not in place yet, as debugfs writes it, and as
// e2fsck plays it back.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

#include "backend/disk/ext_files.h"
#include "backend/util/error.h"
#include "tests/support/disk_images.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

constexpr size_t kBlock = 4096;

struct JournalKind {
  const char* mkfs;
  const char* open;  // options of debugfs's journal_open
};

class ExtJournalTest : public DiskImages,
                       public testing::WithParamInterface<JournalKind> {
 protected:
  void SetUp() override {
    DiskImages::SetUp();
    stdfs::create_directory(Source());
    std::string noise;
    for (int i = 0; i < 20'000; ++i) noise += fmt::format("{} ", i);
    std::ofstream(Source() / "noise") << noise;
    MakeExt("disk.raw",
            fmt::format("-t ext4 -b {} {}", kBlock, GetParam().mkfs), 16);
    before_ = Block("noise", 0);
  }
  // The block of the disk that has a file's.
  [[nodiscard]] std::string Place(const std::string& file, int block) const {
    const std::string command =
        fmt::format("debugfs -R 'bmap {} {}' {} 2> /dev/null", file, block,
                    (dir_ / "disk.raw").string());
    FILE* const pipe = popen(command.c_str(), "r");
    std::array<char, 64> said{};
    EXPECT_NE(fgets(said.data(), said.size(), pipe), nullptr);
    pclose(pipe);
    const std::string number(said.data());
    EXPECT_NE(std::atoi(number.c_str()), 0) << command;
    return number.substr(0, number.find('\n'));
  }
  [[nodiscard]] std::unique_ptr<ExtFiles> Files(
      const std::string& name = "disk.raw") const {
    return std::make_unique<ExtFiles>(
        [read = ReadOf({dir_ / name})](uint64_t offset, size_t size) {
          return read(0, offset, size);
        },
        stdfs::file_size(dir_ / name));
  }
  [[nodiscard]] std::string Block(const std::string& file, int block) const {
    const auto files = Files();
    return files->Read(files->Find(file), block * kBlock, kBlock);
  }
  // Writes transactions: each a list of jw's words, "TEXT" being a file that
  // begins so.
  void Write(const std::vector<std::string>& transactions) const {
    std::string commands = fmt::format("jo {}\n", GetParam().open);
    for (const auto& words : transactions) commands += "jw " + words + '\n';
    commands += "jc\n";
    std::ofstream(dir_ / "commands") << commands;
    Sh(fmt::format("cd {} && debugfs -w -f commands disk.raw", dir_.string()));
  }
  // A file of that many blocks that begin with `text`.
  [[nodiscard]] std::string Blocks(const std::string& name,
                                   const std::string& text,
                                   int count = 1) const {
    std::string block = text;
    block.resize(kBlock, '.');
    std::string all;
    for (int i = 0; i < count; ++i) all += block;
    std::ofstream(dir_ / name, std::ios::binary) << all;
    return (dir_ / name).string();
  }
  // That e2fsck, playing it back, comes to the same block.
  void ExpectAsByE2fsck(const std::string& file, int block) const {
    stdfs::copy_file(dir_ / "disk.raw", dir_ / "played.raw",
                     stdfs::copy_options::overwrite_existing);
    Sh(fmt::format("cd {} && e2fsck -fy -E journal_only played.raw",
                   dir_.string()));
    const auto played = Files("played.raw");
    EXPECT_EQ(played->Replayed(), 0U);
    EXPECT_TRUE(played->Read(played->Find(file), block * kBlock, kBlock) ==
                Block(file, block));
  }

  std::string before_;
};

TEST_P(ExtJournalTest, WhatIsCommittedIsShown) {
  EXPECT_EQ(Files()->Replayed(), 0U);
  const std::string one = Blocks("one", "new");
  const std::string two = Blocks("two", "newer");
  Write({fmt::format("-b {} {}", Place("/noise", 0), one),
         fmt::format("-b {},{} {}", Place("/noise", 3), Place("/noise", 0),
                     Blocks("both", "newest", 2)),
         fmt::format("-b {} {}", Place("/noise", 5), two)});
  EXPECT_EQ(Files()->Replayed(), 3U);
  EXPECT_TRUE(Block("noise", 0).starts_with("newest."));
  EXPECT_TRUE(Block("noise", 3).starts_with("newest."));
  EXPECT_TRUE(Block("noise", 5).starts_with("newer."));
  ExpectAsByE2fsck("noise", 0);
  ExpectAsByE2fsck("noise", 5);
}

TEST_P(ExtJournalTest, WhatIsRevokedOrNotCommittedIsNot) {
  Write(
      {fmt::format("-b {} {}", Place("/noise", 0), Blocks("one", "new")),
       fmt::format("-r {}", Place("/noise", 0)),
       fmt::format("-b {} {}", Place("/noise", 1), Blocks("two", "two")),
       fmt::format("-b {} -c {}", Place("/noise", 2), Blocks("open", "open"))});
  EXPECT_EQ(Files()->Replayed(), 1U);
  EXPECT_TRUE(Block("noise", 0) == before_);
  EXPECT_TRUE(Block("noise", 1).starts_with("two."));
  EXPECT_FALSE(Block("noise", 2).starts_with("open."));
  ExpectAsByE2fsck("noise", 0);
  ExpectAsByE2fsck("noise", 1);
}

TEST_P(ExtJournalTest, ABlockThatLooksLikeTheJournalsIsWhole) {
  Write({fmt::format("-b {} {}", Place("/noise", 0),
                     Blocks("magic", "\xc0\x3b\x39\x98 and more"))});
  EXPECT_TRUE(Block("noise", 0).starts_with("\xc0\x3b\x39\x98 and more."));
  ExpectAsByE2fsck("noise", 0);
}

TEST_P(ExtJournalTest, ADamagedOneIsLeftOut) {
  const std::string in_journal = Place("<8>", 1);
  Write({fmt::format("-b {} {}", Place("/noise", 0), Blocks("one", "new"))});
  EXPECT_EQ(Files()->Replayed(), 1U);
  // Its first descriptor, and then its superblock.
  for (const int block : {0, -1}) {
    std::fstream file(dir_ / "disk.raw",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>((std::stoull(in_journal) + block) *
                                           kBlock));
    file << "damage";
    file.close();
    EXPECT_EQ(Files()->Replayed(), 0U);
    EXPECT_TRUE(Block("noise", 0) == before_);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ExtJournalTest,
    testing::Values(JournalKind{"-O ^metadata_csum,^64bit", ""},
                    JournalKind{"-O ^metadata_csum,64bit", ""},
                    JournalKind{"-O metadata_csum", "-c"},
                    JournalKind{"-O metadata_csum", "-c -v 2"},
                    JournalKind{"-O metadata_csum,^64bit", "-c -v 2"},
                    JournalKind{"-O metadata_csum", "-c -v 3"}));

}  // namespace
}  // namespace sbxfs
