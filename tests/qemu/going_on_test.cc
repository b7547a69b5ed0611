// Daemons that crash, or hand over, under those who use the mount.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "backend/util/unique_fd.h"
#include "tests/support/guest_mount.h"
#include "tests/support/whole_tree.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace stdfs = std::filesystem;

// The one that serves: the child of the one that holds.
class GoingOnTest : public BlankGuests {
 protected:
  void KillServer() {
    mount_->ExpectLoggedErrors();
    mount_->KillServer();
  }
  // Another serves by then.
  void Upgrade() {
    const pid_t before = mount_->Server();
    ASSERT_EQ(kill(mount_->Pid(), SIGUSR2), 0);
    ASSERT_TRUE(Eventually([&] {
      const pid_t now = mount_->Server();
      return now > 0 && now != before;
    }));
  }
};

// What a reader of an open file gets from its beginning.
std::string From(int fd) {
  std::string text(4096, '\0');
  const ssize_t got = pread(fd, text.data(), text.size(), 0);
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return got < 0 ? strerrorname_np(errno) : text;
}

TEST_F(GoingOnTest, ThoseWhoUseTheMountNoticeNothing) {
  Mkdir("box");
  Boot("box");
  const std::string id = Virsh({"domid", "box"});
  const UniqueFd dir(open((Dir() / "box").c_str(), O_DIRECTORY | O_CLOEXEC));
  const UniqueFd config(openat(dir.Get(), "config.yaml", O_RDONLY | O_CLOEXEC));
  const UniqueFd status(openat(dir.Get(), "status", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(dir.Valid() && config.Valid() && status.Valid());
  const std::string text = From(config.Get());
  struct stat before {};  // a lookup of status gives others while one waits
  ASSERT_EQ(fstat(config.Get(), &before), 0);
  Writer waiting(Dir() / "box/status", "wait stopped\n");
  ASSERT_TRUE(Eventually([&] { return waiting.Waits(); }));
  for (int round = 0; round < 4; ++round) {
    if (round % 2 == 0) {
      KillServer();
    } else {
      Upgrade();
    }
    EXPECT_EQ(From(config.Get()), text);
    EXPECT_EQ(From(status.Get()), "running\n");
    struct stat now {};
    EXPECT_EQ(fstatat(dir.Get(), "config.yaml", &now, 0), 0);
    EXPECT_EQ(now.st_ino, before.st_ino);
    EXPECT_EQ(Virsh({"domid", "box"}), id);
    pollfd event{status.Get(), POLLPRI, 0};
    EXPECT_EQ(poll(&event, 1, 0), 0);
    // The next is asked by who sleeps in poll(2), too.
    std::thread change([&] {
      std::this_thread::sleep_for(300ms);
      Virsh({"suspend", "box"});
    });
    EXPECT_EQ(poll(&event, 1, 10'000), 1);
    change.join();
    EXPECT_TRUE(Becomes("box", "paused"));
    Virsh({"resume", "box"});
    EXPECT_TRUE(Becomes("box", "running"));
    EXPECT_TRUE(waiting.Waits());
  }
  EXPECT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  EXPECT_EQ(waiting.Ended(), Verdict{});
}

// What the processes have in common.
struct Seen {
  std::atomic<bool> end = false;
  std::atomic<uint64_t> calls = 0;
  std::atomic<uint64_t> errors = 0;
  std::atomic<int64_t> longest_ms = 0;
  std::array<char, 256> first_error = {};
};

// A life of a sandbox, again and again, in which nothing may fail.
class Careful {
 public:
  Careful(stdfs::path dir, size_t number, Seen& seen)
      : dir_(std::move(dir)), number_(number), seen_(seen) {}

  void Run() {
    const stdfs::path box = dir_ / fmt::format("u{}", number_);
    const stdfs::path tag = box / "snapshots/t";
    const auto make = [](const stdfs::path& path) {
      return Call([&] { return mkdir(path.c_str(), 0700); });
    };
    const auto remove = [](const stdfs::path& path) {
      return Call([&] { return rmdir(path.c_str()); });
    };
    for (int round = 0; !seen_.end; ++round) {
      Do("mkdir", [&] { return make(box); });
      Do("config", [&] {
        return WriteText(box / "config.yaml",
                         fmt::format("cpus: {}\n", 1 + round % 3));
      });
      Do("cpus", [&] { return WriteText(box / "cpus", "2\n"); });
      Do("read", [&] { return Shows(box / "cpus", "2"); });
      Do("start",
         [&] { return WriteText(box / "status", "start\n", O_NONBLOCK); });
      Do("wait", [&] { return WriteText(box / "status", "wait running\n"); });
      Do("kill", [&] { return WriteText(box / "status", "kill\n"); });
      Do("shows", [&] { return Shows(box / "status", "stopped"); });
      Do("snapshot", [&] { return make(tag); });
      Do("delete", [&] { return remove(tag); });
      Do("list", [&] { return Lists(box.filename()); });
      Do("rmdir", [&] { return remove(box); });
      Do("purge",
         [&] { return remove(dir_ / ".host/trash" / box.filename()); });
    }
  }

 private:
  template <typename F>
  void Do(const char* what, F&& call) {
    const auto begun = Clock::now();
    const Verdict verdict = call();
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
                          Clock::now() - begun)
                          .count();
    ++seen_.calls;
    int64_t longest = seen_.longest_ms;
    while (took > longest &&
           !seen_.longest_ms.compare_exchange_weak(longest, took)) {
    }
    if (verdict.error == 0 || seen_.errors++ != 0) return;
    const std::string text =
        fmt::format("{} of u{}: {} {}", what, number_,
                    strerrorname_np(verdict.error), verdict.sentence);
    text.copy(seen_.first_error.data(), seen_.first_error.size() - 1);
  }
  static Verdict Shows(const stdfs::path& file, const std::string& text) {
    const std::string now = ReadLine(file);
    return now == text ? Verdict{} : Verdict{EPROTO, now};
  }
  [[nodiscard]] Verdict Lists(const stdfs::path& name) const {
    std::error_code error;
    for (const auto& one : stdfs::directory_iterator(dir_, error)) {
      if (one.path().filename() == name) return {};
    }
    return {error ? error.value() : ENOENT, "the listing"};
  }

  const stdfs::path dir_;
  const size_t number_;
  Seen& seen_;
};

TEST_F(GoingOnTest, NobodySeesAnUpgrade) {
  const int rounds = LongRun() ? 100 : 6;
  constexpr size_t kUsers = 4;
  Mkdir("steady");
  Boot("steady");
  const std::string id = Virsh({"domid", "steady"});
  void* place = mmap(nullptr, sizeof(Seen), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(place, MAP_FAILED);
  Seen& seen = *new (place) Seen;
  std::vector<pid_t> users;
  for (size_t i = 0; i < kUsers; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      Careful(Dir(), i, seen).Run();
      _exit(0);
    }
    users.push_back(pid);
  }
  // One that it could not do at once is told, and done later.
  mount_->ExpectLoggedErrors();
  for (int round = 0; round < rounds && seen.errors == 0; ++round) {
    std::this_thread::sleep_for(200ms);
    Upgrade();
    EXPECT_EQ(Virsh({"domid", "steady"}), id) << "round " << round;
    EXPECT_EQ(Status("steady"), "running") << "round " << round;
  }
  seen.end = true;
  for (const pid_t pid : users) waitpid(pid, nullptr, 0);
  EXPECT_EQ(seen.errors, 0U) << seen.first_error.data();
  fmt::print("{} upgrades, {} calls, the longest took {} ms\n", rounds,
             seen.calls.load(), seen.longest_ms.load());
  munmap(place, sizeof(Seen));
  ExpectAgreement(Dir(), Options());
}

// A mount by a program of its own, which can be replaced.
class Installed {
 public:
  explicit Installed(const stdfs::path& place)
      : dir(place / "mount"), mark(place / "mark"), program_(place / "sbxfs") {
    stdfs::create_directories(dir);
    stdfs::copy_file(SBXFS_BIN_DIR "/sbxfs", program_);
    const Ended ended =
        RunProgram({program_.string(), "qemu:///system", dir.string()});
    EXPECT_EQ(ended.status, 0) << ended.err;
  }
  ~Installed() {
    if (IsMounted()) {
      EXPECT_EQ(RunProgram({"fusermount3", "-uz", dir.string()}).status, 0);
    }
  }
  Installed(const Installed&) = delete;
  Installed& operator=(const Installed&) = delete;

  // Another file, since the one of before is being run.
  void Replace(const std::string& command) const {
    stdfs::remove(program_);
    if (command.empty()) return;
    std::ofstream(program_) << "#!/bin/sh\n: > " << mark.string() << "\nexec "
                            << SBXFS_BIN_DIR "/sbxfs " << command << '\n';
    stdfs::permissions(program_, stdfs::perms::owner_all);
  }
  void Upgrade() const {
    EXPECT_EQ(RunProgram({"pkill", "-USR2", "-o", "-f", program_}).status, 0);
  }
  [[nodiscard]] bool IsMounted() const {
    return ReadText("/proc/self/mountinfo").find(dir.string() + ' ') !=
           std::string::npos;
  }

  const stdfs::path dir;
  const stdfs::path mark;

 private:
  const stdfs::path program_;
};

// The program as it is installed by then.
TEST_F(GoingOnTest, AnUpgradeRunsTheNewProgram) {
  const Installed one(Dir().parent_path() / "bin");
  one.Replace("\"$@\"");
  one.Upgrade();
  EXPECT_TRUE(Eventually([&] { return stdfs::exists(one.mark); }));
  EXPECT_TRUE(stdfs::exists(one.dir / ".host/README"));
}

// Without it the one that ran goes on.
TEST_F(GoingOnTest, AnUpgradeToNothingChangesNothing) {
  const Installed one(Dir().parent_path() / "bin-2");
  const UniqueFd readme(open((one.dir / ".host/README").c_str(), O_RDONLY));
  one.Replace("");
  one.Upgrade();
  std::this_thread::sleep_for(500ms);
  EXPECT_TRUE(From(readme.Get()).starts_with("Each directory"));
}

TEST_F(GoingOnTest, AnUpgradeThatCannotBeginLeavesNoDeadMount) {
  const Installed one(Dir().parent_path() / "bin-3");
  one.Replace("--nonsense");
  one.Upgrade();
  EXPECT_TRUE(Eventually([&] { return !one.IsMounted(); }));
  EXPECT_TRUE(stdfs::exists(one.mark));
}

TEST_F(GoingOnTest, WithoutLibvirtTheNextWaitsForIt) {
  Mkdir("box");
  mount_->ExpectLoggedErrors();
  KillLibvirtd();
  ASSERT_TRUE(Eventually([&] {
    return ReadText(Host() / "connection").starts_with("disconnected");
  }));
  // It could not begin.
  ASSERT_EQ(kill(mount_->Pid(), SIGUSR2), 0);
  std::this_thread::sleep_for(1500ms);
  EXPECT_EQ(ReadLine(Dir() / "box/cpus"), "1");
  KillServer();
  std::thread later([] {
    std::this_thread::sleep_for(3s);
    StartLibvirtd();
  });
  EXPECT_EQ(ReadLine(Dir() / "box/cpus"), "1");
  later.join();
}

// A daemon that cannot live leaves no dead mount.
TEST_F(GoingOnTest, OneThatKeepsDyingIsUnmounted) {
  mount_->ExpectLoggedErrors();
  pid_t last = -1;
  for (int i = 0; i < 6; ++i) {
    pid_t server = -1;
    ASSERT_TRUE(Eventually([&] {
      server = mount_->Server();
      return server > 0 && server != last;
    })) << i;
    EXPECT_EQ(kill(server, SIGKILL), 0);
    last = server;
  }
  EXPECT_EQ(mount_->EndOfItself(), 4);
  mount_->Start();
}

}  // namespace
}  // namespace sbxfs
