// Additional disks in a pool that has no files: a volume group, as libvirt's
// own backend sees it (tests/support/volume_group says what stands in for LVM).
#include <fmt/format.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "tests/qemu/disk_guests.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class VolumeGroupTest : public DiskGuests {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    if (!HasLoopDevices()) GTEST_SKIP() << "this machine has no loop devices";
    ASSERT_NO_FATAL_FAILURE(StandIn());
    stdfs::create_directories("/run/groups/vg0");
    std::ofstream("/run/groups/vg0/size") << (64 << 20);
    Virsh({"pool-define-as", "vg0", "logical", "--source-name", "vg0"});
    DiskGuests::SetUp();
  }
  void TearDown() override {
    DiskGuests::TearDown();
    if (!stood_in_) return;
    Virsh({"pool-destroy", "vg0"});
    Virsh({"pool-undefine", "vg0"});
    EXPECT_EQ(umount("/usr/sbin"), 0);
    stdfs::remove_all("/run/groups");
    stdfs::remove_all("/dev/vg0");
  }
  [[nodiscard]] std::string Options() const override {
    return std::string(kOptions) + ",disk_pool=vg0";
  }
  void Mount(const std::string& options) {
    mount_->Stop();
    mount_ = std::make_unique<GuestMount>(options);
  }

 private:
  // Puts the programs where libvirt looks, in this namespace alone.
  void StandIn() {
    const stdfs::path programs =
        stdfs::path(std::getenv("SBXFS_INSIDE")) / "lvm2";
    stdfs::create_directories(programs);
    for (const char* name : {"lvs", "vgs", "pvs", "lvcreate", "lvremove",
                             "lvchange", "lvextend", "vgscan", "vgchange"}) {
      stdfs::copy_file(SBXFS_SOURCE_DIR "/tests/support/volume_group/lvm",
                       programs / name,
                       stdfs::copy_options::overwrite_existing);
    }
    const std::string over =
        fmt::format("lowerdir={}:/usr/sbin", programs.string());
    ASSERT_EQ(mount("lvm2", "/usr/sbin", "overlay", 0, over.c_str()), 0);
    stood_in_ = true;
  }

  bool stood_in_ = false;
};

TEST_F(VolumeGroupTest, DisksAreBlankVolumesThatOnlyLvmMakesLarger) {
  EXPECT_EQ(Capacity("pool"), "sbxfs");
  EXPECT_EQ(Capacity("disk_pool"), "vg0");
  EXPECT_EQ(Capacity("disk_pool_bytes"), "67108864");
  ASSERT_EQ(SetDisk("data", "16MiB"), Verdict{});
  EXPECT_EQ(ReadText(Disk("data")), "16MiB\n");
  std::ifstream volume("/dev/vg0/disk.data");
  const std::string bytes((std::istreambuf_iterator<char>(volume)), {});
  EXPECT_EQ(bytes.size(), 16U << 20);
  // The guest is not to see what was there before.
  EXPECT_EQ(bytes.find_first_not_of('\0'), std::string::npos);
  volume.close();
  EXPECT_TRUE(Eventually(
      [&] { return Capacity("disk_pool_free_bytes") == "50331648"; }));
  EXPECT_EQ(SetDisk("data", "8MiB").error, EINVAL);
  EXPECT_EQ(
      SetDisk("data", "20MiB"),
      (Verdict{EOPNOTSUPP,
               "Cannot set disk 'data' to '20MiB': it has 16MiB, and libvirt "
               "makes no volume larger in 'vg0', a pool of type logical; do "
               "that there, as by lvextend, and then write the size here once "
               "more"}));
  EXPECT_EQ(
      SetDisk("more", "64MiB"),
      (Verdict{ENOSPC,
               "Cannot set disk 'more' to '64MiB': the pool 'vg0' is full: "
               "of 64MiB that are needed 16MiB are missing in /dev/vg0; "
               "rm what is of no use in .host/disks, or make it larger"}));
  EXPECT_FALSE(stdfs::exists(Disk("more")));
  EXPECT_EQ(RunProgram({"lvextend", "-L", "+4M", "/dev/vg0/disk.data"}).status,
            0);
  EXPECT_EQ(SetDisk("data", "20MiB"), Verdict{});
  EXPECT_EQ(ReadText(Disk("data")), "20MiB\n");
  ASSERT_EQ(unlink(Disk("data").c_str()), 0);
  EXPECT_FALSE(stdfs::exists("/dev/vg0/disk.data"));
}

