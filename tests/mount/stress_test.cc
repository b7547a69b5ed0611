#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/mounted.h"
#include "tests/support/wrapper.h"

// Several processes that do whatever there is to do, in the manner of fsstress,
// and what must hold of the tree then.

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

// What any call may come to here: sbxfs(5)'s numbers, and what POSIX has for
// names that come and go under it.
const std::set<int> kErrors = {
    0,     EPERM,     EACCES,       EINVAL,  E2BIG,      ESTALE,   EBUSY,
    EINTR, ECANCELED, EEXIST,       ENOENT,  ENOTDIR,    EISDIR,   ENOTEMPTY,
    EXDEV, ENOSPC,    ENAMETOOLONG, ENODATA, EOPNOTSUPP, ETIMEDOUT};

class Stresser {
 public:
  Stresser(stdfs::path dir, unsigned seed, bool templates)
      : dir_(std::move(dir)), random_(seed), templates_(templates) {}

  // What came to something else than it may, a line each.
  std::string Run(int steps) {
    for (int i = 0; i < steps; ++i) Step();
    return wrong_;
  }

 private:
  size_t Below(size_t limit) { return random_() % limit; }
  template <typename T, size_t N>
  const T& One(const T (&of)[N]) {
    return of[Below(N)];
  }

  std::string Box() {
    static const char* const kNames[] = {"a", "b", "c", "D", "e-1", "x.y"};
    return One(kNames);
  }
  // A name, which may or may not be there, or be one that cannot.
  std::string Path() {
    static const char* const kFiles[] = {"cpus",
                                         "memory",
                                         "status",
                                         "config.yaml",
                                         "description",
                                         "authorized_keys",
                                         "reason",
                                         "domain.xml",
                                         "config.yaml~",
                                         ".config.yaml.swp",
                                         "4913",
                                         "config.yaml.rejected",
                                         "ports/3000",
                                         "ports/53.udp",
                                         "ports/none",
                                         "mounts/src",
                                         "secrets/KEY",
                                         "snapshots/t1",
                                         "snapshots/t2",
                                         "snapshots/t1/kind",
                                         "clones/c2",
                                         "exec/j1",
                                         "exec/j1/env",
                                         "sock/x",
                                         "snapshots",
                                         "ports",
                                         ".",
                                         "nothing"};
    static const char* const kHost[] = {"list",
                                        "error",
                                        "events",
                                        "templates/t.yaml",
                                        "templates/f",
                                        "templates/f/u.yaml",
                                        "templates/.t.yaml.swp",
                                        "templates/v.yaml",
                                        "trash/a",
                                        "trash/b",
                                        "trash/a/cpus",
                                        "images/i",
                                        "disks/d",
                                        "networks/n",
                                        "authorized_keys",
                                        "capacity",
                                        "nothing",
                                        "templates"};
    switch (Below(8)) {
      case 0:
      case 1:
        return Box();
      case 2:
        return Box() + ".yaml";
      case 3:
        return std::string(".host/") + One(kHost);
      case 4:
        return templates_ ? std::string(".host/templates/") + "f/g/w.yaml"
                          : Box() + "/" + One(kFiles);
      default:
        return Box() + "/" + One(kFiles);
    }
  }

  std::string Text() {
    static const char* const kTexts[] = {
        "2\n",      "cpus: 3\n",    "start\n", "kill\n",      "pause\n",
        "resume\n", "3000\n",       "none\n",  "bad: 1: 2\n", "#\n",
        "1GiB\n",   "\n",           "stop\n",  "reset\n",     "t1\n",
        "/tmp\n",   "description\n"};
    return One(kTexts);
  }

  void Step() {
    const std::string path = dir_ / Path();
    const std::string other = dir_ / Path();
    const char* const name = path.c_str();
    switch (Below(20)) {
      case 0:
      case 1:
      case 2:
        return Did("mkdir", path, mkdir(name, 0755));
      case 3:
        return Did("rmdir", path, rmdir(name));
      case 4:
      case 5:
        return Did("rename", path + " " + other, rename(name, other.c_str()));
      case 6:
        return Did("unlink", path, unlink(name));
      case 7:
        return Did("chmod", path, chmod(name, Below(4) == 0 ? 0777 : 0700));
      case 8:
        return Did("chown", path, chown(name, Below(2) * 1000, -1));
      case 9:
        return Did("symlink", path, symlink("x", name));
      case 10:
        return Did("link", path + " " + other, link(name, other.c_str()));
      case 11:
        return Did("mknod", path, mknod(name, S_IFIFO | 0600, 0));
      case 12:
        return Did("truncate", path,
                   truncate(name, static_cast<off_t>(Below(100))));
      case 13:
        return List(path);
      case 14:
      case 15:
        return Read(path);
      case 16: {
        struct stat stat {};
        return Did("stat", path, lstat(name, &stat));
      }
      case 17:
        return Did("utimensat", path,
                   utimensat(AT_FDCWD, name, nullptr, AT_SYMLINK_NOFOLLOW));
      default:
        return Write(path);
    }
  }

