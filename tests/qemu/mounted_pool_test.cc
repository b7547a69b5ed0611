// Pools on a file system that libvirt mounts: of type fs on a block device, and
// of type netfs on a volume of Gluster's, where its server is installed, which
// tests/run --long does.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "backend/util/unique_fd.h"
#include "tests/qemu/disk_guests.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class MountedPool : public DiskGuests {
 protected:
  void TearDown() override {
    if (mount_ == nullptr) return;
    DiskGuests::TearDown();
    Virsh({"pool-destroy", "files"});
    Virsh({"pool-undefine", "files"});
    EXPECT_FALSE(IsMounted());
  }
  [[nodiscard]] std::string Options() const override {
    return std::string(kOptions) + ",pool=files";
  }
  [[nodiscard]] static stdfs::path State() {
    return std::getenv("SBXFS_INSIDE");
  }
  [[nodiscard]] static stdfs::path Target() { return State() / "files"; }
  [[nodiscard]] static bool IsMounted() {
    return RunProgram({"mountpoint", "-q", Target().string()}).status == 0;
  }
  // All that is done with sandboxes, with all of it in that pool.
  void WholeLife();
};

void MountedPool::WholeLife() {
  ASSERT_TRUE(IsMounted());  // for the sake of this mount
  struct statvfs room {};
  ASSERT_EQ(statvfs(Target().c_str(), &room), 0);
  EXPECT_EQ(Capacity("pool"), "files");
  EXPECT_EQ(Capacity("pool_bytes"),
            std::to_string(room.f_blocks * room.f_frsize));
  ASSERT_EQ(SetDisk("data", "16MiB"), Verdict{});
  Mkdir("box");
  ASSERT_EQ(NameDisks("box", "data"), Verdict{});
  Boot("box");
  EXPECT_EQ(SetDisk("data", "32MiB"), Verdict{});
  EXPECT_NE(Virsh({"domblkinfo", "box", "vdc"}).find("33554432"),
            std::string::npos);
  UseOwnDisk("box");
  EXPECT_EQ(mkdir((Dir() / "box/clones/twin").c_str(), 0777), 0);
  EXPECT_EQ(Write("box", "kill"), Verdict{});
  Boot("twin");
  EXPECT_EQ(Write("twin", "kill"), Verdict{});
  EXPECT_EQ(rmdir((Dir() / "box").c_str()), 0);
  EXPECT_EQ(ReadText(Host() / "error"), "");
}

class FsPool : public MountedPool {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    if (!HasLoopDevices()) GTEST_SKIP() << "this machine has no loop devices";
    const std::string image = State() / "files.img";
    const Ended made = RunProgram(
        {"sh", "-c",
         fmt::format(
             "truncate -s 256M {0} && mkfs.ext4 -q {0} && mkdir -p {1} && "
             "losetup --find --show {0}",
             image, Target().string())});
    ASSERT_EQ(made.status, 0) << made.err;
    const std::string loop = made.out.substr(0, made.out.find('\n'));
    // Both go with the last who has them open.
    device_ = UniqueFd(open(loop.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(RunProgram({"losetup", "-d", loop}).status, 0);
    stdfs::remove(image);
    Virsh({"pool-define-as", "files", "fs", "--source-dev", loop,
           "--source-format", "ext4", "--target", Target().string()});
    DiskGuests::SetUp();
  }

 private:
  UniqueFd device_;
};

TEST_F(FsPool, HasAllOfASandbox) { WholeLife(); }

// Unmounted by somebody, it is mounted again by what needs it.
TEST_F(FsPool, IsStartedAgain) {
  Mkdir("box");
  Virsh({"pool-destroy", "files"});
  ASSERT_FALSE(IsMounted());
  Mkdir("later");
  EXPECT_TRUE(IsMounted());
  Boot("box");
  Boot("later");
  EXPECT_EQ(Write("box", "kill"), Verdict{});
  EXPECT_EQ(Write("later", "kill"), Verdict{});
}

class NetfsPool : public MountedPool {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    if (!stdfs::exists("/usr/sbin/glusterd")) {
      GTEST_SKIP() << "no Gluster is installed; tests/run --long installs one";
    }
    const Ended gluster = RunProgram({SBXFS_SOURCE_DIR "/tests/support/gluster",
                                      (State() / "gluster").string()});
    ASSERT_EQ(gluster.status, 0) << gluster.err;
    stdfs::create_directory(Target());
    Virsh({"pool-define-as", "files", "netfs", "--source-host", "10.99.0.1",
           "--source-path", "/sandboxes", "--source-format", "glusterfs",
           "--target", Target().string()});
    DiskGuests::SetUp();
  }
};

TEST_F(NetfsPool, HasAllOfASandbox) { WholeLife(); }

}  // namespace
}  // namespace sbxfs
