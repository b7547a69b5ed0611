// qemu:///session, as a user without rights meets it: no daemon set up
// beforehand, nothing of root's.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <memory>
#include <string>

#include "tests/support/guest_mount.h"
#include "tests/support/session_user.h"

namespace sbxfs {
namespace {

// `nobody`: the one user every machine has, and without a home of its own.
constexpr uid_t kUser = 65534;

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    user_ = std::make_unique<SessionUser>(kUser, "session");
    std::ofstream(user_->Home() / "blank") << BlankDisk();
    ASSERT_EQ(chmod((user_->Home() / "blank").c_str(), 0644), 0);
    before_ = World::Now();
  }
  void TearDown() override {
    if (user_ == nullptr) return;
    if (!ended_) (void)Sh("fusermount3 -uz tree");
    user_.reset();
    EXPECT_EQ(World::Now(), before_);
  }

  [[nodiscard]] Ended Sh(const std::string& script) const {
    return user_->Sh(script);
  }
  [[nodiscard]] std::string Said(const std::string& script) const {
    return user_->Said(script);
  }
  [[nodiscard]] std::string Processes() const { return user_->Processes(); }

  std::unique_ptr<SessionUser> user_;
  World before_;
  bool ended_ = false;
};

TEST_F(SessionTest, TheMainJobWithoutAnySetUp) {
  EXPECT_EQ(Said("./sbxfs -o start_timeout=1 qemu:///session tree"), "");
  EXPECT_EQ(Said("cat tree/.host/uri"), "qemu:///session\n");
  // Its memory is for root alone to see, and in no core dump.
  // So is that of the process that holds the mount.
  EXPECT_EQ(Said("for pid in $(pgrep -U $(id -u) -x sbxfs); do "
                 "stat -c %u /proc/$pid/mem; done"),
            "0\n0\n");
  EXPECT_EQ(Said("cp blank tree/.host/images/blank;"
                 "echo 'images: [{location: blank}]' > tree/box.yaml;"
                 "echo 1 > tree/box/cpus; echo 32MiB > tree/box/memory;"
                 "ls tree; cat tree/box/status"),
            "box\nstopped\n");
  const Ended start = Sh("echo start > tree/box/status");  // it has no ssh
  EXPECT_NE(start.status, 0);
  EXPECT_EQ(Said("cat tree/box/status"), "running\n");
  const std::string error = Said("cat tree/box/error");
  EXPECT_TRUE(
      error.starts_with("Cannot start 'box': it runs, but could not be "
                        "used within 1 s"))
      << error;
  // Its guest is a process of that user's, whose port is on loopback.
  EXPECT_NE(Processes().find("qemu-system"), std::string::npos) << Processes();
  const int port = std::stoi(Said("cat tree/box/ssh_port"));
  EXPECT_NE(World::Now().ports.find(fmt::format("0100007F:{:04X}\n", port)),
            std::string::npos);
  // Nothing of it is root's or the system's.
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), before_.domains);
  EXPECT_EQ(Said("virsh -q -c qemu:///session list --name"), "box\n");

  EXPECT_EQ(Said("mkdir tree/box/snapshots/a; cat tree/box/snapshots/a/kind"),
            "disk\n");
  EXPECT_EQ(Said("echo kill > tree/box/status; cat tree/box/status;"
                 "rmdir tree/box tree/.host/trash/box; ls tree"),
            "stopped\n");
  EXPECT_EQ(Said("rm tree/.host/images/blank; fusermount3 -u tree"), "");
  ended_ = true;
  EXPECT_EQ(Said("virsh -q -c qemu:///session list --all --name"), "");
  // But whose pool it is.
  EXPECT_EQ(Said("virsh -q -c qemu:///session vol-list sbxfs | awk '{print "
                 "$1}'"),
            "hypervisor." +
                Said("virsh -q -c qemu:///session pool-uuid sbxfs | head -1"));
}

}  // namespace
}  // namespace sbxfs
