#include "fs/holder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/util/error.h"
#include "backend/util/exit_code.h"
#include "backend/util/parcel.h"
#include "backend/util/text.h"
#include "fs/channel.h"
#include "fs/daemon.h"
#include "fs/mount_point.h"

namespace sbxfs {
namespace {

using std::chrono::steady_clock;

constexpr const char* kVariable = "SBXFS_HELD";
// A daemon that is ended so often in that time will not get any further. One
// that ends by itself has a hypervisor that is away, say, and is given the
// whole of it.
constexpr std::size_t kMostEnds = 5;
constexpr std::size_t kMostFailures = 25;
constexpr std::chrono::minutes kEndsWithin{1};
constexpr std::chrono::milliseconds kPause{2000};

bool SendFd(int socket, int fd) {
  Parcel parcel("\n");
  parcel.PutIn(fd);
  return sendmsg(socket, &parcel.message, MSG_NOSIGNAL) == 1;
}

UniqueFd ReceiveFd(int socket) {
  Parcel parcel;
  if (recvmsg(socket, &parcel.message, MSG_CMSG_CLOEXEC) != 1) return {};
  return parcel.TakeOut();
}

sigset_t HeldSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int one : {SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD}) {
    sigaddset(&set, one);
  }
  return set;
}

std::string CurrentDirectory() {
  std::error_code error;
  return std::filesystem::current_path(error).string();
}

}  // namespace

// The process that waits.
class Hold::Holder {
 public:
  Holder(Hold& hold, char** argv, std::string program, sigset_t before)
      : hold_(hold),
        argv_(argv),
        program_(std::move(program)),
        before_(before) {
    const sigset_t held = HeldSignals();
    signals_ = UniqueFd(signalfd(-1, &held, SFD_CLOEXEC));
  }

  // Returns in each daemon.
  void Run() {
    while (!Start()) Wait();
  }

 private:
  // True in the daemon.
  bool Start() {
    std::array<int, 2> ends{-1, -1};
    const bool linked =
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0;
    UniqueFd mine(ends[0]);
    UniqueFd its(ends[1]);
    std::fflush(nullptr);
    const pid_t holder = getpid();
    daemon_ = signals_.Valid() && linked ? fork() : -1;
    if (daemon_ < 0 && !hold_.Resumed()) {
      const int error = errno;
      sigprocmask(SIG_SETMASK, &before_, nullptr);
      throw Error(error, "Cannot start the daemon");
    }
    if (daemon_ < 0) GiveUp("no process can be started");
    if (daemon_ > 0) {
      from_daemon_ = std::move(mine);
      return false;
    }
    // Whoever ends the process that was started means the mount.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != holder) _exit(static_cast<int>(ExitCode::kSignal));
    prctl(PR_SET_DUMPABLE, 1);  // it decides itself
    mine.Reset();
    signals_.Reset();
    hold_.to_holder_ = std::move(its);
    // SIGUSR2 waits until it is expected.
    sigaddset(&before_, SIGUSR2);
    sigprocmask(SIG_SETMASK, &before_, nullptr);
    if (hold_.Resumed() && hold_.background_ &&
        chdir(hold_.cwd_.c_str()) != 0) {
      // Relative paths of options lead nowhere then, and that is told.
    }
    return true;
  }

  // Until another daemon is to be started.
  void Wait() {
    while (true) {
      std::array<pollfd, 2> events = {
          {{signals_.Get(), POLLIN, 0}, {from_daemon_.Get(), POLLIN, 0}}};
      if (poll(events.data(), from_daemon_.Valid() ? 2 : 1, -1) < 0) continue;
      if (from_daemon_.Valid() && events[1].revents != 0) OnMessage();
      if (events[0].revents != 0 && OnSignal()) return;
    }
  }

