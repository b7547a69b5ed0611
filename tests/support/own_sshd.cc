#include "tests/support/own_sshd.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <thread>

#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// As root sshd insists on /run/sshd, where another test's sshd may need it
// too: a /run of its own, which nobody has to clean up.
void MakeRunDirectory() {
  if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
      mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0) {
    mount("none", "/run", "tmpfs", 0, "mode=755");
  }
  mkdir("/run/sshd", 0755);
}

int FreePort() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(fd.Get(), generic, size), 0);
  getsockname(fd.Get(), generic, &size);
  return ntohs(address.sin_port);
}

}  // namespace

std::string OwnSshd::MyName() {
  const passwd* me = getpwuid(getuid());
  return me == nullptr ? "" : me->pw_name;
}

void OwnSshd::SetUp() {
  if (access(kSshd, X_OK) != 0) GTEST_SKIP() << kSshd << " is missing";
  std::string name = testing::TempDir() + "/sbxfs-ssh.XXXXXX";
  dir_ = mkdtemp(name.data());
  host_key_ = LoadOrMakeKeyPair(dir_ / "host");
  identity_ = LoadOrMakeKeyPair(dir_ / "id");
  port_ = FreePort();
  std::ofstream(dir_ / "config")
      << "ListenAddress 127.0.0.1:" << port_ << "\nHostKey "
      << (dir_ / "host").string() << "\nAuthorizedKeysFile "
      << (dir_ / "id.pub").string()
      << "\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
         "Subsystem sftp "
      << sftp_ << "\n";
  sshd_ = fork();
  if (sshd_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    MakeRunDirectory();
    const std::string log = dir_ / "log";
    const std::string config = dir_ / "config";
    execl(kSshd, kSshd, "-D", "-E", log.c_str(), "-f", config.c_str(), nullptr);
    _exit(127);
  }
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (!SshAnswers(port_, 1s)) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline)
        << "sshd does not start";
    std::this_thread::sleep_for(20ms);
  }
}

void OwnSshd::TearDown() {
  if (sshd_ > 0) {
    kill(sshd_, SIGTERM);
    waitpid(sshd_, nullptr, 0);
  }
  if (HasFailure()) std::cerr << std::ifstream(dir_ / "log").rdbuf();
  if (!dir_.empty()) std::filesystem::remove_all(dir_);
}

SshTarget OwnSshd::Target() const {
  return {port_, MyName(), host_key_.public_key, identity_};
}

void OwnSshd::Signal(int signal) const {
  // Each login is a process of its own, and a session of its own.
  const std::string of =
      "for p in $(ls /proc | grep '^[0-9]*$'); do "
      "case $(tr '\\0' ' ' < /proc/$p/cmdline 2> /dev/null) in "
      "'sshd: " +
      MyName() +
      "'*) p1=$p; while [ \"$p1\" -gt 1 ]; do "
      "[ \"$p1\" = " +
      std::to_string(sshd_) + " ] && kill -" + std::to_string(signal) +
      " $p && break; p1=$(awk '/^PPid/{print $2}' /proc/$p1/status); done;; "
      "esac; done 2> /dev/null; true";
  EXPECT_EQ(std::system(of.c_str()), 0);
}

}  // namespace sbxfs
