// sbxfs --status, with mounts that answer, and with some that do not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>

#include "tests/support/debian_guests.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;
namespace stdfs = std::filesystem;

constexpr char kTestUri[] = "test:///default";

class StatusTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
  }
  static Ended Show(const std::vector<std::string>& words = {}) {
    std::vector<std::string> command = {SBXFS_BIN_DIR "/sbxfs", "--status"};
    command.insert(command.end(), words.begin(), words.end());
    return RunProgram(command);
  }
  // To the daemon, which is the child of who holds the mount.
  static void Signal(const std::string& name, const GuestMount& mount) {
    ASSERT_EQ(RunProgram({"pkill", "--signal", name, "-P",
                          std::to_string(mount.Pid())})
                  .status,
              0);
  }
};

TEST_F(StatusTest, NothingIsMounted) {
  const Ended all = Show();
  EXPECT_EQ(all.status, 32);
  EXPECT_EQ(all.out, "");
  EXPECT_EQ(all.err,
            "sbxfs: Cannot show mounts: no sbxfs is mounted here; sbxfs DIR "
            "mounts one\n");
  const Ended one = Show({"/usr"});
  EXPECT_EQ(one.status, 32);
  EXPECT_EQ(one.err,
            "sbxfs: Cannot show '/usr': no sbxfs is mounted there; sbxfs "
            "'/usr' mounts one\n");
}

TEST_F(StatusTest, AMountByAnyOfItsNames) {
  GuestMount mount("cold", kTestUri);
  const std::string dir = mount.Dir();
  const Ended none = Show();
  EXPECT_EQ(none.status, 0) << none.err;
  EXPECT_THAT(none.out,
              MatchesRegex(dir +
                           ": test:///default, connected since [^\n]*\n"
                           "  no sandboxes; mkdir '" +
                           dir + "/box' makes one\n"));

  ASSERT_EQ(mkdir((mount.Dir() / "box").c_str(), 0700), 0);
  const stdfs::path link = mount.Dir().parent_path() / "link";
  stdfs::create_symlink(mount.Dir(), link);
  for (const std::string& name :
       {dir, dir + "/", dir + "/box", dir + "/../mount-1/./box", link.string(),
        link.string() + "/box"}) {
    if (!stdfs::exists(name)) continue;  // of another number
    const Ended ended = Show({name});
    EXPECT_EQ(ended.status, 0) << name << ended.err;
    EXPECT_THAT(ended.out, StartsWith(dir + ": test:///default, connected"));
    EXPECT_THAT(ended.out, HasSubstr("\n  NAME  STATE    IP"));
    EXPECT_THAT(ended.out, HasSubstr("\n  box   stopped"));
  }
  stdfs::remove(link);
  Clear(mount.Dir());
  mount.Stop();
}

// Both are told, and what answers is shown.
TEST_F(StatusTest, DeadAndHangingOnesHoldNobodyUp) {
  GuestMount well("cold", kTestUri);
  GuestMount dead("cold", kTestUri);
  GuestMount hanging("cold", kTestUri);
  ASSERT_EQ(kill(dead.Pid(), SIGKILL), 0);
  Signal("STOP", hanging);
  EXPECT_TRUE(Eventually([&] {
    return Call([&] {
             return access((dead.Dir() / "x").c_str(), F_OK);
           }).error == ENOTCONN;
  }));

  const Stopwatch watch;
  const Ended all = Show();
  EXPECT_LT(watch.Seconds(), 10);
  EXPECT_EQ(all.status, 32);
  EXPECT_THAT(all.out, HasSubstr(well.Dir().string() +
                                 ": test:///default, connected since "));
  EXPECT_THAT(all.out,
              HasSubstr(dead.Dir().string() +
                        ": test:///default, it is dead: its sbxfs was killed; "
                        "fusermount3 -u '" +
                        dead.Dir().string() + "', then mount again"));
  EXPECT_THAT(all.out, HasSubstr(hanging.Dir().string() +
                                 ": test:///default, it does not answer: "));
  EXPECT_EQ(Show({dead.Dir()}).status, 32);
  EXPECT_EQ(Show({well.Dir()}).status, 0);
  // By a link, into what hangs.
  const stdfs::path link = well.Dir().parent_path() / "link";
  stdfs::create_symlink(hanging.Dir(), link);
  EXPECT_EQ(Show({link}).status, 32);
  EXPECT_EQ(Show({link / "box"}).status, 32);
  stdfs::remove(link);

  Signal("CONT", hanging);
  const Ended again = Show({hanging.Dir()});
  EXPECT_EQ(again.status, 0);
  EXPECT_THAT(again.out, Not(HasSubstr("does not answer")));
  dead.Crash();
  hanging.Stop();
  well.Stop();
}

TEST_F(StatusTest, AHypervisorThatIsLost) {
  GuestMount mount("cold");
  EXPECT_EQ(Show({mount.Dir()}).status, 0);
  KillLibvirtd();
  Ended ended;
  EXPECT_TRUE(Eventually([&] {
    ended = Show({mount.Dir()});
    return ended.status == 16;
  }));
  EXPECT_THAT(ended.out, HasSubstr(": qemu:///system, disconnected since "));
  StartLibvirtd();
  EXPECT_TRUE(Eventually([&] { return Show({mount.Dir()}).status == 0; },
                         std::chrono::seconds(60)));
  mount.ExpectLoggedErrors();
  mount.Stop();
}

}  // namespace
}  // namespace sbxfs
