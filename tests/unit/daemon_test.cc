#include "fs/daemon.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <iterator>
#include <string>
#include <thread>

#include "backend/util/error.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) std::abort();
    read_end.Reset(ends[0]);
    write_end.Reset(ends[1]);
  }
  // Everything up to the end; the write end here is closed first.
  std::string Drain() {
    write_end.Reset();
    std::string text;
    char buffer[4096];
    ssize_t length;
    while ((length = read(read_end.Get(), buffer, sizeof buffer)) > 0) {
      text.append(buffer, static_cast<std::size_t>(length));
    }
    return text;
  }
  UniqueFd read_end;
  UniqueFd write_end;
};

// A program that starts up and then lives `serve`, with its stderr collected
// and a side channel over which the serving process can tell of itself.
class Started {
 public:
  using Serve = std::function<int(StartUp&, int side)>;

  explicit Started(const Serve& serve) {
    std::fflush(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    dup2(errors_.write_end.Get(), STDERR_FILENO);
    errors_.write_end.Reset();
    StartUp start_up = StartUp::Fork(false);
    _exit(serve(start_up, side_.write_end.Get()));
  }
  // As waitpid tells it; the process is over after it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    return status;
  }
  int ExitStatus() {
    const int status = Wait();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string Errors() { return errors_.Drain(); }
  std::string Side() { return side_.Drain(); }
  // A byte from the serving process: it has come so far.
  void Await() {
    char byte;
    ASSERT_EQ(read(side_.read_end.Get(), &byte, 1), 1);
  }
  [[nodiscard]] pid_t Pid() const { return pid_; }

 private:
  Pipe errors_;
  Pipe side_;
  pid_t pid_ = -1;
};

void Tell(int side, const std::string& text) {
  ASSERT_EQ(write(side, text.data(), text.size()),
            static_cast<ssize_t>(text.size()));
}

TEST(Daemon, SuccessLetsTheParentExitZero) {
  Started started([](StartUp& start_up, int side) {
    start_up.Ready();
    // The parent is gone already, or soon is: this is seen after its end.
    std::this_thread::sleep_for(milliseconds(100));
    Tell(side, "served");
    return 0;
  });
  EXPECT_EQ(started.ExitStatus(), 0);
  EXPECT_EQ(started.Errors(), "");
  EXPECT_EQ(started.Side(), "served");
}

TEST(Daemon, TheParentWaitsForReady) {
  const auto before = steady_clock::now();
  Started started([](StartUp& start_up, int) {
    std::this_thread::sleep_for(milliseconds(300));
    start_up.Ready();
    return 0;
  });
  EXPECT_EQ(started.ExitStatus(), 0);
  EXPECT_GE(steady_clock::now() - before, milliseconds(300));
}

TEST(Daemon, ReadyLeavesSessionDirectoryAndStreams) {
  Started started([](StartUp& start_up, int side) {
    const pid_t session = getsid(0);
    start_up.Ready();
    std::string facts = getsid(0) == getpid() && getsid(0) != session
                            ? "session "
                            : "no session ";
    char path[4096];
    facts += getcwd(path, sizeof path);
    for (const char* fd :
         {"/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"}) {
      const ssize_t length = readlink(fd, path, sizeof path);
      facts += ' ' + std::string(path, path + length);
    }
    Tell(side, facts);
    return 0;
  });
  EXPECT_EQ(started.ExitStatus(), 0);
  EXPECT_EQ(started.Side(), "session / /dev/null /dev/null /dev/null");
}

// `x=$(sbxfs ...)` ends when the mount is there, not when it is gone.
TEST(Daemon, StreamsEndWhileTheDaemonLives) {
  Started started([](StartUp& start_up, int side) {
    start_up.Ready();
    Tell(side, "r");
    std::this_thread::sleep_for(std::chrono::seconds(5));
    return 0;
  });
  const auto before = steady_clock::now();
  EXPECT_EQ(started.Errors(), "");
  EXPECT_LT(steady_clock::now() - before, milliseconds(4500));
  EXPECT_EQ(started.ExitStatus(), 0);
}

TEST(Daemon, FailureGivesStatusAndSentence) {
  Started started([](StartUp& start_up, int) {
    return start_up.Fail(ExitCode::kFailure,
                         "Cannot connect to 'qemu:///system': refused");
  });
  EXPECT_EQ(started.ExitStatus(), 32);
  EXPECT_EQ(started.Errors(),
            "sbxfs: Cannot connect to 'qemu:///system': refused\n");
}

TEST(Daemon, NothingIsLeftWhenAFailureIsTold) {
  Started started([](StartUp& start_up, int side) {
    const int status = start_up.Fail(ExitCode::kSystem, "Cannot x");
    std::this_thread::sleep_for(std::chrono::seconds(3));
    Tell(side, "cleaned");
    return status;
  });
  EXPECT_EQ(started.ExitStatus(), 2);
  // The side channel's other end has closed: no waiting here.
  const auto before = steady_clock::now();
  EXPECT_EQ(started.Side(), "cleaned");
  EXPECT_LT(steady_clock::now() - before, milliseconds(2500));
}

TEST(Daemon, ALongSentenceIsCutNotLost) {
  Started started([](StartUp& start_up, int) {
    return start_up.Fail(ExitCode::kFailure, std::string(100000, 'x'));
  });
  EXPECT_EQ(started.ExitStatus(), 32);
  EXPECT_EQ(started.Errors(), "sbxfs: " + std::string(4095, 'x') + "\n");
}

TEST(Daemon, SilentEndIsReported) {
  Started started([](StartUp&, int) { return 7; });
  EXPECT_EQ(started.ExitStatus(), 4);
  EXPECT_EQ(started.Errors(),
            "sbxfs: Cannot mount: the daemon ended with status 7 and without "
            "a word (an error in sbxfs); try again with -f\n");
}

TEST(Daemon, SilentDeathIsReported) {
  const struct {
    int signal;
    int status;
    const char* words;
  } kCases[] = {
      {SIGABRT, 4,
       "sbxfs: Cannot mount: the daemon was ended by signal 6 (Aborted) "
       "before the mount was there; try again with -f\n"},
      {SIGKILL, 8,
       "sbxfs: Cannot mount: the daemon was ended by signal 9 (Killed) "
       "before the mount was there\n"},
  };
  for (const auto& [signal, status, words] : kCases) {
    Started started([signal = signal](StartUp&, int) {
      prctl(PR_SET_DUMPABLE, 0);
      // ASan would turn SIGABRT into an exit.
      std::signal(SIGABRT, SIG_DFL);
      raise(signal);
      return 0;
    });
    EXPECT_EQ(started.ExitStatus(), status);
    EXPECT_EQ(started.Errors(), words);
  }
}

// A process that the daemon left behind holds the pipe open.
TEST(Daemon, SilentDeathIsSeenThroughAGrandchild) {
  const auto before = steady_clock::now();
  Started started([](StartUp&, int) {
    if (fork() == 0) {
      close(STDERR_FILENO);
      std::this_thread::sleep_for(std::chrono::seconds(5));
      _exit(0);
    }
    return 3;
  });
  EXPECT_EQ(started.ExitStatus(), 4);
  EXPECT_LT(steady_clock::now() - before, milliseconds(4500));
}

TEST(Daemon, InterruptionIsPassedOn) {
  const struct {
    int signal;
    const char* name;
  } kCases[] = {{SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGHUP, "SIGHUP"}};
  for (const auto& [signal, name] : kCases) {
    Started started([signal = signal](StartUp&, int side) {
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, signal);
      sigprocmask(SIG_BLOCK, &set, nullptr);
      Tell(side, "r");
      int got = 0;
      sigwait(&set, &got);
      Tell(side, "got " + std::to_string(got));
      return 0;
    });
    started.Await();
    kill(started.Pid(), signal);
    EXPECT_EQ(started.ExitStatus(), 8);
    EXPECT_EQ(started.Side(), "got " + std::to_string(signal));
    EXPECT_EQ(started.Errors(), "sbxfs: Cannot mount: interrupted by " +
                                    std::string(name) +
                                    " before the mount was there\n");
  }
}

