#include "fs/daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "backend/util/error.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using std::chrono::steady_clock;

// What a child that failed may still need to take its mount away.
constexpr std::chrono::seconds kGoodbye{5};

Error SystemError(std::string_view what, int error) {
  return Error(error, fmt::format("Cannot {}: {}", what, std::strerror(error)));
}

// The child's verdict: a byte of exit status, then a sentence. One write below
// PIPE_BUF, hence never seen in part.
struct Verdict {
  ExitCode status;
  std::string sentence;
};

bool Send(int fd, const Verdict& verdict) {
  std::string record(1, static_cast<char>(verdict.status));
  record += verdict.sentence.substr(0, PIPE_BUF - 1);
  ssize_t written;
  do {
    written = write(fd, record.data(), record.size());
  } while (written < 0 && errno == EINTR);
  return written == static_cast<ssize_t>(record.size());
}

std::optional<Verdict> Receive(int fd) {
  std::array<char, PIPE_BUF> record;
  ssize_t length;
  do {
    length = read(fd, record.data(), record.size());
  } while (length < 0 && errno == EINTR);
  if (length <= 0) return std::nullopt;
  return Verdict{static_cast<ExitCode>(static_cast<unsigned char>(record[0])),
                 std::string(record.data() + 1, record.data() + length)};
}

// A child that ended without a verdict.
Verdict SilentEnd(int wait_status) {
  if (WIFEXITED(wait_status)) {
    return {ExitCode::kBug,
            fmt::format("Cannot mount: the daemon ended with status {} and "
                        "without a word (an error in sbxfs); try again with -f",
                        WEXITSTATUS(wait_status))};
  }
  const int signal = WTERMSIG(wait_status);
  const bool asked_to = signal == SIGINT || signal == SIGTERM ||
                        signal == SIGHUP || signal == SIGKILL;
  return {asked_to ? ExitCode::kSignal : ExitCode::kBug,
          fmt::format("Cannot mount: the daemon was ended by signal {} ({}) "
                      "before the mount was there{}",
                      signal, strsignal(signal),
                      asked_to ? "" : "; try again with -f")};
}

// Waits for the child to end; nullopt when it does not within `limit`.
std::optional<int> WaitForEnd(pid_t child, std::chrono::milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  while (true) {
    int status = 0;
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) return status;
    if (ended < 0 && errno != EINTR) return std::nullopt;
    if (steady_clock::now() >= deadline) return std::nullopt;
    poll(nullptr, 0, 10);
  }
}

[[noreturn]] void Exit(const Verdict& verdict) {
  if (verdict.status != ExitCode::kOk) {
    fmt::print(stderr, "sbxfs: {}\n", verdict.sentence);
  }
  // _exit: what the caller has buffered is the child's to print.
  _exit(static_cast<int>(verdict.status));
}

// The parent's whole life after the fork.
class Waiter {
 public:
  Waiter(pid_t child, UniqueFd verdicts, UniqueFd signals)
      : child_(child),
        verdicts_(std::move(verdicts)),
        signals_(std::move(signals)) {}

  [[noreturn]] void Run() {
    while (true) {
      pollfd events[] = {{verdicts_.Get(), POLLIN, 0},
                         {signals_.Get(), POLLIN, 0}};
      if (poll(events, 2, -1) < 0) continue;
      if (events[0].revents != 0) OnPipe();
      if (events[1].revents != 0) OnSignal();
    }
  }

 private:
  void OnPipe() {
    const auto verdict = Receive(verdicts_.Get());
    if (!verdict) {
      // The end of the pipe comes before the end of the process.
      OnEnd(WaitForEnd(child_, kGoodbye));
    }
    // After a failure nothing may be left of the mount when we exit.
    if (verdict->status != ExitCode::kOk) WaitForEnd(child_, kGoodbye);
    Exit(*verdict);
  }

