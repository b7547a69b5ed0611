#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>
#include <thread>

#include "backend/disk/confine.h"
#include "backend/disk/reader_process.h"
#include "backend/disk/reader_server.h"
#include "backend/util/error.h"
#include "tests/support/disk_images.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using namespace std::chrono_literals;
using testing::HasSubstr;

// What a call throws: its errno and sentence.
template <typename F>
std::string Thrown(F&& call) {
  try {
    (void)call();
    return "";
  } catch (const Error& error) {
    return fmt::format("{} {}", error.Errno(), error.Sentence());
  }
}

class DiskProcessTest : public DiskImages {
 protected:
  [[nodiscard]] static ReaderProcess::Settings OurProgram() {
    ReaderProcess::Settings settings;
    settings.program = SBXFS_BIN_DIR "/sbxfs";
    return settings;
  }
  [[nodiscard]] std::shared_ptr<ReaderProcess> Process(
      const std::string& name, ReaderProcess::Settings settings) const {
    return std::make_shared<ReaderProcess>(
        std::vector<ChainFile>{ChainFileOf(dir_ / name)}, ReadOf({dir_ / name}),
        std::move(settings));
  }
  // One that says what a script says to its socket.
  [[nodiscard]] ProcessTree Instead(const std::string& script) const {
    std::ofstream(dir_ / "script") << "#!/bin/sh\n" << script << '\n';
    stdfs::permissions(dir_ / "script", stdfs::perms::owner_all);
    ReaderProcess::Settings settings;
    settings.program = dir_ / "script";
    settings.thinking = 300ms;
    return ProcessTree(Process("disk.raw", settings));
  }
};

TEST_F(DiskProcessTest, ReadsWhatIsThere) {
  MakeExt("disk.raw", "-t ext4");
  ProcessTree tree(Process("disk.raw", OurProgram()));
  EXPECT_EQ(Differences(LinesOf(tree), LinesOf(Source())), "");
  EXPECT_THAT(Thrown([&] { return tree.Look("none").mode; }),
              HasSubstr("2 Cannot find '/none': there is no such file"));
  EXPECT_THAT(Thrown([&] { return tree.Open("empty", O_RDWR, 0); }),
              HasSubstr(fmt::format("{} Cannot change 'empty'", EROFS)));
  // One that was opened is good for as long as anybody has it.
  std::unique_ptr<FileTree::Opened> file;
  {
    ProcessTree other(Process("disk.raw", OurProgram()));
    file = other.Open("etc/hostname", O_RDONLY, 0);
  }
  EXPECT_EQ(file->Look().size, 4U);
  EXPECT_EQ(file->Read(0, 100), "box\n");
  EXPECT_EQ(file->Read(2, 1), "x");
  EXPECT_EQ(file->Read(4, 100), "");
}

// Whatever it parses, it can do nothing but talk.
TEST_F(DiskProcessTest, IsConfined) {
  MakeExt("disk.raw", "-t ext4");
  ProcessTree tree(Process("disk.raw", OurProgram()));
  (void)tree.Look("");
  int found = 0;
  for (const auto& entry : stdfs::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "status");
    std::ostringstream text;
    text << file.rdbuf();
    if (text.str().find(fmt::format("PPid:\t{}\n", getpid())) ==
            std::string::npos ||
        !text.str().starts_with(fmt::format("Name:\t{}\n", kDiskReader))) {
      continue;
    }
    ++found;
    EXPECT_EQ(text.str().find("Seccomp:\t2\n") != std::string::npos,
              CanConfine());
    size_t files = 0;
    for (const auto& fd : stdfs::directory_iterator(entry.path() / "fd")) {
      files += fd.exists() ? 1 : 1;
    }
    EXPECT_EQ(files, 4U);
  }
  EXPECT_EQ(found, 1);
}

