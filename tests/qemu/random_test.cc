// Many processes at random in one tree, with virsh behind its back: nothing
// hangs, nothing leaks, and in the end the tree says what libvirt says.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/guest_mount.h"
#include "tests/support/whole_tree.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace stdfs = std::filesystem;

constexpr int kBoxes = 20;
constexpr int kProcesses = 8;

// What may be answered last, on a machine that has other things to do. Verbs
// have their own limits (kOptions) on top of a turn.
struct Kind {
  const char* name;
  std::chrono::milliseconds deadline;
};
constexpr Kind kRead{"read", 10s};
constexpr Kind kName{"name", 20s};
constexpr Kind kSet{"set", 60s};
constexpr Kind kVerb{"verb", 60s};
constexpr Kind kVirsh{"virsh", 60s};  // not ours

// One of the processes: what it did, as lines for its parent.
class Walker {
 public:
  Walker(stdfs::path dir, unsigned seed)
      : dir_(std::move(dir)), random_(seed) {}

  void Walk(int steps) {
    for (int i = 0; i < steps; ++i) Step();
  }
  [[nodiscard]] std::string Report() const {
    std::string report = said_;
    for (const auto& [kind, times] : times_) {
      report += fmt::format("time {} {} {}\n", kind, times.first,
                            times.second.count());
    }
    return report;
  }

 private:
  int Random(int below) {
    return std::uniform_int_distribution<int>(0, below - 1)(random_);
  }
  template <size_t size>
  const char* Pick(const char* const (&from)[size]) {
    return from[Random(static_cast<int>(size))];
  }
  std::string Name() { return fmt::format("s{:02}", Random(kBoxes)); }

  void Timed(const Kind& kind, const std::string& what,
             const std::function<Verdict()>& work);
  void Step();
  void Read(const stdfs::path& box);
  void Verb(const stdfs::path& box);
  void Set(const stdfs::path& box);
  void Names(const std::string& name);
  void Behind(const std::string& name);

  const stdfs::path dir_;
  std::mt19937 random_;
  std::map<std::string, std::pair<int, std::chrono::milliseconds>> times_;
  std::string said_;
};

void Walker::Timed(const Kind& kind, const std::string& what,
                   const std::function<Verdict()>& work) {
  const auto begun = Clock::now();
  const Verdict verdict = work();
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
      Clock::now() - begun);
  auto& [count, longest] = times_[kind.name];
  ++count;
  longest = std::max(longest, took);
  if (took > kind.deadline) {
    said_ += fmt::format("late {} after {} ms: {}\n", what, took.count(),
                         strerror(verdict.error));
  }
  // These mean a dead mount, a bug or nothing at all.
  static const std::set<int> kNever = {ENOTCONN, ENOSYS, EIO,       EFAULT,
                                       EPROTO,   EBADF,  ENOTEMPTY, EHOSTDOWN};
  // Which virsh may have done.
  const bool ended = verdict.sentence.find(
                         "the guest ended while it was "
                         "booting") != std::string::npos;
  if (kNever.count(verdict.error) != 0 && !ended) {
    said_ += fmt::format("bad {}: {} {}\n", what, strerror(verdict.error),
                         verdict.sentence);
  }
}

void Walker::Read(const stdfs::path& box) {
  constexpr const char* kFiles[] = {
      "status", "pending",  "config.yaml", "effective.yaml", "usage",
      "ready",  "progress", "error",       "domain.xml",     "ssh_port",
      "README", "events",   "snapshot",    "console.log",    "reason"};
  const bool host = Random(5) == 0;
  const stdfs::path path =
      host ? dir_ / ".host" / (Random(2) == 0 ? "list" : "ssh_config")
           : box / Pick(kFiles);
  Timed(kRead, "read " + path.string(), [&] {
    (void)ReadText(path);
    return Verdict{};
  });
  Timed(kRead, "ls " + box.string(), [&] {
    std::error_code gone;
    for (const auto& entry : stdfs::directory_iterator(box, gone)) {
      struct stat info {};
      (void)stat(entry.path().c_str(), &info);
    }
    return Verdict{};
  });
}

void Walker::Verb(const stdfs::path& box) {
  constexpr const char* kVerbs[] = {"start", "start",  "start", "kill",
                                    "stop",  "pause",  "save",  "resume",
                                    "reset", "restart"};
  const std::string verb = Pick(kVerbs);
  Timed(kVerb, verb + " " + box.string(), [&] {
    return WriteText(box / "status", verb + "\n",
                     Random(4) == 0 ? 0 : O_NONBLOCK);
  });
}

void Walker::Set(const stdfs::path& box) {
  const int what = Random(7);
  auto write = [&](const stdfs::path& path, const std::string& text,
                   int flags = 0) {
    Timed(kSet, fmt::format("write {} '{}'", path.string(), text),
          [&] { return WriteText(path, text, flags); });
  };
  if (what == 0) write(box / "cpus", fmt::format("{}\n", 1 + Random(3)));
  if (what == 1) write(box / "memory", fmt::format("{}MiB\n", 24 + Random(16)));
  if (what == 2) write(box / "description", fmt::format("d{}\n", Random(99)));
  if (what == 3) {
    write(box / "config.yaml",
          fmt::format("# {}\ncpus: 1\nmaxCPUs: 2\n{}", Random(9),
                      Random(3) == 0 ? "nonsense: 1\n" : ""));
  }
  if (what == 4) {
    write(box / "ports" / fmt::format("{}", 3000 + Random(3)),
          fmt::format("{}\n", 20000 + Random(60)), O_CREAT);
  }
  if (what == 5) {
    const stdfs::path port =
        box / "ports" / fmt::format("{}", 3000 + Random(3));
    Timed(kSet, "unlink " + port.string(),
          [&] { return Call([&] { return unlink(port.c_str()); }); });
  }
  if (what == 6) {
    Timed(kSet, "chmod " + box.string(), [&] {
      return Call([&] { return chmod(box.c_str(), 0700 | Random(070)); });
    });
  }
}