// Signals at swept delays: whatever the moment, one of the two outcomes.
TEST(Daemon, InterruptionAtAnyMoment) {
  for (int delay = 0; delay < 20; ++delay) {
    Started started([](StartUp& start_up, int side) {
      std::signal(SIGTERM, [](int) { _exit(0); });
      std::this_thread::sleep_for(milliseconds(5));
      start_up.Ready();
      Tell(side, "ready");
      return 0;
    });
    std::this_thread::sleep_for(milliseconds(delay / 2));
    kill(started.Pid(), SIGTERM);
    const int status = started.ExitStatus();
    const std::string side = started.Side();
    // -15: before Fork had blocked the signal.
    EXPECT_TRUE(status == 0 || status == 8 || status == -SIGTERM) << status;
    if (status == 0) {
      EXPECT_EQ(side, "ready");
    }
  }
}

TEST(Daemon, AParentThatIsGoneIsAnError) {
  Started started([](StartUp& start_up, int side) {
    const pid_t parent = getppid();
    Tell(side, "r");
    // Until it has been waited for: a sanitizer gives it a thread of its own,
    // which has the pipe for a moment after the first one's end.
    while (kill(parent, 0) == 0) std::this_thread::sleep_for(milliseconds(5));
    try {
      start_up.Ready();
      Tell(side, "ready");
    } catch (const Error& error) {
      Tell(side, std::to_string(error.Errno()) + ' ' + error.Sentence());
    }
    return 0;
  });
  started.Await();
  kill(started.Pid(), SIGKILL);
  EXPECT_EQ(started.ExitStatus(), -SIGKILL);
  EXPECT_EQ(started.Side(),
            std::to_string(EPIPE) +
                " Cannot serve the mount: the process that asked for it is "
                "gone");
}

TEST(Daemon, ForegroundStaysTheSameProcess) {
  Pipe errors;
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(errors.write_end.Get(), STDERR_FILENO);
    const pid_t self = getpid();
    const pid_t session = getsid(0);
    StartUp start_up = StartUp::Fork(true);
    if (getpid() != self) _exit(1);
    if (start_up.Fail(ExitCode::kFailure, "Cannot x") != 32) _exit(3);
    start_up.Ready();
    _exit(getsid(0) == session ? 0 : 4);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(errors.Drain(), "sbxfs: Cannot x\n");
}

// As cron or a careless service starts programs.
TEST(Daemon, WorksWithStreamsClosedAndChildrenIgnored) {
  Pipe side;
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    const int told = side.write_end.Get();
    std::signal(SIGCHLD, SIG_IGN);
    for (const int fd : {0, 1, 2}) close(fd);
    StartUp start_up = StartUp::Fork(false);
    start_up.Ready();
    char path[64];
    std::string facts;
    for (const char* fd :
         {"/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"}) {
      const ssize_t length = readlink(fd, path, sizeof path);
      facts += std::string(path, path + length) + ' ';
    }
    Tell(told, facts);
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(side.Drain(), "/dev/null /dev/null /dev/null ");
}

}  // namespace
}  // namespace sbxfs