  void Did(const char* call, const std::string& what, long result) {
    const int error = result < 0 ? errno : 0;
    if (kErrors.count(error) != 0) return;
    wrong_ +=
        std::string(call) + " " + what + ": " + std::strerror(error) + '\n';
  }

  void List(const std::string& path) {
    std::error_code error;
    for (stdfs::directory_iterator at(path, error), end; at != end;
         at.increment(error)) {
    }
    errno = error.value();
    Did("readdir", path, error ? -1 : 0);
  }

  void Read(const std::string& path) {
    // What may never come is not waited for.
    const UniqueFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    Did("open", path, fd.Get());
    if (fd.Get() < 0) return;
    char buffer[5000];
    for (int i = 0; i < 20; ++i) {
      const ssize_t got = read(fd.Get(), buffer, sizeof(buffer));
      if (got < 0 && errno == EAGAIN) return;
      Did("read", path, got);
      if (got <= 0) return;
    }
  }

  void Write(const std::string& path) {
    static const int kFlags[] = {
        0, O_TRUNC, O_CREAT, O_CREAT | O_EXCL, O_CREAT | O_TRUNC, O_APPEND};
    const int flags = One(kFlags);
    const int fd =
        open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | flags, 0600);
    Did("open to write", path, fd);
    if (fd < 0) return;
    const std::string text = Text();
    const ssize_t count = write(fd, text.data(), text.size());
    Did("write", path + ": " + text, count < 0 && errno == EAGAIN ? 0 : count);
    if (Below(3) == 0) Did("fsync", path, fsync(fd));
    Did("close", path, close(fd));
  }

  const stdfs::path dir_;
  std::mt19937 random_;
  const bool templates_;
  std::string wrong_;
};

// Runs them side by side, one after the other in each of `lanes`: who was
// refused one removal is refused all for a while, and makes room for the next.
void Stress(const stdfs::path& dir, bool templates) {
  std::random_device device;
  const char* const given = std::getenv("SBXFS_SEED");
  const auto seed =
      given != nullptr ? static_cast<unsigned>(std::stoul(given)) : device();
  const int rounds = LongRun() ? 300 : IsWrapped() ? 1 : 6;
  constexpr int kLanes = 4;
  std::vector<pid_t> lanes;
  int said[2];
  ASSERT_EQ(pipe2(said, O_CLOEXEC), 0);
  for (int lane = 0; lane < kLanes; ++lane) {
    const pid_t pid = fork();
    if (pid != 0) {
      lanes.push_back(pid);
      continue;
    }
    for (int round = 0; round < rounds; ++round) {
      const pid_t worker = fork();
      if (worker == 0) {
        const std::string wrong =
            Stresser(dir, seed + static_cast<unsigned>(lane * 1000 + round),
                     templates)
                .Run(60);
        (void)!write(said[1], wrong.data(), wrong.size());
        _exit(0);
      }
      waitpid(worker, nullptr, 0);
    }
    _exit(0);
  }
  close(said[1]);
  std::string wrong;
  char buffer[4096];
  ssize_t got = 0;
  while ((got = read(said[0], buffer, sizeof(buffer))) > 0) {
    wrong.append(buffer, static_cast<size_t>(got));
  }
  close(said[0]);
  for (const pid_t pid : lanes) waitpid(pid, nullptr, 0);
  // What somebody waits for no more goes on: a clone comes yet.
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_EQ(wrong, "") << "SBXFS_SEED=" << seed;
}

