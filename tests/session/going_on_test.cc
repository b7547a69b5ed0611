#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <vector>

#include "fs/channel.h"
#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// A mount that a daemon left, and another that goes on with it.

namespace sbxfs {
namespace {

using std::chrono::milliseconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr milliseconds kBefore{2000};
constexpr milliseconds kStill{250};

class GoingOn : public testing::Test {
 protected:
  uint64_t Start(const std::string& verb) {
    const auto file = fuse_.Open("box/status", O_WRONLY | O_TRUNC);
    EXPECT_EQ(file.error, 0);
    return fuse_.SendWrite(file, verb + '\n');
  }
  void HandOver() {
    ASSERT_TRUE(fuse_.HandsOver(kBefore));
    fuse_.GoOn();
  }

  FakeBackend backend_;
  const std::string uuid_ = backend_.Add("box");
  FakeFuse fuse_{backend_};
};

TEST_F(GoingOn, WhoWaitedIsAnsweredOnceByTheNext) {
  backend_.Hold("act");
  const auto write = Start("start");
  EXPECT_FALSE(fuse_.Answered(write, kStill));
  HandOver();
  EXPECT_FALSE(fuse_.Answered(write, kStill));
  backend_.Release("act");
  EXPECT_EQ(fuse_.Wait(write).error, 0);
  EXPECT_THAT(backend_.Calls(),
              ElementsAre("act box start", "recall", "act box start"));
}

TEST_F(GoingOn, ACrashIsWaitedOutToo) {
  backend_.Hold("act");
  const auto write = Start("start");
  EXPECT_FALSE(fuse_.Answered(write, kStill));
  fuse_.Crash();
  EXPECT_FALSE(fuse_.Answered(write, kStill));
  backend_.Release("act");
  EXPECT_EQ(fuse_.Wait(write).error, 0);
}

TEST_F(GoingOn, WhoWaitsForAJobWaitsOn) {
  EXPECT_EQ(fuse_.Mkdir("box/exec/1"), 0);
  const auto command = fuse_.Open("box/exec/1/command", O_WRONLY);
  const auto write = fuse_.SendWrite(command, "make\n");
  EXPECT_FALSE(fuse_.Answered(write, kStill));
  const auto out = fuse_.Open("box/exec/1/stdout", O_RDONLY);
  FakeJobs& jobs = backend_.GetJobs();
  jobs.Say(jobs.Last(), "one\n", "");
  EXPECT_EQ(fuse_.Read(out), "one\n");
  HandOver();
  EXPECT_FALSE(fuse_.Answered(write, kStill));
  jobs.Say(jobs.Last(), "two\n", "");
  jobs.End(jobs.Last(), 3);
  EXPECT_EQ(fuse_.Wait(write).error, 0);
  EXPECT_EQ(fuse_.Read(out, 4), "two\n");
  EXPECT_EQ(fuse_.Cat("box/exec/1/exit_code"), "3\n");
}

// It would be done twice.
TEST_F(GoingOn, WhatACrashLeavesInDoubtIsNotRepeated) {
  backend_.Hold("act");
  const auto write = Start("restart");
  EXPECT_FALSE(fuse_.Answered(write, kStill));
  fuse_.Crash();
  EXPECT_EQ(fuse_.Wait(write).error, EIO);
  EXPECT_THAT(fuse_.Cat("box/error"),
              HasSubstr("Cannot tell whether 'restart' was done"));
  EXPECT_THAT(backend_.Calls(), ElementsAre("act box restart"));
}

TEST_F(GoingOn, AHandOverWaitsForWhatCannotBeRepeated) {
  backend_.Hold("act");
  const auto write = Start("restart");
  EXPECT_FALSE(fuse_.Answered(write, kStill));
  EXPECT_FALSE(fuse_.HandsOver(kStill));
  // What would begin meanwhile waits for a while, and is not lost.
  const auto mkdir = fuse_.Mkdir("other");
  EXPECT_EQ(mkdir, 0);
  EXPECT_EQ(fuse_.Cat("box/status"), "stopped\n");  // readers do not wait
  backend_.Release("act");
  EXPECT_EQ(fuse_.Wait(write).error, 0);
  EXPECT_TRUE(fuse_.HandsOver(milliseconds(8000)));
  fuse_.GoOn();
  EXPECT_THAT(fuse_.Ls(""), Contains("other"));
}

TEST_F(GoingOn, WhatWasMadeMeanwhileIsThere) {
  backend_.Hold("create");
  const std::string name = std::string("late") + '\0';
  std::string mkdir(8, '\0');
  mkdir += name;
  const auto request = fuse_.Send(FUSE_MKDIR, 1, mkdir);
  EXPECT_FALSE(fuse_.Answered(request, kStill));
  backend_.Add("late");  // the daemon came so far
  fuse_.Crash();
  EXPECT_EQ(fuse_.Wait(request).error, 0);
  EXPECT_THAT(fuse_.Ls(""), Contains("late"));
}

TEST_F(GoingOn, WhatWasRemovedMeanwhileIsGone) {
  backend_.Hold("remove");
  const auto request = fuse_.Send(FUSE_RMDIR, 1, std::string("box") + '\0');
  EXPECT_FALSE(fuse_.Answered(request, kStill));
  backend_.Erase(uuid_);
  fuse_.Crash();
  EXPECT_EQ(fuse_.Wait(request).error, 0);
}

TEST_F(GoingOn, OpenFilesAndNumbersHold) {
  const auto config = fuse_.Open("box/config.yaml", O_RDONLY);
  const auto status = fuse_.Open("box/status", O_RDWR);
  const auto before = fuse_.Stat("box/status");
  const std::string text = fuse_.Read(config);
  for (int round = 0; round < 3; ++round) {
    if (round % 2 == 0) {
      fuse_.Crash();
    } else {
      HandOver();
    }
    EXPECT_EQ(fuse_.Read(config), text);
    EXPECT_EQ(fuse_.Read(status), round == 0 ? "stopped\n" : "running\n");
    EXPECT_EQ(fuse_.Stat("box/status")->ino, before->ino);
    EXPECT_EQ(fuse_.Write(status, "start\n"), 0);
    EXPECT_EQ(fuse_.Flush(status), 0);
  }
  fuse_.Release(config);
  EXPECT_EQ(fuse_.Close(status), 0);
}

TEST_F(GoingOn, WhoPolledAsksAgain) {
  const auto status = fuse_.Open("box/status", O_RDONLY);
  EXPECT_EQ(fuse_.Read(status), "stopped\n");
  EXPECT_EQ(fuse_.Poll(status, 77) & POLLIN, 0U);
  fuse_.Crash();
  EXPECT_TRUE(fuse_.Woken(77, kBefore));
  EXPECT_EQ(fuse_.Read(status), "stopped\n");
  EXPECT_EQ(fuse_.Poll(status, 77) & POLLIN, 0U);
  backend_.Update(uuid_, [](Sandbox& one) { one.state = State::kRunning; });
  EXPECT_TRUE(fuse_.Woken(77, kBefore));
}

TEST_F(GoingOn, HalfADocumentIsLostWithItsDaemonAndSaysSo) {
  const auto file = fuse_.Open("box/config.yaml", O_WRONLY | O_TRUNC);
  EXPECT_EQ(fuse_.Write(file, "cpus: 4\n"), 0);
  fuse_.Crash();
  EXPECT_EQ(fuse_.Write(file, "memory: 1GiB\n", 8), EIO);
  EXPECT_EQ(fuse_.Flush(file), EIO);
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("write it again"));
  EXPECT_THAT(backend_.Calls(), IsEmpty());
  EXPECT_EQ(fuse_.Echo("cpus: 4\n", "box/config.yaml"), 0);
}

TEST_F(GoingOn, HalfADocumentKeepsItsDaemon) {
  const auto file = fuse_.Open("box/config.yaml", O_WRONLY | O_TRUNC);
  EXPECT_EQ(fuse_.Write(file, "cpus: 4\n"), 0);
  EXPECT_FALSE(fuse_.HandsOver(kStill));
  EXPECT_EQ(fuse_.Write(file, "memory: 1GiB\n", 8), 0);
  EXPECT_EQ(fuse_.Flush(file), 0);
  EXPECT_TRUE(fuse_.HandsOver(milliseconds(8000)));
  fuse_.GoOn();
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_THAT(fuse_.Cat("box/config.yaml"), HasSubstr("memory: 1GiB"));
}

TEST_F(GoingOn, AScratchFileKeepsItsDaemon) {
  EXPECT_EQ(fuse_.Copy("text", "box/config.yaml.swp"), 0);
  EXPECT_FALSE(fuse_.HandsOver(kStill));
  EXPECT_EQ(fuse_.Unlink("box/config.yaml.swp"), 0);
  EXPECT_TRUE(fuse_.HandsOver(milliseconds(8000)));
  fuse_.GoOn();
}

// It would end with the daemon, and nobody waits who would have it done again.
TEST_F(GoingOn, WhatIsUnderWayKeepsItsDaemon) {
  backend_.SetUnderWay("start of 'box'");
  EXPECT_FALSE(fuse_.HandsOver(kStill));
  backend_.SetUnderWay("");
  EXPECT_TRUE(fuse_.HandsOver(milliseconds(8000)));
  fuse_.GoOn();
}

TEST_F(GoingOn, ALogGoesOnWhereItsReaderIs) {
  const auto log = fuse_.Open(".host/events", O_RDONLY);
  backend_.Tell({std::chrono::system_clock::now(), "", "", "first", ""});
  const std::string before = fuse_.Read(log);
  EXPECT_THAT(before, HasSubstr("first"));
  fuse_.Crash();
  EXPECT_EQ(fuse_.Read(log, before.size()), "");
  backend_.Tell({std::chrono::system_clock::now(), "", "", "second", ""});
  EXPECT_THAT(fuse_.Read(log, before.size()), HasSubstr("second"));
}

TEST_F(GoingOn, ThousandWaitAndAreAllAnswered) {
  backend_.Hold("act");
  std::vector<uint64_t> waiting;
  const auto file = fuse_.Open("box/status", O_WRONLY | O_TRUNC);
  for (int i = 0; i < 1000; ++i) {
    waiting.push_back(fuse_.SendWrite(file, "start\n"));
  }
  // The kernel keeps what nobody has read; a socket does not.
  for (int i = 0; i < 1000 && backend_.Held("act") < waiting.size(); ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  ASSERT_EQ(backend_.Held("act"), waiting.size());
  fuse_.Crash();
  HandOver();
  backend_.Release("act");
  for (const uint64_t one : waiting) ASSERT_EQ(fuse_.Wait(one).error, 0);
}

TEST(ChannelMemory, OfAnotherVersionIsRefused) {
  const UniqueFd memory = Channel::MakeMemory();
  const uint32_t version = 999;
  ASSERT_EQ(pwrite(memory.Get(), &version, sizeof(version), 0),
            static_cast<ssize_t>(sizeof(version)));
  try {
    const Channel channel(memory.Get());
    FAIL() << "it was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EPROTO);
    EXPECT_THAT(error.Sentence(), HasSubstr("of version 999"));
  }
}

}  // namespace
}  // namespace sbxfs
