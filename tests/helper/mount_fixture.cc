#include "tests/helper/mount_fixture.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

#include "backend/util/text.h"
#include "backend/util/unique_fd.h"
#include "tests/support/wrapper.h"

namespace sbxfs {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void Bind(const fs::path& source, const fs::path& path) {
  if (mount(source.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    throw std::runtime_error("cannot bind " + path.string());
  }
}

// Lets `dir` hold `program` besides all it holds, in our mount namespace alone.
void AddProgram(const fs::path& program, const fs::path& dir,
                const fs::path& backstage) {
  fs::create_directory(backstage);
  Bind(dir, backstage);
  if (mount("none", dir.c_str(), "tmpfs", 0, "mode=755") != 0) {
    throw std::runtime_error("cannot cover " + dir.string());
  }
  for (const auto& entry : fs::directory_iterator(backstage)) {
    const fs::path name = entry.path().filename();
    if (name != program.filename())
      fs::create_symlink(entry.path(), dir / name);
  }
  fs::create_symlink(program, dir / program.filename());
}

// udev gives everybody /dev/fuse; where it does not run, root alone has it.
void OpenFuseToUsers(const fs::path& device) {
  struct stat status;
  if (stat("/dev/fuse", &status) != 0 || (status.st_mode & 0006) == 0006) {
    return;
  }
  if (mknod(device.c_str(), S_IFCHR, status.st_rdev) != 0 ||
      chmod(device.c_str(), 0666) != 0) {
    throw std::runtime_error("cannot make " + device.string());
  }
  Bind(device, "/dev/fuse");
}

[[noreturn]] void Become(const std::vector<std::string>& command, uid_t uid,
                         const std::string& home, int out, int err) {
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  if (uid != 0 &&
      (setgroups(0, nullptr) != 0 || setgid(uid) != 0 || setuid(uid) != 0)) {
    _exit(126);
  }
  setenv("HOME", home.c_str(), 1);
  for (const char* name : {"XDG_DATA_HOME", "XDG_RUNTIME_DIR"}) unsetenv(name);
  Execute(command);
}

}  // namespace

fs::path MountTest::root_;

void MountTest::SetUpTestSuite() {
  if (geteuid() != 0 || !root_.empty()) return;
  if (unshare(CLONE_NEWNS) != 0 ||
      mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    throw std::runtime_error("cannot have a mount namespace");
  }
  std::string name = (fs::temp_directory_path() / "sbxfs-XXXXXX").string();
  root_ = fs::canonical(mkdtemp(name.data()));
  fs::permissions(root_, fs::perms(0755));
  // Copies, since a user need not be able to look into the build tree.
  fs::create_directory(root_ / "bin");
  for (const char* program : {"sbxfs", "mount.sbxfs"}) {
    fs::copy_file(fs::path(SBXFS_BIN_DIR) / program, root_ / "bin" / program);
  }
  fs::create_directory(root_ / "reports");
  fs::permissions(root_ / "reports", fs::perms(0777));
  // A daemon has no stderr on which a sanitizer could complain.
  const std::string reports =
      "log_path=" + (root_ / "reports" / "report").string();
  for (const char* name : {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
    setenv(name, reports.c_str(), 1);
  }
  fs::create_directory(root_ / "home");
  if (chown((root_ / "home").c_str(), kUser, kUser) != 0) std::abort();
  // The first line for a name counts: root's keys shall not be touched.
  fs::create_directory(root_ / "root");
  std::ofstream(root_ / "passwd")
      << fmt::format("root:x:0:0::{0}/root:/bin/sh\n", root_.string())
      << ReadAll("/etc/passwd")
      << fmt::format("sbxfstest:x:{0}:{0}::{1}/home:/bin/sh\n", kUser,
                     root_.string());
  std::ofstream(root_ / "fstab") << "";
  Bind(root_ / "passwd", "/etc/passwd");
  if (!fs::exists("/etc/fstab")) std::ofstream("/etc/fstab") << "";
  Bind(root_ / "fstab", "/etc/fstab");
  OpenFuseToUsers(root_ / "fuse");
  AddProgram(root_ / "bin/mount.sbxfs", fs::canonical("/sbin"), root_ / "sbin");
  AddProgram(root_ / "bin/sbxfs", fs::path(kDaemon).parent_path(),
             root_ / "daemon");
}

void MountTest::TearDownTestSuite() {
  if (root_.empty()) return;
  for (const fs::path& path :
       {fs::path("/etc/passwd"), fs::path("/etc/fstab"), fs::path("/dev/fuse"),
        fs::canonical("/sbin"), fs::path(kDaemon).parent_path(), root_ / "sbin",
        root_ / "daemon"}) {
    umount2(path.c_str(), MNT_DETACH);
  }
  fs::remove_all(root_);
  root_.clear();
}

void MountTest::SetUp() {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  dir_ = (root_ / "dir").string();
  fs::create_directory(dir_);
  if (chown(dir_.c_str(), kUser, kUser) != 0) std::abort();
  WriteFstab("");
}

void MountTest::TearDown() {
  if (root_.empty()) return;
  while (!MountsOn(dir_).empty() && umount2(dir_.c_str(), MNT_DETACH) == 0) {
  }
  EXPECT_TRUE(DaemonsEnd());
  for (const pid_t daemon : Daemons()) kill(daemon, SIGKILL);
  for (const auto& report : fs::directory_iterator(root_ / "reports")) {
    ADD_FAILURE() << ReadAll(report);
    fs::remove(report);
  }
  fs::remove(dir_);
}

Ran MountTest::Run(const std::vector<std::string>& command, uid_t uid) {
  int ends[2][2];
  for (auto& pair : ends) {
    if (pipe2(pair, O_CLOEXEC) != 0) std::abort();
  }
  const pid_t pid = fork();
  if (pid == 0) {
    Become(command, uid, (root_ / (uid == 0 ? "root" : "home")).string(),
           ends[0][1], ends[1][1]);
  }
  Ran ran;
  pollfd open_ends[2];
  for (int i = 0; i < 2; ++i) {
    close(ends[i][1]);
    open_ends[i] = {ends[i][0], POLLIN, 0};
  }
  const auto deadline = steady_clock::now() + std::chrono::seconds(60);
  while (open_ends[0].fd >= 0 || open_ends[1].fd >= 0) {
    if (poll(open_ends, 2, 1000) < 0 || steady_clock::now() > deadline) break;
    for (int i = 0; i < 2; ++i) {
      if (open_ends[i].fd < 0 || open_ends[i].revents == 0) continue;
      char buffer[4096];
      const ssize_t length = read(open_ends[i].fd, buffer, sizeof buffer);
      if (length > 0) {
        (i == 0 ? ran.out : ran.err)
            .append(buffer, static_cast<std::size_t>(length));
      } else {
        open_ends[i].fd = -1;
      }
    }
  }
  if (steady_clock::now() > deadline) kill(pid, SIGKILL);
  for (auto& pair : ends) close(pair[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return ran;
}

Ran MountTest::Mount(std::vector<std::string> words, uid_t uid) {
  words.insert(words.begin(), "mount");
  return Run(words, uid);
}

Ran MountTest::Umount(const std::string& dir, uid_t uid) {
  return Run({"umount", dir}, uid);
}

void MountTest::WriteFstab(const std::string& text) {
  std::ofstream(root_ / "fstab") << text;
}

std::vector<std::string> MountTest::MountsOn(const std::string& dir) {
  std::vector<std::string> mounts;
  const std::string table = ReadAll("/proc/self/mountinfo");
  for (const std::string_view line : Split(table, '\n')) {
    const auto fields = Split(line, ' ');
    if (fields.size() > 5 && fields[4] == dir) mounts.emplace_back(line);
  }
  return mounts;
}

std::vector<pid_t> MountTest::Daemons() {
  std::vector<pid_t> daemons;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const auto pid = ParseNumber(entry.path().filename().string());
    if (!pid) continue;
    std::string line = ReadAll(entry.path() / "cmdline");
    std::replace(line.begin(), line.end(), '\0', ' ');
    if (line.find("/sbxfs ") != std::string::npos &&
        line.find(root_.string()) != std::string::npos) {
      daemons.push_back(static_cast<pid_t>(*pid));
    }
  }
  // Those that serve are children of those that hold.
  const auto all = daemons;
  std::erase_if(daemons, [&](pid_t pid) {
    std::ifstream stat(fmt::format("/proc/{}/stat", pid));
    std::string name;
    std::string state;
    pid_t parent = 0;
    stat >> pid >> name >> state >> parent;
    return std::find(all.begin(), all.end(), parent) != all.end();
  });
  return daemons;
}

bool MountTest::DaemonsEnd() {
  const auto deadline = steady_clock::now() + std::chrono::seconds(10);
  while (!Daemons().empty()) {
    if (steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

}  // namespace sbxfs