TEST_F(DiskProcessTest, ServesManyAtOnce) {
  MakeExt("disk.raw", "-t ext4");
  ProcessTree tree(Process("disk.raw", OurProgram()));
  const FileLines lines = LinesOf(Source());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&] { EXPECT_EQ(Differences(LinesOf(tree), lines), ""); });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(DiskProcessTest, TellsWhyBytesAreOutOfReach) {
  MakeExt("disk.raw", "-t ext4");
  std::atomic<bool> lost = true;
  const auto read = ReadOf({dir_ / "disk.raw"});
  ProcessTree tree(std::make_shared<ReaderProcess>(
      std::vector<ChainFile>{ChainFileOf(dir_ / "disk.raw")},
      [&](size_t file, uint64_t offset, size_t size) {
        if (lost) throw Error(ESTALE, "Cannot read volume 'x': it is gone");
        return read(file, offset, size);
      },
      OurProgram()));
  const std::string gone =
      fmt::format("{} Cannot read volume 'x': it is gone", ESTALE);
  EXPECT_EQ(Thrown([&] { return tree.Look("").mode; }), gone);
  lost = false;
  EXPECT_TRUE(S_ISDIR(tree.Look("").mode));
  const auto file = tree.Open("noise", O_RDONLY, 0);
  lost = true;
  EXPECT_EQ(Thrown([&] { return file->Read(2'000'000, 100); }), gone);
  lost = false;
  EXPECT_EQ(file->Read(2'000'000, 100).size(), 100U);
}

TEST_F(DiskProcessTest, OutlivesWhatItsReaderDoes) {
  std::ofstream(dir_ / "disk.raw") << std::string(1 << 20, 'x');
  const auto look = [](ProcessTree tree) {
    return Thrown([&] { return tree.Look("").mode; });
  };
  EXPECT_THAT(look(Instead("exit 0")),
              HasSubstr("what read its file system has ended"));
  EXPECT_THAT(look(Instead("kill -SEGV $$")),
              HasSubstr("what read its file system has ended"));
  EXPECT_THAT(look(Instead("exec sleep 1000")),
              HasSubstr(fmt::format(
                  "{} Cannot read the disk: it takes too long", ETIMEDOUT)));
  EXPECT_THAT(look(Instead("head -c 5000 /dev/urandom >&3; exec sleep 1000")),
              HasSubstr("Cannot read the disk"));
  // Zeros are a question, which is not for it to ask.
  EXPECT_THAT(look(Instead("head -c 5 /dev/zero >&3; exec sleep 1000")),
              HasSubstr("its reader makes no sense"));
  // Bytes of a file that there is none of; of more than there is.
  EXPECT_THAT(look(Instead("printf '\\030\\0\\0\\0\\011\\1\\0\\0\\0\\0\\0\\0\\0"
                           "\\0\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0' "
                           ">&3; exec sleep 1000")),
              HasSubstr("asks for what is not there"));
  EXPECT_THAT(
      look(Instead("printf '\\377\\377\\377\\377\\7' >&3; exec sleep 1000")),
      HasSubstr("make no sense"));
  // An answer that is cut short.
  EXPECT_THAT(look(Instead("printf '\\0\\0\\0\\0\\7\\0\\0\\0\\0\\7' >&3; "
                           "exec sleep 1000")),
              HasSubstr("are cut short"));
  // And is not tried for ever.
  ProcessTree tree = Instead("exit 0");
  for (int i = 0; i < 5; ++i) (void)look(tree);
  EXPECT_THAT(look(tree), HasSubstr("ended 5 times"));
}

// Damage in every place: what comes of it is an answer or an Error, in time.
TEST_F(DiskProcessTest, OutlivesDamagedFileSystems) {
  MakeExt("disk.raw", "-t ext4 -O ^metadata_csum -N 2048", 16);
  stdfs::remove_all(Source() / "many");
  MakeExt("disk.raw", "-t ext4 -O ^metadata_csum -N 2048", 16);
  std::mt19937 random(11);
  for (int i = 0; i < 30; ++i) {
    stdfs::copy_file(dir_ / "disk.raw", dir_ / "hurt.raw",
                     stdfs::copy_options::overwrite_existing);
    {
      std::fstream file(dir_ / "hurt.raw",
                        std::ios::in | std::ios::out | std::ios::binary);
      for (int j = 0; j < 400; ++j) {
        // The tables are in its first MiB.
        file.seekp(1024 + static_cast<int>(random() % (1 << 20)));
        file.put(static_cast<char>(random()));
      }
    }
    ProcessTree tree(Process("hurt.raw", OurProgram()));
    for (const char* directory : {"", "etc", "lost+found"}) {
      (void)Thrown([&] {
        for (const auto& [name, facts] : tree.List(directory)) {
          const std::string path = fmt::format("{}/{}", directory, name);
          (void)Thrown(
              [&] { return tree.Open(path, O_RDONLY, 0)->Read(0, 100'000); });
          (void)Thrown([&] { return tree.Target(path); });
          (void)Thrown([&] { return tree.List(path); });
          (void)Thrown([&] { return tree.Space(path).blocks; });
        }
        return 0;
      });
    }
  }
}

}  // namespace
}  // namespace sbxfs