// All names below `dir`, with their numbers. Each is listed once and can be
// looked at, and no number is of two of them.
std::map<std::string, ino_t> Walk(const stdfs::path& dir) {
  std::map<std::string, ino_t> numbers;
  std::map<ino_t, std::string> names;
  std::vector<stdfs::path> left = {dir};
  while (!left.empty()) {
    const stdfs::path at = left.back();
    left.pop_back();
    std::error_code error;
    for (stdfs::directory_iterator entry(at, error), end; entry != end;
         entry.increment(error)) {
      const std::string path = entry->path();
      struct stat stat {};
      EXPECT_EQ(Call([&] { return lstat(path.c_str(), &stat); }).error, 0)
          << path;
      EXPECT_TRUE(numbers.emplace(path, stat.st_ino).second)
          << path << " is listed twice";
      const auto [other, fresh] = names.emplace(stat.st_ino, path);
      EXPECT_TRUE(fresh) << path << " has the number of " << other->second;
      EXPECT_GE(stat.st_nlink, 1u) << path;
      if (S_ISDIR(stat.st_mode)) left.push_back(path);
      if (S_ISREG(stat.st_mode) && (stat.st_mode & 0444) != 0) {
        const UniqueFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK));
        EXPECT_TRUE(fd.Valid()) << path;
      }
    }
    EXPECT_FALSE(error) << at << ": " << error.message();
  }
  return numbers;
}

class Stressed : public Mounted {};

TEST_F(Stressed, TheTreeHoldsWhateverIsDoneToIt) {
  Stress(Dir(), false);
  const auto numbers = Walk(Dir());
  EXPECT_GT(numbers.size(), 20u);
  EXPECT_EQ(Walk(Dir()), numbers);
  for (const auto& entry : stdfs::directory_iterator(Dir())) {
    const std::string name = entry.path().filename();
    if (name == ".host") continue;
    if (entry.is_regular_file()) {
      EXPECT_TRUE(stdfs::remove(entry.path()));
      continue;
    }
    Do("set -- " + name + "; chmod 700 $1; echo kill > $1/status; rmdir $1");
  }
  Do("for one in $(ls .host/trash); do rmdir .host/trash/$one; done; "
     "rm -rf .host/disks/* .host/templates/f .host/templates/.*.swp; "
     // A sandbox had the name of one, and is what is listed then.
     "find . -maxdepth 1 -type f -delete; "
     "for one in .host/networks/n; do [ ! -e $one ] || rmdir $one; done");
  EXPECT_EQ(Do("ls -A; ls -A .host/trash .host/images .host/disks "
               ".host/networks .host/templates | grep -v : | grep ."),
            ".host\ndefault\n");
}

TEST_F(Stressed, ANameThatIsBecomingASandboxIsNeverNowhere) {
  std::atomic<int> made{-1};
  constexpr int kMany = 60;
  std::thread looker([&] {
    for (int now = -1; now < kMany;) {
      now = made.load();
      if (now < 0 || now >= kMany) continue;
      const std::string path = Dir() / ("b" + std::to_string(now) + ".yaml");
      struct stat stat {};
      ASSERT_EQ(Call([&] { return lstat(path.c_str(), &stat); }).error, 0)
          << path;
    }
  });
  for (int i = 0; i < kMany; ++i) {
    const std::string path = Dir() / ("b" + std::to_string(i) + ".yaml");
    const UniqueFd fd(
        open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    made = i;
    EXPECT_EQ(write(fd.Get(), "cpus: 2\n", 8), 8);
    EXPECT_EQ(Call([&] { return fsync(fd.Get()); }).error, 0);
  }
  made = kMany;
  looker.join();
}

// With a pool, images, templates and guests' disks behind it.
class StressedWithAPool : public BlankGuests {};

TEST_F(StressedWithAPool, TheTreeHoldsWhateverIsDoneToIt) {
  Stress(Dir(), true);
  const auto numbers = Walk(Dir());
  EXPECT_EQ(Walk(Dir()), numbers);
  // New documents that nobody wrote to are no sandboxes.
  for (const auto& entry : stdfs::directory_iterator(Dir())) {
    if (!entry.is_directory()) unlink(entry.path().c_str());
  }
  const std::string clean =
      "cd \"$1\" && rm -rf templates/* templates/.*.swp disks/*; "
      "[ ! -e networks/n ] || rmdir networks/n; ls -A templates disks images";
  EXPECT_EQ(RunProgram({"sh", "-c", clean, "sh", Host().string()}).out,
            "disks:\n\nimages:\nblank\n\ntemplates:\n");
}

}  // namespace
}  // namespace sbxfs
