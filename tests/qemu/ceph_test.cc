// Additional disks in a Ceph, where its programs are installed: tests/run
// --long does that.
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/qemu/disk_guests.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class CephTest : public DiskGuests {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    if (!stdfs::exists("/usr/bin/ceph-osd") ||
        !stdfs::exists("/usr/lib/x86_64-linux-gnu/libvirt/storage-backend/"
                       "libvirt_storage_backend_rbd.so")) {
      GTEST_SKIP() << "no Ceph is installed; tests/run --long installs one";
    }
    const stdfs::path state = stdfs::path(std::getenv("SBXFS_INSIDE")) / "ceph";
    const Ended ceph =
        RunProgram({SBXFS_SOURCE_DIR "/tests/support/ceph", state.string()});
    ASSERT_EQ(ceph.status, 0) << ceph.err;
    const stdfs::path pool = state / "pool.xml";
    // Ceph's name for it is another than libvirt's.
    std::ofstream(pool) << "<pool type='rbd'><name>far</name><source>"
                           "<name>sandboxes</name>"
                           "<host name='127.0.0.1' port='6789'/>"
                           "</source></pool>";
    Virsh({"pool-define", pool.string()});
    DiskGuests::SetUp();
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    DiskGuests::TearDown();
    Virsh({"pool-destroy", "far"});
    Virsh({"pool-undefine", "far"});
  }
  [[nodiscard]] std::string Options() const override {
    return std::string(kOptions) + ",disk_pool=far";
  }
};

TEST_F(CephTest, ADiskIsMadeGrownUsedAndRemoved) {
  ASSERT_EQ(SetDisk("data", "64MiB"), Verdict{});
  EXPECT_EQ(ReadText(Disk("data")), "64MiB\n");
  ASSERT_EQ(SetDisk("data", "96MiB"), Verdict{});
  Mkdir("box");
  ASSERT_EQ(NameDisks("box", "data"), Verdict{});
  Boot("box");
  EXPECT_NE(Virsh({"domblklist", "box"}).find("sandboxes/disk.data"),
            std::string::npos);
  ASSERT_EQ(SetDisk("data", "128MiB"), Verdict{});
  EXPECT_NE(Virsh({"domblkinfo", "box", "vdc"}).find("134217728"),
            std::string::npos);
  EXPECT_EQ(Call([this] { return unlink(Disk("data").c_str()); }).error, EBUSY);
  UseOwnDisk("box");
  EXPECT_EQ(Write("box", "kill"), Verdict{});
  // What is unchanged is not said to be changed by others.
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
}

}  // namespace
}  // namespace sbxfs
