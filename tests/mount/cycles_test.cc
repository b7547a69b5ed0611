// What a sandbox's whole life takes of the daemon, it gives back: descriptors,
// threads and memory.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <string>

#include "backend/util/text.h"
#include "backend/util/unique_fd.h"
#include "tests/support/mounted.h"
#include "tests/support/wrapper.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

struct Taken {
  size_t descriptors = 0;
  size_t threads = 0;
  size_t kibibytes = 0;  // resident
};

class CyclesTest : public Mounted {
 protected:
  // Nothing of a sandbox is kept for later.
  [[nodiscard]] std::string Options() const override {
    return "loglevel=error";
  }

  [[nodiscard]] Taken Now() const {
    // The holder's child is who serves.
    const std::string server =
        "/proc/" + std::string(Trim(ReadText(
                       fmt::format("/proc/{0}/task/{0}/children", Daemon()))));
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
      if (key == "VmRSS:") taken.kibibytes = value;
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

  // One of that name comes, is used, and goes.
  void Cycle(const std::string& name) {
    const stdfs::path box = Dir() / name;
    ASSERT_EQ(mkdir(box.c_str(), 0700), 0) << errno;
    for (const char* file :
         {"", "status", "config.yaml", "effective.yaml", "ip", "ssh_port",
          "domain.xml", "error", "progress", "snapshots", "exec", "ports",
          "none", "fs/etc"}) {
      Look(box / file);
    }
    EXPECT_EQ(WriteText(box / "config.yaml", "cpus: 1\nmemory: 64MiB\n"),
              Verdict{});
    EXPECT_EQ(WriteText(box / "config.yaml", "cpus: many\n").error, EINVAL);
    ASSERT_EQ(unlink((box / "config.yaml.rejected").c_str()), 0) << errno;
    EXPECT_EQ(WriteText(box / "status", "fly\n").error, EINVAL);
    EXPECT_EQ(WriteText(box / "status", "start\n", O_NONBLOCK), Verdict{});
    Look(box / "status");
    const UniqueFd open_yet(open((box / "status").c_str(), O_RDONLY));
    EXPECT_EQ(WriteText(box / "status", "kill\n"), Verdict{});
    (void)!mkdir((box / "snapshots/one").c_str(), 0700);
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
  const int cycles = LongRun() ? 100'000 : 400;
  // Buffers that are bounded fill first: events, errors, the allocator's own.
  const int warm_up = cycles / 4;
  Taken before;
  for (int i = 0; i < warm_up + cycles; ++i) {
    if (i == warm_up) before = Now();
    ASSERT_NO_FATAL_FAILURE(Cycle(fmt::format("box{}", i)));
  }
  Taken after;
  // Threads that wait for work end after a while.
  EXPECT_TRUE(Eventually([&] {
    after = Now();
    return after.threads <= before.threads &&
           after.descriptors <= before.descriptors;
  })) << after.threads
      << " threads, before " << before.threads << "; " << after.descriptors
      << " descriptors, before " << before.descriptors;
  std::printf("cycles: %d, %zu threads, %zu descriptors, %zu KiB more\n",
              cycles, after.threads, after.descriptors,
              after.kibibytes - std::min(before.kibibytes, after.kibibytes));
  // One byte in a hundred thousand is not seen, forty are.
  if (!IsWrapped()) {
    EXPECT_LT(after.kibibytes, before.kibibytes + 4096);
  }
}

}  // namespace
}  // namespace sbxfs