  void OnMessage() {
    UniqueFd fuse = ReceiveFd(from_daemon_.Get());
    if (!fuse.Valid()) {  // it ended
      from_daemon_.Reset();
      return;
    }
    hold_.fuse_ = std::move(fuse);
    hold_.resumed_ = true;
    if (hold_.background_) {
      setsid();
      if (chdir("/") != 0) Say(LOG_WARNING, "Cannot go to '/'");
      LeaveStreams();
    }
    const char done = 1;
    (void)send(from_daemon_.Get(), &done, 1, MSG_NOSIGNAL);
  }

  // True: the daemon has ended, and another is to follow.
  bool OnSignal() {
    signalfd_siginfo info{};
    if (read(signals_.Get(), &info, sizeof(info)) != sizeof(info)) return false;
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal != SIGCHLD) {
      if (signal != SIGUSR2) ending_ = true;
      kill(daemon_, signal);
      return false;
    }
    int status = 0;
    if (waitpid(daemon_, &status, WNOHANG) != daemon_) return false;
    // What it said last may still be on its way.
    pollfd event{from_daemon_.Get(), POLLIN, 0};
    if (from_daemon_.Valid() && poll(&event, 1, 0) > 0) OnMessage();
    from_daemon_.Reset();
    OnEnd(status);
    return true;
  }

  // Returns when another daemon is to follow.
  void OnEnd(int status) {
    const bool exited = WIFEXITED(status);
    if (exited && WEXITSTATUS(status) == kHandedOver) {
      hold_.why_.clear();
      BecomeProgram();
      return;
    }
    const bool resumed = std::exchange(mounted_, hold_.Resumed());
    if (!hold_.Resumed() || ending_ || IsUnmounted() ||
        (exited && (WEXITSTATUS(status) == 0 || !resumed))) {
      EndLike(status);
    }
    hold_.why_ = exited ? fmt::format("status {}", WEXITSTATUS(status))
                        : fmt::format("signal {} ({})", WTERMSIG(status),
                                      strsignal(WTERMSIG(status)));
    const auto now = steady_clock::now();
    ends_.push_back(now);
    while (ends_.front() < now - kEndsWithin) ends_.pop_front();
    if (ends_.size() > (exited ? kMostFailures : kMostEnds)) {
      GiveUp(
          fmt::format("the daemon ended {} times within a minute, at last "
                      "by {}",
                      ends_.size(), hold_.why_));
    }
    Say(LOG_ERR, fmt::format("The daemon of '{}' was ended by {}; another goes "
                             "on",
                             hold_.dir_, hold_.why_));
    if (exited) poll(nullptr, 0, static_cast<int>(kPause.count()));
  }

  // The program as it is now installed. Returns when there is none.
  void BecomeProgram() {
    const std::string left = fmt::format(
        "{} {} {} {}\n{}\n{}", getpid(), hold_.memory_.Get(), hold_.fuse_.Get(),
        hold_.background_ ? 1 : 0, hold_.dir_, hold_.cwd_);
    setenv(kVariable, left.c_str(), 1);
    fcntl(hold_.memory_.Get(), F_SETFD, 0);
    fcntl(hold_.fuse_.Get(), F_SETFD, 0);
    const sigset_t held = HeldSignals();
    sigprocmask(SIG_SETMASK, &before_, nullptr);
    execv(program_.c_str(), argv_);
    const int error = errno;
    sigprocmask(SIG_BLOCK, &held, nullptr);
    unsetenv(kVariable);
    fcntl(hold_.memory_.Get(), F_SETFD, FD_CLOEXEC);
    fcntl(hold_.fuse_.Get(), F_SETFD, FD_CLOEXEC);
    Say(LOG_ERR, fmt::format("Cannot start '{}' for '{}': {}; the program as "
                             "it was goes on",
                             program_, hold_.dir_, std::strerror(error)));
  }

  [[nodiscard]] bool IsUnmounted() const {
    pollfd event{hold_.fuse_.Get(), 0, 0};
    return poll(&event, 1, 0) > 0 && (event.revents & POLLERR) != 0;
  }

  [[noreturn]] void GiveUp(std::string_view why) {
    Say(LOG_ERR, fmt::format("Cannot go on with the mount of '{}': {}; it is "
                             "unmounted, guests run on",
                             hold_.dir_, why));
    if (hold_.Resumed() && !IsUnmounted()) UnmountBusy(hold_.dir_);
    _exit(static_cast<int>(ExitCode::kBug));
  }

  // A daemon that was ended before there was a mount is its caller's affair,
  // and so is how.
  [[noreturn]] void EndLike(int status) {
    if (hold_.Resumed() && !IsUnmounted()) UnmountBusy(hold_.dir_);
    if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
    sigset_t all;
    sigfillset(&all);
    std::signal(WTERMSIG(status), SIG_DFL);
    sigprocmask(SIG_UNBLOCK, &all, nullptr);
    // The daemon has left a core, if one is wanted.
    prctl(PR_SET_DUMPABLE, 0);
    raise(WTERMSIG(status));
    _exit(static_cast<int>(ExitCode::kBug));
  }

  void Say(int priority, const std::string& sentence) const {
    if (hold_.background_) {
      syslog(LOG_DAEMON | priority, "%s", sentence.c_str());
    } else {
      fmt::print(stderr, "sbxfs: {}\n", sentence);
    }
  }

  Hold& hold_;
  char** const argv_;
  const std::string program_;
  sigset_t before_;
  UniqueFd signals_;
  UniqueFd from_daemon_;
  pid_t daemon_ = -1;
  bool ending_ = false;
  bool mounted_ = hold_.Resumed();
  std::deque<steady_clock::time_point> ends_;
};