TEST_F(VolumeGroupTest, AGuestHasItsVolumeAndLearnsOfItsNewSize) {
  ASSERT_EQ(SetDisk("data", "16MiB"), Verdict{});
  Mkdir("box");
  ASSERT_EQ(NameDisks("box", "data"), Verdict{});
  Boot("box");
  const std::string domain = ReadText(Dir() / "box/domain.xml");
  EXPECT_NE(domain.find("pool='vg0' volume='disk.data'"), std::string::npos)
      << domain;
  EXPECT_EQ(Call([this] { return unlink(Disk("data").c_str()); }).error, EBUSY);
  ASSERT_EQ(RunProgram({"lvextend", "-L", "+8M", "/dev/vg0/disk.data"}).status,
            0);
  EXPECT_EQ(SetDisk("data", "24MiB"), Verdict{});
  EXPECT_NE(Virsh({"domblkinfo", "box", "vdc"}).find("25165824"),
            std::string::npos);
  // What is done with the sandbox's own disk leaves it alone.
  UseOwnDisk("box");
  EXPECT_NE(Virsh({"domblklist", "box"}).find("disk.data"), std::string::npos);
  EXPECT_EQ(Write("box", "kill"), Verdict{});
}

TEST_F(VolumeGroupTest, AnotherMountMayKeepThemInAnotherPool) {
  ASSERT_EQ(SetDisk("data", "8MiB"), Verdict{});
  Mkdir("box");
  Mkdir("saved");
  ASSERT_EQ(NameDisks("box", "data"), Verdict{});
  ASSERT_EQ(NameDisks("saved", "data"), Verdict{});
  Boot("saved");
  ASSERT_EQ(Write("saved", "save"), Verdict{});
  Mount(kOptions);
  EXPECT_FALSE(stdfs::exists(Disk("data")));
  EXPECT_EQ(Write("box", "start"),
            (Verdict{ENOENT,
                     "Cannot start 'box': there is no disk 'data'; echo 10GiB "
                     "> .host/disks/data makes one"}));
  ASSERT_EQ(SetDisk("data", "8MiB"), Verdict{});
  Boot("box");
  EXPECT_NE(ReadText(Dir() / "box/domain.xml")
                .find("pool='sbxfs' volume='disk.data'"),
            std::string::npos);
  EXPECT_EQ(
      Write("saved", "start"),
      (Verdict{EINVAL,
               "Cannot start 'saved': its saved memory has additional disks of "
               "'vg0'; mount with the -o disk_pool= it was saved with"}));
  EXPECT_EQ(Write("box", "kill"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "box/config.yaml", "cpus: 1\n"), Verdict{});
  Mount(Options());
  Boot("saved");
  EXPECT_EQ(Write("saved", "kill"), Verdict{});
  Virsh({"vol-delete", "--pool", "sbxfs", "disk.data"});
}

TEST_F(VolumeGroupTest, NoMountWithoutThePoolThatIsNamed) {
  const stdfs::path dir = Dir().string() + ".other";
  stdfs::create_directory(dir);
  const Ended ended =
      RunProgram({std::string(SBXFS_BIN_DIR) + "/sbxfs", "-f", "-o",
                  "disk_pool=absent", "qemu:///system", dir.string()});
  EXPECT_NE(ended.status, 0);
  EXPECT_NE(
      ended.err.find("Cannot use the pool 'absent' for additional disks: "
                     "there is none; define it with virsh pool-define-as, "
                     "or mount without -o disk_pool="),
      std::string::npos)
      << ended.err;
  stdfs::remove(dir);
}

}  // namespace
}  // namespace sbxfs
