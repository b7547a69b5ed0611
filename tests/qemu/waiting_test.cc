// Verbs that wait: their end, their interruption, and who overtakes them.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>
#include <vector>

#include "backend/util/text.h"
#include "tests/support/faults.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

class WaitingTest : public BlankGuests {
 protected:
  [[nodiscard]] std::string StatusFile(const std::string& name) const {
    return Dir() / name / "status";
  }
  [[nodiscard]] Verdict Verb(const std::string& name,
                             const std::string& verb) const {
    return WriteText(StatusFile(name), verb + "\n");
  }
};

TEST_F(WaitingTest, AGuestThatIgnoresStopEndsInATimeout) {
  Mkdir("box");
  Boot("box");
  const Verdict timeout = {
      ETIMEDOUT,
      "Cannot stop 'box': the guest did not shut down within 2 s; write kill "
      "to end it at once"};
  EXPECT_EQ(Verb("box", "stop"), timeout);
  EXPECT_EQ(ReadLine(Dir() / "box/error"), timeout.sentence);
  EXPECT_EQ(Status("box"), "running");
  EXPECT_EQ(Verb("box", "kill"), Verdict{});
  EXPECT_EQ(ReadText(Dir() / "box/error"), "");
}

TEST_F(WaitingTest, AGuestWithoutSshIsNeverReady) {
  Mkdir("box");
  EXPECT_EQ(Verb("box", "start"),
            (Verdict{ETIMEDOUT,
                     "Cannot start 'box': it runs, but could not be used "
                     "within 4 s, waiting for ssh on port " +
                         ReadLine(Dir() / "box/ssh_port") +
                         "; see its console.log, or write kill"}));
  EXPECT_EQ(Status("box"), "running");
  EXPECT_EQ(ReadLine(Dir() / "box/ready"),
            "no: ssh on port " + ReadLine(Dir() / "box/ssh_port"));
}

TEST_F(WaitingTest, PauseOvertakesAStartThatOnlyWaits) {
  Mkdir("box");
  Writer start(StatusFile("box"), "start\n");
  ASSERT_TRUE(Becomes("box", "running"));
  // While libvirt still starts it, it is busy with that.
  Verdict paused;
  ASSERT_TRUE(Eventually([&] {
    paused = Verb("box", "pause");
    return paused.error != EBUSY;
  }));
  EXPECT_EQ(paused, Verdict{});
  const auto verdict = start.Ended();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(*verdict,
            (Verdict{ECANCELED, "Cannot start 'box': pause overtook it"}));
  EXPECT_EQ(Status("box"), "paused");
  EXPECT_EQ(Verb("box", "resume"), Verdict{});
  EXPECT_EQ(Status("box"), "running");
}

TEST_F(WaitingTest, WaitEndsWhenTheStateIsThere) {
  Mkdir("box");
  Writer wait(StatusFile("box"), "wait running\n");
  EXPECT_FALSE(wait.Ended(300ms).has_value());
  Virsh({"start", "box"});
  const auto verdict = wait.Ended();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(*verdict, Verdict{});
}

// What a silent guest agent makes of it: libvirt's call does not come back.
class HungCallTest : public WaitingTest {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    hangs_ = std::make_unique<Hangs>();
    const FaultsPreloaded faults;
    WaitingTest::SetUp();
  }
  void TearDown() override {
    hangs_.reset();
    WaitingTest::TearDown();
  }

  std::unique_ptr<Hangs> hangs_;
};

TEST_F(HungCallTest, AStopEndsInTimeThoughLibvirtsCallDoesNot) {
  Mkdir("box");
  Boot("box");
  hangs_->Begin("virDomainShutdownFlags");
  const Verdict timeout = {
      ETIMEDOUT,
      "Cannot stop 'box': the guest did not shut down within 2 s; write kill "
      "to end it at once"};
  EXPECT_EQ(Verb("box", "stop"), timeout);
  EXPECT_EQ(Status("box"), "running");
  Writer stop(StatusFile("box"), "stop\n");
  ASSERT_TRUE(Becomes("box", "stopping"));
  EXPECT_EQ(Verb("box", "kill"), Verdict{});
  EXPECT_EQ(Status("box"), "stopped");
  const auto verdict = stop.Ended();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(*verdict,
            (Verdict{ECANCELED, "Cannot stop 'box': kill overtook it"}));
}

class LongStopTest : public WaitingTest {
 protected:
  [[nodiscard]] std::string Options() const override {
    return "stop_timeout=120,start_timeout=120";
  }
};

TEST_F(LongStopTest, OnlyWhatWouldEndTheCallerEndsItsWaiting) {
  Mkdir("box");
  Boot("box");
  ASSERT_TRUE(Eventually([&] {
    return WriteText(StatusFile("box"), "stop\n", O_NONBLOCK).error == 0;
  }));
  ASSERT_TRUE(Becomes("box", "stopping"));
  Writer stop(StatusFile("box"), "stop\n");  // joins
  for (const int harmless : {SIGWINCH, SIGCHLD, SIGSTOP, SIGCONT}) {
    stop.Signal(harmless);
    EXPECT_FALSE(stop.Ended(200ms).has_value()) << strsignal(harmless);
  }
  stop.Signal(SIGTERM);
  EXPECT_TRUE(stop.EndedBySignal(SIGTERM));
  EXPECT_EQ(Status("box"), "stopping");  // the action goes on

  const Ended timeout =
      RunProgram({"timeout", "0.5", "sh", "-c", "echo stop > \"$1\"", "sh",
                  StatusFile("box")});
  EXPECT_EQ(timeout.status, 124) << timeout.err;
  EXPECT_EQ(Status("box"), "stopping");

  Writer again(StatusFile("box"), "stop\n");
  EXPECT_FALSE(again.Ended(200ms).has_value());
  EXPECT_EQ(WriteText(StatusFile("box"), "pause\n", O_NONBLOCK),
            (Verdict{EBUSY,
                     "Cannot pause 'box': it is busy with stop; wait for "
                     "that, or write kill"}));
  Virsh({"destroy", "box"});  // as if the guest had shut down at last
  const auto verdict = again.Ended();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(*verdict, Verdict{});
  EXPECT_EQ(Status("box"), "stopped");
}