std::optional<Hold> Hold::OfHolderBefore() {
  const char* const left = std::getenv(kVariable);
  if (left == nullptr) return std::nullopt;
  const std::string text = left;
  unsetenv(kVariable);
  const auto lines = Split(text, '\n');
  std::array<int, 4> numbers{};
  // One that another process inherited is not its own.
  if (lines.size() != 3 ||
      std::sscanf(std::string(lines[0]).c_str(), "%d %d %d %d", &numbers[0],
                  &numbers[1], &numbers[2], &numbers[3]) != 4 ||
      numbers[0] != getpid()) {
    return std::nullopt;
  }
  Hold hold;
  hold.memory_ = UniqueFd(numbers[1]);
  hold.fuse_ = UniqueFd(numbers[2]);
  hold.resumed_ = true;
  hold.background_ = numbers[3] != 0;
  hold.dir_ = lines[1];
  hold.cwd_ = lines[2];
  for (const int fd : {numbers[1], numbers[2]}) {
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return std::nullopt;
  }
  return hold;
}

Hold Hold::Of(std::string dir, UniqueFd mount) {
  Hold hold;
  hold.fuse_ = std::move(mount);
  hold.memory_ = Channel::MakeMemory();
  hold.dir_ = std::move(dir);
  hold.cwd_ = CurrentDirectory();
  return hold;
}

void Hold::Begin(char** argv, const std::string& program, bool background) {
  background_ = background_ || background;
  // Blocked before the first fork, so that none can be lost in between.
  const sigset_t held = HeldSignals();
  sigset_t before;
  sigprocmask(SIG_BLOCK, &held, &before);
  // Without it a SIGCHLD that our starter ignored would be ignored here too.
  std::signal(SIGCHLD, SIG_DFL);
  // Requests have secrets in them.
  prctl(PR_SET_DUMPABLE, 0);
  Holder(*this, argv, program, before).Run();
}

UniqueFd Hold::Fuse() const {
  return UniqueFd(fcntl(fuse_.Get(), F_DUPFD_CLOEXEC, 0));
}

void Hold::Mounted(int fuse) {
  char done = 0;
  if (!SendFd(to_holder_.Get(), fuse) ||
      recv(to_holder_.Get(), &done, 1, 0) != 1) {
    throw Error(EPIPE,
                "Cannot serve the mount: the process that holds it is gone");
  }
}

void Hold::Ready() {
  if (background_ && chdir("/") != 0) {
    throw Error(errno, "Cannot go to '/'");
  }
}

}  // namespace sbxfs
