// Many guests that run at once, on one daemon: all their files are read by many
// at a time, and what was taken for it is given back. 64 of them in a long run,
// which takes 4 GiB of memory.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace stdfs = std::filesystem;

class ManyTest : public BlankGuests {
 protected:
  static int Count() { return LongRun() ? 64 : 8; }
  static std::string NameOf(int number) {
    return fmt::format("m{:02}", number);
  }

  // Entries of a directory in /proc of the daemon's.
  [[nodiscard]] long CountOf(const std::string& what) const {
    const stdfs::path dir = fmt::format("/proc/{}/{}", mount_->Server(), what);
    return std::distance(stdfs::directory_iterator(dir),
                         stdfs::directory_iterator());
  }

  // Runs `work` for each of the sandboxes, some at a time.
  static void ForEach(int threads,
                      const std::function<void(const std::string&)>& work) {
    std::atomic<int> next = 0;
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) {
      workers.emplace_back([&] {
        for (int n = next++; n < Count(); n = next++) work(NameOf(n));
      });
    }
    for (auto& worker : workers) worker.join();
  }
};

// Reads a file as a program would that does not want to wait; the errno.
int ReadOnce(const stdfs::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return errno;
  std::string buffer(1 << 16, '\0');
  int error = 0;
  for (int i = 0; i < 16; ++i) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0) error = errno;
    if (got <= 0) break;
  }
  close(fd);
  return error;
}

TEST_F(ManyTest, ManyGuestsRunAreReadByManyAndStop) {
  ForEach(4, [this](const std::string& name) { Mkdir(name); });
  const long threads = CountOf("task");
  const long descriptors = CountOf("fd");
  ForEach(4, [this](const std::string& name) { Boot(name); });
  for (int i = 0; i < Count(); ++i) {
    EXPECT_TRUE(Becomes(NameOf(i), "running", 300s)) << NameOf(i);
  }
  // Those that cannot be are no news; but nothing may run out.
  std::map<int, int> errors;
  std::atomic<int> files = 0;
  std::mutex mutex;
  const auto begin = Clock::now();
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 8; ++reader) {
    readers.emplace_back([&, reader] {
      for (int i = 0; i < Count(); ++i) {
        const stdfs::path dir = Dir() / NameOf((i + reader * 5) % Count());
        for (const auto& entry : stdfs::directory_iterator(dir)) {
          if (!entry.is_regular_file()) continue;
          const int error = ReadOnce(entry.path());
          ++files;
          const std::lock_guard lock(mutex);
          if (error != 0) ++errors[error];
        }
      }
    });
  }
  for (auto& reader : readers) reader.join();
  const std::chrono::duration<double> took = Clock::now() - begin;
  RecordProperty("files", files);
  RecordProperty("seconds", fmt::format("{:.1f}", took.count()));
  RecordProperty("threads", fmt::to_string(CountOf("task")));
  RecordProperty("descriptors", fmt::to_string(CountOf("fd")));
  EXPECT_GT(files, Count() * 8 * 20);
  for (const int scarce : {EIO, EMFILE, ENFILE, ENOMEM, EAGAIN, EHOSTDOWN}) {
    EXPECT_EQ(errors[scarce], 0) << std::generic_category().message(scarce);
  }
  ForEach(16, [this](const std::string& name) {
    EXPECT_EQ(WriteText(Dir() / name / "status", "kill\n"), Verdict{}) << name;
  });
  for (int i = 0; i < Count(); ++i) EXPECT_EQ(Status(NameOf(i)), "stopped");
  // Workers stay, to be used again, and so do a few connections; nothing of it
  // is a guest's.
  EXPECT_TRUE(
      Eventually([&] { return CountOf("fd") <= descriptors + 16; }, 60s))
      << CountOf("fd") << " descriptors, " << descriptors << " before";
  EXPECT_LE(CountOf("task"), threads + 256);
}

}  // namespace
}  // namespace sbxfs
