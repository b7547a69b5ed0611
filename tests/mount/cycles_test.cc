// What a sandbox's whole life takes of the daemon, it gives back: descriptors,
// threads and memory.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <sstream>
#include <string>

#include "backend/util/unique_fd.h"
#include "tests/support/mounted.h"
#include "tests/support/wrapper.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

struct Taken {
  size_t descriptors = 0;
  size_t threads = 0;
  size_t kibibytes = 0;  // of memory that is its own
};

class CyclesTest : public Mounted {
 protected:
  // Hundreds of thousands of lines of what went well are not wanted.
  [[nodiscard]] std::string Options() const override {
    return "loglevel=error";
  }

  [[nodiscard]] Taken Now() const {
    // The holder's child is who serves.
    const std::string server = fmt::format("/proc/{}", ChildOf(Daemon()));
    Taken taken;
    for ([[maybe_unused]] const auto& fd :
         stdfs::directory_iterator(server + "/fd")) {
      ++taken.descriptors;
    }
    std::istringstream lines(ReadText(server + "/status"));
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string key;
      size_t value = 0;
      words >> key >> value;
      if (key == "Threads:") taken.threads = value;
      if (key == "RssAnon:") taken.kibibytes = value;
    }
    return taken;
  }

  void Look(const stdfs::path& path) const {
    struct stat info {};
    (void)!stat(path.c_str(), &info);
    if (!S_ISDIR(info.st_mode)) {
      (void)ReadText(path);
      return;
    }
    for (const auto& entry : stdfs::directory_iterator(path)) {
      (void)!lstat(entry.path().c_str(), &info);
    }
  }

  // One of that name comes, is used, and goes; `all`: what takes long, too.
  void Cycle(const std::string& name, bool all) {
    const stdfs::path box = Dir() / name;
    ASSERT_EQ(mkdir(box.c_str(), 0700), 0) << errno;
    for (const char* file : {"status", "config.yaml", "ip", "error",
                             "snapshots", "exec", "ports", "none"}) {
      Look(box / file);
    }
    if (all) {
      for (const char* file : {"", "effective.yaml", "domain.xml", "fs/etc"}) {
        Look(box / file);
      }
    }
    EXPECT_EQ(WriteText(box / "config.yaml", "cpus: 1\nmemory: 64MiB\n"),
              Verdict{});
    EXPECT_EQ(WriteText(box / "config.yaml", "cpus: many\n").error, EINVAL);
    ASSERT_EQ(unlink((box / "config.yaml.rejected").c_str()), 0) << errno;
    EXPECT_EQ(WriteText(box / "status", "start\n", O_NONBLOCK), Verdict{});
    const UniqueFd open_yet(open((box / "status").c_str(), O_RDONLY));
    EXPECT_EQ(WriteText(box / "status", "kill\n"), Verdict{});
    (void)!mkdir((box / "exec/1").c_str(), 0700);
    (void)!rmdir((box / "exec/1").c_str());
    const stdfs::path other = box.string() + "-b";
    ASSERT_EQ(rename(box.c_str(), other.c_str()), 0) << errno;
    ASSERT_EQ(rmdir(other.c_str()), 0) << errno;
    ASSERT_EQ(rmdir((Dir() / ".host/trash" / other.filename()).c_str()), 0)
        << errno;
  }
};

TEST_F(CyclesTest, NothingIsLeftOfThem) {
  const int cycles = LongRun() ? 100'000 : 200;
  // Until events and the audit are as long as they get, 1 MiB each.
  const int warm_up = LongRun() ? 10'000 : 50;
  Taken before;
  for (int i = 0; i < warm_up + cycles; ++i) {
    if (i == warm_up) before = Now();
    ASSERT_NO_FATAL_FAILURE(Cycle(fmt::format("box{}", i), i % 20 == 0));
    ASSERT_FALSE(HasFailure()) << "cycle " << i;
  }
  Taken after;
  // What ends just now has its descriptors for a moment yet.
  EXPECT_TRUE(Eventually([&] {
    after = Now();
    return after.descriptors <= before.descriptors;
  })) << after.descriptors
      << " descriptors, before " << before.descriptors;
  // As many workers as were ever busy at a time stay.
  EXPECT_LE(after.threads, before.threads + 8);
  fmt::print(
      "{} cycles: threads {} to {}, descriptors {} to {}, KiB {} to {}\n",
      cycles, before.threads, after.threads, before.descriptors,
      after.descriptors, before.kibibytes, after.kibibytes);
  // Forty bytes a cycle.
  if (LongRun() && !IsWrapped()) {
    EXPECT_LT(after.kibibytes, before.kibibytes + 4096);
  }
}

}  // namespace
}  // namespace sbxfs