TEST_F(LongStopTest, AStoppedJobGoesOnWaitingAndItsActionGoesOnWithoutIt) {
  Mkdir("box");
  // As Ctrl-Z and fg in the middle of `echo start > status`.
  Writer start(StatusFile("box"), "start\n");
  ASSERT_TRUE(Becomes("box", "running"));
  start.Signal(SIGSTOP);
  EXPECT_FALSE(start.Ended(300ms).has_value());
  EXPECT_EQ(Verb("box", "pause"), Verdict{});  // a stopped job bars nobody
  EXPECT_EQ(Status("box"), "paused");
  start.Signal(SIGCONT);
  const auto verdict = start.Ended();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(*verdict,
            (Verdict{ECANCELED, "Cannot start 'box': pause overtook it"}));

  // A document that is half written when its writer is stopped is not taken,
  // and one whose writer is ended never is.
  const auto config = [this] { return ReadText(Dir() / "box/config.yaml"); };
  const std::string before = config();
  const std::string script =
      "{ echo 'cpus: 1'; kill -s \"$2\" $$; echo 'memory: 64MiB'; } > \"$1\"";
  const auto half = [&](const char* signal) {
    return RunProgram({"timeout", "--foreground", "-s", "CONT", "0.3", "sh",
                       "-c", script, "sh", Dir() / "box/config.yaml", signal});
  };
  EXPECT_NE(half("KILL").status, 0);
  EXPECT_EQ(config(), before);
  // timeout(1) wakes the stopped one after a while, and then waits for it.
  EXPECT_EQ(half("STOP").status, 124);
  EXPECT_EQ(config(), "cpus: 1\nmemory: 64MiB\n");
}

// Thirty guests that ignore the button, each with a writer in `stop`, beside a
// hundred sandboxes that have nothing to do with them.
TEST_F(LongStopTest, ReadersDoNotWaitForWritersAndKillOvertakesThem) {
  constexpr int kGuests = 30;
  constexpr int kOthers = 100;
  auto name = [](int i) { return fmt::format("box{}", i); };
  for (int i = 0; i < kGuests + kOthers; ++i) Mkdir(name(i));
  for (int i = 0; i < kGuests; ++i) {
    ASSERT_EQ(WriteText(StatusFile(name(i)), "start\n", O_NONBLOCK), Verdict{});
  }
  for (int i = 0; i < kGuests; ++i) {
    ASSERT_TRUE(Becomes(name(i), "running", 60s)) << name(i);
  }
  std::vector<Writer> writers;
  for (int i = 0; i < kGuests; ++i) {
    writers.emplace_back(StatusFile(name(i)), "stop\n");
  }
  for (int i = 0; i < kGuests; ++i) {
    ASSERT_TRUE(Becomes(name(i), "stopping")) << name(i);
  }

  auto before = Clock::now();
  const Ended ls = RunProgram({"ls", "-l", Dir().string()});
  const auto list_time = Clock::now() - before;
  EXPECT_EQ(std::count(ls.out.begin(), ls.out.end(), '\n'),
            kGuests + kOthers + 1);
  before = Clock::now();
  const Ended cat =
      RunProgram({"sh", "-c", "cat \"$1\"/*/status", "sh", Dir().string()});
  const auto read_time = Clock::now() - before;
  EXPECT_EQ(cat.status, 0) << cat.err;
  const auto lines = Split(cat.out, '\n');
  EXPECT_EQ(std::count(lines.begin(), lines.end(), "stopping"), kGuests);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), "stopped"), kOthers);
  EXPECT_LT(list_time, 5s);
  EXPECT_LT(read_time, 5s);

  Clock::duration longest{};
  for (int i = 0; i < kGuests; ++i) {
    before = Clock::now();
    EXPECT_EQ(WriteText(StatusFile(name(i)), "kill\n", O_NONBLOCK), Verdict{});
    longest = std::max(longest, Clock::now() - before);
    const auto verdict = writers[static_cast<std::size_t>(i)].Ended();
    ASSERT_TRUE(verdict.has_value()) << name(i);
    EXPECT_EQ(*verdict,
              (Verdict{ECANCELED, fmt::format("Cannot stop '{}': kill overtook "
                                              "it",
                                              name(i))}));
  }
  EXPECT_LT(longest, 3s);
  for (int i = 0; i < kGuests; ++i) {
    EXPECT_TRUE(Becomes(name(i), "stopped", 60s)) << name(i);
  }
  auto milliseconds = [](Clock::duration time) {
    return static_cast<int>(
        std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
  };
  RecordProperty("ls_ms", milliseconds(list_time));
  RecordProperty("cat_ms", milliseconds(read_time));
  RecordProperty("longest_kill_ms", milliseconds(longest));
  fmt::print("ls {} ms, cat {} ms, longest kill {} ms\n",
             milliseconds(list_time), milliseconds(read_time),
             milliseconds(longest));
}

}  // namespace
}  // namespace sbxfs