void Walker::Names(const std::string& name) {
  const stdfs::path box = dir_ / name;
  const stdfs::path trash = dir_ / ".host/trash";
  switch (Random(6)) {
    case 0:
      Timed(kName, "rmdir " + name,
            [&] { return Call([&] { return rmdir(box.c_str()); }); });
      break;
    case 1:
    case 2:
      Timed(kName, "mkdir " + name,
            [&] { return Call([&] { return mkdir(box.c_str(), 0700); }); });
      break;
    case 3: {
      const std::string to = Name();
      Timed(kName, fmt::format("mv {} {}", name, to), [&] {
        return Call([&] { return rename(box.c_str(), (dir_ / to).c_str()); });
      });
      break;
    }
    case 4:
      Timed(kName, "mv out of the trash " + name, [&] {
        return Call(
            [&] { return rename((trash / name).c_str(), box.c_str()); });
      });
      break;
    case 5:
      Timed(kName, "rmdir trash/" + name, [&] {
        return Call([&] { return rmdir((trash / name).c_str()); });
      });
      break;
  }
}

void Walker::Behind(const std::string& name) {
  constexpr const char* kCommands[] = {"start",
                                       "start",
                                       "destroy",
                                       "suspend",
                                       "resume",
                                       "reset",
                                       "managedsave",
                                       "managedsave-remove",
                                       "autostart",
                                       "desc --config --new-desc x",
                                       "setvcpus --config --count 1"};
  const std::string command = Pick(kCommands);
  std::vector<std::string> words = {"virsh", "-q", "-c", "qemu:///system"};
  std::istringstream split(command);
  for (std::string word; split >> word;) words.push_back(word);
  words.insert(words.begin() + 5, name);
  Timed(kVirsh, command + " " + name, [&] {
    (void)RunProgram(words);
    return Verdict{};
  });
}

void Walker::Step() {
  const std::string name = Name();
  const int what = Random(100);
  if (what < 35) return Read(dir_ / name);
  if (what < 55) return Set(dir_ / name);
  if (what < 75) return Verb(dir_ / name);
  if (what < 90) return Names(name);
  Behind(name);
}

class RandomTest : public BlankGuests {
 protected:
  std::string Options() const override {
    return "stop_timeout=1,start_timeout=2";
  }

  // What the daemon holds: file descriptors and threads.
  [[nodiscard]] size_t Held(const char* what) const {
    const stdfs::directory_iterator all(
        fmt::format("/proc/{}/{}", mount_->Server(), what));
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  void RunWalkers(int operations, unsigned seed);
};

void RandomTest::RunWalkers(int operations, unsigned seed) {
  const stdfs::path root = std::getenv("SBXFS_INSIDE");
  std::vector<pid_t> pids;
  for (unsigned i = 0; i < kProcesses; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      Walker walker(Dir(), seed + i);
      walker.Walk(operations / kProcesses);
      std::ofstream(root / fmt::format("walker-{}", i)) << walker.Report();
      _exit(0);
    }
    pids.push_back(pid);
  }
  for (const pid_t pid : pids) {
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
  }
  std::map<std::string, std::pair<int, long>> times;
  for (int i = 0; i < kProcesses; ++i) {
    std::istringstream report(ReadText(root / fmt::format("walker-{}", i)));
    for (std::string line; std::getline(report, line);) {
      std::istringstream words(line);
      std::string word, kind;
      int count = 0;
      long longest = 0;
      if (words >> word >> kind >> count >> longest && word == "time") {
        times[kind].first += count;
        times[kind].second = std::max(times[kind].second, longest);
      } else {
        ADD_FAILURE() << "seed " << seed << ": " << line;
      }
    }
  }
  for (const auto& [kind, one] : times) {
    std::cout << fmt::format("{:>6} {}, the longest {} ms\n", one.first, kind,
                             one.second);
  }
}

TEST_F(RandomTest, ManyProcessesAndVirshAtRandom) {
  mount_->ExpectLoggedErrors();
  for (int i = 0; i < kBoxes; ++i) Mkdir(fmt::format("s{:02}", i));
  const char* given = std::getenv("SBXFS_SEED");
  const unsigned seed = given == nullptr
                            ? std::random_device()()
                            : static_cast<unsigned>(std::stoul(given));
  RunWalkers(400, seed);  // so that what is kept for later use is there
  const size_t files = Held("fd");
  const size_t threads = Held("task");
  RunWalkers(LongRun() ? 10000 : 400, seed + kProcesses);
  ExpectAgreement(Dir(), Options());
  // By its uuid virsh starts one that is in the trash just then.
  std::istringstream names(Virsh({"list", "--name"}));
  for (std::string name; std::getline(names, name);) {
    if (name.find('~') != name.npos) Virsh({"destroy", name});
  }
  // Connections and threads wait for their next use, some more or less.
  EXPECT_LE(Held("fd"), files + 32);
  EXPECT_LE(Held("task"), threads + 64);
  std::cout << fmt::format(
      "file descriptors {}, then {}; threads {}, then {}; seed {}\n", files,
      Held("fd"), threads, Held("task"), seed);
}

}  // namespace
}  // namespace sbxfs
