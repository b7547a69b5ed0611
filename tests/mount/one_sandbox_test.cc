#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "tests/support/guest_mount.h"

// An agent that has exactly one sandbox, as sbxfs-agent(7) says: by bwrap,
// which shows it that directory and of the tree nothing else.

namespace sbxfs {
namespace {

using testing::HasSubstr;

class OneSandbox : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    if (RunProgram({"bwrap", "--version"}).status != 0) {
      GTEST_SKIP() << "no bwrap";
    }
    mount_ = std::make_unique<GuestMount>("cold");
    MakeBlank(mount_->Dir() / ".host");
    for (const char* name : {"box", "other"}) {
      ASSERT_EQ(mkdir((mount_->Dir() / name).c_str(), 0700), 0);
    }
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    Clear(mount_->Dir());
    mount_->Stop();
  }
  // What a shell of the agent's says, which begins in its sandbox.
  Ended Agent(const std::string& script) const {
    const std::string dir = mount_->Dir();
    return RunProgram({"bwrap", "--dev-bind", "/", "/", "--tmpfs", dir,
                       "--bind", dir + "/box", dir + "/box", "--chdir",
                       dir + "/box", "sh", "-c", script});
  }
  void AgentSays(const std::string& script, const std::string& out) const {
    const Ended ended = Agent(script);
    EXPECT_EQ(ended.status, 0) << script << '\n' << ended.err;
    EXPECT_EQ(ended.out, out) << script;
  }

  std::unique_ptr<GuestMount> mount_;
};

TEST_F(OneSandbox, IsAllThatItSees) {
  AgentSays("ls -A ..", "box\n");
  EXPECT_NE(Agent("cat ../.host/list").status, 0);
  EXPECT_NE(Agent("cat ../other/status").status, 0);
  EXPECT_NE(Agent("mkdir ../more; cat ../more/status").status, 0);
}

TEST_F(OneSandbox, CanBeSetUpStartedAndLookedAt) {
  AgentSays("cat status; echo 'a task' > description; cat description",
            "stopped\na task\n");
  AgentSays("echo 18080 > ports/80 && cat ports/80 && rm ports/80", "18080\n");
  AgentSays(
      "new=$SBXFS_INSIDE/agent.yaml; cp config.yaml $new; "
      "echo 'autostart: true' >> $new; cp $new config.yaml; cat autostart",
      "yes\n");
  AgentSays("mkdir snapshots/a && ls snapshots && rmdir snapshots/a", "a\n");
  const Ended wrong = Agent("echo strat > status || cat error");
  EXPECT_THAT(wrong.out, HasSubstr("'strat'"));
  EXPECT_EQ(ReadLine(mount_->Dir() / "box/description"), "a task");
  EXPECT_EQ(ReadLine(mount_->Dir() / "other/description"), "");
}

// It sees none of those it makes, but they are there.
TEST_F(OneSandbox, MayBeClonedAndDestroyedButNotTakenAway) {
  const Ended taken = Agent("rmdir ../box; mv ../box ../it");
  EXPECT_THAT(taken.err, HasSubstr("Device or resource busy"));
  AgentSays("mkdir snapshots/a && mkdir snapshots/a/clones/twin; ls -A ..",
            "box\n");
  EXPECT_EQ(ReadLine(mount_->Dir() / "twin/status"), "stopped");
  AgentSays("echo destroy > status", "");
  EXPECT_TRUE(Eventually([&] {
    return Call([&] {
             return access((mount_->Dir() / "box").c_str(), F_OK);
           }).error == ENOENT;
  }));
}

}  // namespace
}  // namespace sbxfs
