#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// Requests that wait: verbs, interrupts, overtaking, time limits, poll.

namespace sbxfs {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr milliseconds kSoon{2000};
constexpr milliseconds kNotYet{250};

// A stopped process, in which signals stay pending as in a waiting one.
class Pending {
 public:
  Pending() : pid(fork()) {
    if (pid == 0) {
      for (const int one : {SIGWINCH, SIGCHLD, SIGURG, SIGUSR1}) {
        std::signal(one, [](int) {});
      }
      raise(SIGSTOP);
      _exit(0);
    }
    waitpid(pid, nullptr, WUNTRACED);
  }
  ~Pending() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  void Signal(int signal) const { kill(pid, signal); }
  const pid_t pid;
};

class Waiting : public testing::Test {
 protected:
  Waiting() { backend_.Hold("act"); }

  uint64_t Start(const std::string& verb) {
    const auto file = fuse_.Open("box/status", O_WRONLY | O_TRUNC);
    EXPECT_EQ(file.error, 0);
    return fuse_.SendWrite(file, verb + '\n');
  }

  FakeBackend backend_;
  const std::string uuid_ = backend_.Add("box");
  FakeFuse fuse_{backend_};
};

TEST_F(Waiting, AVerbAnswersWhenItsStateIsReached) {
  const auto write = Start("start");
  EXPECT_FALSE(fuse_.Answered(write, kNotYet));
  EXPECT_EQ(fuse_.Cat("box/status"), "stopped\n");  // readers do not wait
  backend_.Release("act");
  EXPECT_EQ(fuse_.Wait(write).error, 0);
  EXPECT_EQ(fuse_.Cat("box/status"), "running\n");
}

TEST_F(Waiting, NonblockingReturnsOnceTaken) {
  const auto file = fuse_.Open("box/status", O_WRONLY | O_NONBLOCK);
  EXPECT_EQ(fuse_.Write(file, "start\n"), 0);
  EXPECT_THAT(backend_.Calls(), ElementsAre("act box start nowait"));
}

TEST_F(Waiting, WaitState) {
  const auto write = Start("wait running");
  EXPECT_FALSE(fuse_.Answered(write, kNotYet));
  backend_.Update(uuid_, [](Sandbox& one) { one.state = State::kRunning; });
  EXPECT_EQ(fuse_.Wait(write).error, 0);
  EXPECT_EQ(fuse_.Wait(Start("wait running")).error, 0);
  EXPECT_EQ(fuse_.Wait(Start("wait rnning")).error, EINVAL);
  const auto file = fuse_.Open("box/status", O_WRONLY | O_NONBLOCK);
  EXPECT_EQ(fuse_.Write(file, "wait stopped\n"), EAGAIN);
}

TEST_F(Waiting, AnEndingSignalEndsTheWaiting) {
  const Pending writer;
  fuse_.caller.pid = writer.pid;
  const auto write = Start("start");
  writer.Signal(SIGTERM);
  fuse_.Interrupt(write);
  EXPECT_TRUE(fuse_.Answered(write, kSoon));
  EXPECT_EQ(fuse_.Wait(write).error, EINTR);
  EXPECT_EQ(fuse_.Cat("box/error"), "");  // the action goes on
}

TEST_F(Waiting, AResizeDoesNotButWhatComesAfterDoes) {
  const Pending writer;
  fuse_.caller.pid = writer.pid;
  const auto write = Start("start");
  writer.Signal(SIGWINCH);
  writer.Signal(SIGCHLD);
  fuse_.Interrupt(write);
  EXPECT_FALSE(fuse_.Answered(write, kNotYet));
  writer.Signal(SIGINT);
  EXPECT_TRUE(fuse_.Answered(write, milliseconds(500)));
  EXPECT_EQ(fuse_.Wait(write).error, EINTR);
}

TEST_F(Waiting, AnInterruptBeforeItsRequestCounts) {
  fuse_.caller.pid = 0;  // of a pid namespace that cannot be seen
  const auto file = fuse_.Open("box/status", O_WRONLY);
  const auto first = fuse_.SendWrite(file, "start\n");
  fuse_.Interrupt(first + 2);
  const auto second = fuse_.SendWrite(file, "start\n");
  EXPECT_TRUE(fuse_.Answered(second, kSoon));
  EXPECT_FALSE(fuse_.Answered(first, milliseconds(50)));
}

TEST_F(Waiting, KillOvertakes) {
  const auto waiting = fuse_.Walk("box/status");
  const auto write = Start("stop");
  EXPECT_FALSE(fuse_.Answered(write, milliseconds(50)));
  // The kernel lets one writer into an inode at a time: here is another.
  const auto fresh = fuse_.Walk("box/status");
  EXPECT_NE(fresh, waiting);
  EXPECT_EQ(fuse_.Walk("box/status"), fresh);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(fuse_.Echo("kill", "box/status"), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_EQ(fuse_.Wait(write).error, ECANCELED);
  EXPECT_EQ(fuse_.Walk("box/status"), fresh);
}

TEST_F(Waiting, ThirtyWritersHoldNobodyUp) {
  std::vector<uint64_t> writes;
  for (int i = 0; i < 30; ++i) {
    const std::string name = "box" + std::to_string(i);
    backend_.Add(name);
    const auto file = fuse_.Open(name + "/status", O_WRONLY | O_TRUNC);
    writes.push_back(fuse_.SendWrite(file, "stop\n"));
  }
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(fuse_.Cat("box" + std::to_string(i) + "/status"), "stopped\n");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(fuse_.Echo("kill", "box" + std::to_string(i) + "/status"), 0);
    EXPECT_EQ(fuse_.Wait(writes[static_cast<size_t>(i)]).error, ECANCELED);
  }
}

TEST_F(Waiting, TheEndOfTheMountEndsTheWaiting) {
  const auto write = Start("start");
  while (backend_.Held("act") == 0) usleep(1000);
  fuse_.StopSession();
  EXPECT_EQ(fuse_.Wait(write).error, EINTR);
}

TEST_F(Waiting, NamespaceOperationsAreAnsweredWithinTwoSeconds) {
  backend_.Hold("create");
  backend_.Hold("remove");
  backend_.Hold("rename");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(fuse_.Mkdir("new"), ETIMEDOUT);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  EXPECT_EQ(fuse_.Rmdir("box"), ETIMEDOUT);
  EXPECT_EQ(fuse_.Rename("box", "other"), ETIMEDOUT);
  EXPECT_THAT(fuse_.Cat(".host/error"),
              HasSubstr("Cannot make 'new': the hypervisor did not answer"));
  // The backend sees that nobody waits and undoes it.
  backend_.Release("create");
  EXPECT_EQ(backend_.Find("new"), nullptr);
}

TEST_F(Waiting, SlowFactsAreShownAsTheyWere) {
  backend_.Hold("refresh");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(fuse_.Cat("box/usage"), HasSubstr("disk_bytes 1048576\n"));
  const auto took = std::chrono::steady_clock::now() - start;
  EXPECT_GE(took, milliseconds(450));
  EXPECT_LT(took, std::chrono::seconds(10));
}

TEST_F(Waiting, APollerIsWokenByAChange) {
  const auto file = fuse_.Open("box/status", O_RDONLY);
  EXPECT_NE(fuse_.Poll(file) & POLLIN, 0u);  // it has read nothing yet
  EXPECT_EQ(fuse_.Read(file), "stopped\n");
  EXPECT_EQ(fuse_.Poll(file, 77) & (POLLIN | POLLPRI), 0u);
  backend_.Update(uuid_, [](Sandbox& one) { one.cpus = 9; });
  EXPECT_FALSE(fuse_.Woken(77, kNotYet));
  backend_.Update(uuid_, [](Sandbox& one) { one.state = State::kRunning; });
  EXPECT_TRUE(fuse_.Woken(77, milliseconds(50)));
  EXPECT_EQ(fuse_.Poll(file) & (POLLIN | POLLPRI), POLLIN | POLLPRI);
  EXPECT_EQ(fuse_.Read(file), "running\n");
  EXPECT_EQ(fuse_.Poll(file) & POLLIN, 0u);
  EXPECT_EQ(fuse_.Close(file), 0);
}

TEST_F(Waiting, FilesWithoutPollAreAlwaysReady) {
  const auto file = fuse_.Open("box/cpus", O_RDWR);
  EXPECT_EQ(fuse_.Poll(file, 5) & (POLLIN | POLLOUT), POLLIN | POLLOUT);
}

TEST_F(Waiting, EventsGrowAndWake) {
  const auto file = fuse_.Open(".host/events", O_RDONLY);
  EXPECT_EQ(fuse_.Read(file), "");
  EXPECT_EQ(fuse_.Poll(file, 78) & POLLIN, 0u);
  const Time time{std::chrono::milliseconds(1795550462123)};
  backend_.Tell({time, uuid_, "box", "state", "running"});
  EXPECT_TRUE(fuse_.Woken(78, milliseconds(50)));
  const std::string line = "2026-11-24T20:01:02.123Z box state running\n";
  EXPECT_EQ(fuse_.Read(file), line);
  EXPECT_EQ(fuse_.Stat(".host/events")->size, line.size());
  EXPECT_EQ(fuse_.Read(file, line.size()), "");
  backend_.Tell({time, "", "", "connection", "lost"});
  EXPECT_EQ(fuse_.Read(file, line.size()),
            "2026-11-24T20:01:02.123Z .host connection lost\n");
  EXPECT_EQ(fuse_.Cat("box/events"), line);
  EXPECT_EQ(fuse_.Stat("box/events")->mtime, 1795550462u);
}

TEST_F(Waiting, TheConsoleGrowsUnderItsReader) {
  const auto say = [&](const std::string& text) {
    backend_.Update(uuid_, [&](Sandbox& one) {
      one.state = State::kRunning;
      one.console = std::make_shared<const std::string>(text);
    });
  };
  say("login");
  const auto file = fuse_.Open("box/console.log", O_RDONLY);
  EXPECT_EQ(fuse_.Read(file), "login");
  EXPECT_EQ(fuse_.Read(file, 5), "");
  say("login: ");
  EXPECT_EQ(fuse_.Stat("box/console.log")->size, 7u);
  EXPECT_EQ(fuse_.Read(file, 5), ": ");
}

TEST_F(Waiting, ForgottenNodesGoAndKeepTheirNumbers) {
  const auto number = fuse_.Walk("box/cpus");
  EXPECT_EQ(fuse_.Walk("box/cpus"), number);
  fuse_.Forget(number, 1);
  EXPECT_EQ(fuse_.Call(FUSE_GETATTR, number, std::string(16, '\0')).error, 0);
  fuse_.Forget(number, 1);
  // Forgets have no answer; the next lookup comes after them.
  EXPECT_EQ(fuse_.Walk("box/memory") == number, false);
  EXPECT_EQ(fuse_.Call(FUSE_GETATTR, number, std::string(16, '\0')).error,
            ESTALE);
  EXPECT_EQ(fuse_.Walk("box/cpus"), number);
}

TEST_F(Waiting, ALostHypervisorIsToldAndReadsGoOn) {
  backend_.UpdateHost([](Host& host) {
    host.connected = false;
    host.why = "Connection reset by peer; it is tried again each second";
  });
  backend_.Fail("create", Error(EHOSTDOWN, "Cannot make 'new': no connection"));
  EXPECT_EQ(fuse_.Mkdir("new"), EHOSTDOWN);
  EXPECT_THAT(fuse_.Cat(".host/connection"),
              testing::StartsWith("disconnected since "));
  EXPECT_THAT(fuse_.Cat(".host/connection"), HasSubstr("reset by peer"));
  EXPECT_EQ(fuse_.Cat("box/status"), "stopped\n");
}

}  // namespace
}  // namespace sbxfs
