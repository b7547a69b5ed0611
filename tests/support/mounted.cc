#include "tests/support/mounted.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "tests/support/wrapper.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

std::string MakeDirectory() {
  std::string path = "/var/tmp/sbxfs-mounted.XXXXXX";
  if (mkdtemp(path.data()) == nullptr) ADD_FAILURE() << "no directory";
  return path;
}

}  // namespace

bool Mounted::IsMounted() const {
  return ReadText("/proc/self/mountinfo").find(" " + dir_.string() + " ") !=
         std::string::npos;
}

void Mounted::SetUp() {
  if (access("/dev/fuse", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "/dev/fuse cannot be opened";
  }
  base_ = MakeDirectory();
  dir_ = base_ / "mnt";
  stdfs::create_directory(dir_);
  const std::string log = base_ / "log";
  const std::string options = Options();
  pid_ = fork();
  if (pid_ == 0) {
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    ExecuteWrapped({SBXFS_BIN_DIR "/sbxfs", "-f", "-o", options,
                    "test:///default", dir_.string()});
  }
  int status = 0;
  bool alive = true;
  ASSERT_TRUE(Eventually([&] {
    alive = waitpid(pid_, &status, WNOHANG) == 0;
    return !alive || IsMounted();
  }));
  if (!alive) pid_ = -1;
  ASSERT_TRUE(alive) << "the daemon ended: " << ReadText(log);
  if (IsWrapped()) WarmUp(dir_);
}

void Mounted::ExpectEnd() {
  int status = 0;
  const pid_t pid = std::exchange(pid_, -1);
  EXPECT_TRUE(
      Eventually([&] { return waitpid(pid, &status, WNOHANG) == pid; }));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_FALSE(IsMounted());
  EXPECT_EQ(ReadText(base_ / "log").find("error:"), std::string::npos);
}

void Mounted::TearDown() {
  if (pid_ > 0) {
    // Who ends just now holds it for a moment yet.
    Ended ended;
    (void)Eventually([&] {
      ended = RunProgram({"fusermount3", "-u", dir_.string()});
      return ended.status == 0;
    });
    EXPECT_EQ(ended.status, 0) << ended.err;
    if (ended.status != 0) kill(pid_, SIGTERM);
    ExpectEnd();
  }
  if (base_.empty()) return;
  if (HasFailure()) {
    std::printf("%s", ReadText(base_ / "log").c_str());
  }
  // remove_all would go through a mount that is still there.
  if (!IsMounted()) stdfs::remove_all(base_);
}

Ended Mounted::Sh(const std::string& script) const {
  return RunProgram(
      {"env", "-C", dir_.string(), "LC_ALL=C", "bash", "-c", script});
}

std::string Mounted::Do(const std::string& script) const {
  const Ended ended = Sh(script);
  EXPECT_EQ(ended.status, 0) << script << '\n' << ended.out << ended.err;
  return ended.out;
}

}  // namespace sbxfs