  void OnSignal() {
    signalfd_siginfo info;
    if (read(signals_.Get(), &info, sizeof info) != sizeof info) return;
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal != SIGCHLD) OnInterrupt(signal);
    // It may have spoken before it ended, or another process of its may still
    // hold the pipe open.
    if (const auto status = WaitForEnd(child_, std::chrono::milliseconds(0))) {
      pollfd event = {verdicts_.Get(), POLLIN, 0};
      if (poll(&event, 1, 0) > 0) {
        if (const auto verdict = Receive(verdicts_.Get())) Exit(*verdict);
      }
      OnEnd(status);
    }
  }

  [[noreturn]] void OnInterrupt(int signal) {
    kill(child_, signal);
    WaitForEnd(child_, kGoodbye);
    Exit({ExitCode::kSignal,
          fmt::format("Cannot mount: interrupted by {} before the mount was "
                      "there",
                      signal == SIGINT    ? "SIGINT"
                      : signal == SIGTERM ? "SIGTERM"
                                          : "SIGHUP")});
  }

  [[noreturn]] void OnEnd(std::optional<int> status) {
    if (status) Exit(SilentEnd(*status));
    Exit({ExitCode::kBug,
          "Cannot mount: the daemon hung up without a word (an error in "
          "sbxfs); try again with -f"});
  }

  const pid_t child_;
  const UniqueFd verdicts_;
  const UniqueFd signals_;
};

// A descriptor above the streams': they may be closed in whoever started us,
// and what would then land there must not be replaced later.
UniqueFd AboveStreams(int fd) {
  UniqueFd low(fd);
  if (fd < 0 || fd > STDERR_FILENO) return low;
  return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

}  // namespace

// Streams go to /dev/null: a shell that collects our output waits for its end.
void LeaveStreams() {
  UniqueFd null = AboveStreams(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.Valid()) throw SystemError("open '/dev/null'", errno);
  std::fflush(nullptr);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (dup2(null.Get(), fd) < 0) {
      throw SystemError("leave the caller's streams", errno);
    }
  }
}

StartUp StartUp::Fork(bool foreground) {
  StartUp start_up;
  if (foreground) return start_up;

  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw SystemError("make a pipe", errno);
  UniqueFd from_child = AboveStreams(ends[0]);
  UniqueFd to_parent = AboveStreams(ends[1]);

  // Blocked before the fork, so that none can be lost in between.
  sigset_t awaited;
  sigset_t before;
  sigemptyset(&awaited);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) {
    sigaddset(&awaited, signal);
  }
  sigprocmask(SIG_BLOCK, &awaited, &before);
  // Without it a SIGCHLD that our starter ignored would be ignored here too.
  std::signal(SIGCHLD, SIG_DFL);
  UniqueFd signals(signalfd(-1, &awaited, SFD_CLOEXEC));
  std::fflush(nullptr);
  const pid_t child = signals.Valid() ? fork() : -1;
  if (child < 0) {
    const int error = errno;
    sigprocmask(SIG_SETMASK, &before, nullptr);
    throw SystemError("start the daemon", error);
  }
  if (child > 0) {
    to_parent.Reset();
    Waiter(child, std::move(from_child), std::move(signals)).Run();
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  start_up.to_parent_ = std::move(to_parent);
  return start_up;
}

void StartUp::Ready() {
  ready_ = true;
  if (!to_parent_.Valid()) return;
  if (setsid() < 0) throw SystemError("leave the caller's session", errno);
  if (chdir("/") != 0) throw SystemError("go to '/'", errno);
  LeaveStreams();
  // A parent that is gone must be an error, not our death.
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  const bool sent = Send(to_parent_.Get(), {ExitCode::kOk, ""});
  std::signal(SIGPIPE, before);
  to_parent_.Reset();
  if (!sent) {
    throw Error(EPIPE,
                "Cannot serve the mount: the process that asked for it is "
                "gone");
  }
}

int StartUp::Fail(ExitCode status, std::string_view sentence) {
  if (to_parent_.Valid()) {
    const auto before = std::signal(SIGPIPE, SIG_IGN);
    Send(to_parent_.Get(), {status, std::string(sentence)});
    std::signal(SIGPIPE, before);
    to_parent_.Reset();
  } else if (ready_) {
    spdlog::error("{}", sentence);
  } else {
    fmt::print(stderr, "sbxfs: {}\n", sentence);
  }
  return static_cast<int>(status);
}

}  // namespace sbxfs
