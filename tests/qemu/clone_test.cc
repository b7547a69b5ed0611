// Clones of blank guests, and images made of their disks.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>

#include "backend/backend.h"
#include "backend/libvirt_backend.h"
#include "tests/support/faults.h"
#include "tests/support/guest_disk.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class CloneTest : public BlankGuests {
 protected:
  Verdict Clone(const std::string& at, const std::string& name) {
    return Call(
        [&] { return mkdir((Dir() / at / "clones" / name).c_str(), 0700); });
  }
  [[nodiscard]] std::string Error(const std::string& box) const {
    return ReadLine(Dir() / box / "error");
  }
  [[nodiscard]] static int Count(const std::string& part) {
    const std::string volumes = World::Now().volumes;
    int count = 0;
    for (auto at = volumes.find(part); at != volumes.npos;
         at = volumes.find(part, at + 1)) {
      ++count;
    }
    return count;
  }
  // What the volumes take of the disk.
  [[nodiscard]] static uint64_t PoolBytes() {
    const stdfs::path one =
        Virsh({"vol-path", "image.blank", "--pool", "sbxfs"});
    uint64_t bytes = 0;
    for (const auto& file : stdfs::directory_iterator(one.parent_path())) {
      struct stat info {};
      if (stat(file.path().c_str(), &info) == 0) {
        bytes += static_cast<uint64_t>(info.st_blocks) * 512;
      }
    }
    return bytes;
  }
};

class CloneInState : public CloneTest,
                     public testing::WithParamInterface<const char*> {};

TEST_P(CloneInState, StandsOnTheDiskAsItWas) {
  Mkdir("golden");
  ASSERT_EQ(WriteText(Dir() / "golden/description", "of gold\n"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "golden/ssh_port", "28123\n"), Verdict{});
  Fill("golden", 20, 1);
  ASSERT_EQ(mkdir((Dir() / "golden/snapshots/clean").c_str(), 0777), 0);
  if (GetParam() != std::string("stopped")) Boot("golden");
  if (GetParam() == std::string("paused")) {
    ASSERT_EQ(WriteText(Dir() / "golden/status", "pause\n"), Verdict{});
  }
  Fill("golden", 20, 2);
  ASSERT_EQ(Clone("golden", "a"), Verdict{}) << Error("golden");
  ASSERT_EQ(Clone("golden/snapshots/clean", "b"), Verdict{}) << Error("golden");
  Fill("golden", 20, 3);
  EXPECT_EQ(Status("golden"), GetParam());
  EXPECT_TRUE(Holds("a", 20, 2));
  EXPECT_TRUE(Holds("b", 20, 1));
  Fill("a", 20, 4);
  Fill("b", 20, 5);
  EXPECT_TRUE(Holds("golden", 20, 3));
  ASSERT_EQ(Clone("a", "grandchild"), Verdict{}) << Error("a");
  EXPECT_TRUE(Holds("grandchild", 20, 4));
  for (const char* name : {"a", "b", "grandchild"}) {
    EXPECT_EQ(Status(name), "stopped");
    EXPECT_EQ(ReadLine(Dir() / name / "description"), "of gold");
    EXPECT_EQ(ReadText(Dir() / name / "config.yaml").find("28123"),
              std::string::npos);
    EXPECT_NE(ReadLine(Dir() / name / "ssh_port"), "28123");
    EXPECT_NE(ReadLine(Dir() / name / "known_hosts"),
              ReadLine(Dir() / "golden/known_hosts"));
    Boot(name);
    ASSERT_EQ(WriteText(Dir() / name / "status", "kill\n"), Verdict{});
  }
  // What was only for the work is gone.
  EXPECT_EQ(Virsh({"snapshot-list", "golden", "--name"}), "clean");
  EXPECT_EQ(ReadLine(Dir() / "golden/snapshot"), "clean");
  EXPECT_EQ(stdfs::read_symlink(Dir() / "golden/clones/a"), "../../a");
  EXPECT_EQ(stdfs::read_symlink(Dir() / "golden/clones/b"), "../../b");
  EXPECT_TRUE(stdfs::equivalent(Dir() / "golden/snapshots/clean/clones/b",
                                Dir() / "b"));
  EXPECT_FALSE(stdfs::exists(
      stdfs::symlink_status(Dir() / "golden/snapshots/clean/clones/a")));
  EXPECT_EQ(Call([&] {
              return rmdir((Dir() / "golden/snapshots/clean").c_str());
            }).error,
            EBUSY);
  EXPECT_EQ(Error("golden"),
            "Cannot remove snapshot 'clean' of 'golden': its clone 'b' stands "
            "on it; rmdir that first");
  // Its own factory reset goes back to where it came from.
  ASSERT_EQ(WriteText(Dir() / "a/status", "factory-reset\n"), Verdict{})
      << Error("a");
  EXPECT_TRUE(Holds("a", 20, 2));
}

INSTANTIATE_TEST_SUITE_P(States, CloneInState,
                         testing::Values("stopped", "running", "paused"));

TEST_F(CloneTest, OutlivesItsSourceWhichLeavesItsLayersBehind) {
  Mkdir("golden");
  const std::string uuid = Virsh({"domuuid", "golden"});
  Fill("golden", 20, 1);
  ASSERT_EQ(Clone("golden", "a"), Verdict{}) << Error("golden");
  Fill("golden", 21, 1);
  ASSERT_EQ(rmdir((Dir() / "golden").c_str()), 0);
  ASSERT_EQ(rmdir((Host() / "trash/golden").c_str()), 0);
  EXPECT_EQ(Count(uuid), 1) << World::Now().volumes;
  EXPECT_TRUE(Holds("a", 20, 1));
  EXPECT_TRUE(Holds("a", 21, 0));
  Boot("a");
  ASSERT_EQ(WriteText(Dir() / "a/status", "kill\n"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "a/status", "factory-reset\n"), Verdict{});
  EXPECT_TRUE(Holds("a", 20, 1));
  ASSERT_EQ(rmdir((Dir() / "a").c_str()), 0);
  EXPECT_EQ(Count(uuid), 1);
  ASSERT_EQ(rmdir((Host() / "trash/a").c_str()), 0);
  EXPECT_TRUE(Eventually([&] { return Count(uuid) == 0; }))
      << World::Now().volumes;
}

TEST_F(CloneTest, ManyOfOneThatRestsStandOnOneLayerAndAreDistinct) {
  Mkdir("golden");
  Fill("golden", 20, 1);
  const int many = LongRun() ? 100 : 10;
  Identities all;
  ASSERT_EQ(Clone("golden", "first"), Verdict{}) << Error("golden");
  const uint64_t before = PoolBytes();
  for (int i = 0; i < many; ++i) {
    const std::string name = fmt::format("c{}", i);
    ASSERT_EQ(Clone("golden", name), Verdict{}) << Error("golden");
    all.Add(Dir() / name);
  }
  EXPECT_EQ(all.macs.size(), static_cast<std::size_t>(many));
  EXPECT_EQ(all.ports.size(), static_cast<std::size_t>(many));
  EXPECT_EQ(all.keys.size(), static_cast<std::size_t>(many));
  EXPECT_LT(PoolBytes() - before, static_cast<uint64_t>(many) * (2U << 20));
  EXPECT_EQ(Count(Virsh({"domuuid", "golden"}) + ".disk"), 2);
  EXPECT_TRUE(Holds(fmt::format("c{}", many - 1), 20, 1));
}

// A port of the host is the source's.
TEST_F(CloneTest, RunsBesideASourceWithPorts) {
  Mkdir("golden");
  ASSERT_EQ(WriteText(Dir() / "golden/ports/80", "18080\n", O_CREAT),
            Verdict{});
  Boot("golden");
  ASSERT_EQ(Clone("golden", "beside"), Verdict{}) << Error("golden");
  EXPECT_FALSE(stdfs::exists(Dir() / "beside/ports/80"));
  Boot("beside");
  EXPECT_EQ(ReadLine(Dir() / "golden/ports/80"), "18080");
}

TEST_F(CloneTest, RefusesAndLeavesNothing) {
  Mkdir("golden");
  Mkdir("other");
  const World before = World::Now();
  EXPECT_EQ(Clone("golden", "other").error, EEXIST);
  EXPECT_EQ(Clone("golden", "a b").error, EINVAL);
  EXPECT_EQ(Clone("golden", "x.yaml").error, EINVAL);
  EXPECT_EQ(stdfs::exists(Dir() / "golden/clones/other"), false);
  EXPECT_EQ(Virsh({"snapshot-list", "golden", "--name"}), "");
  EXPECT_EQ(World::Now().domains, before.domains);
  ASSERT_EQ(Clone("golden", "a"), Verdict{});
  // Of another process: this one would be refused its rmdir afterwards.
  const Ended removed =
      RunProgram({"rm", (Dir() / "golden/clones/a").string()});
  EXPECT_NE(removed.err.find("Operation not permitted"), std::string::npos)
      << removed.err;
  EXPECT_TRUE(stdfs::exists(Dir() / "a"));
}

// images: and disk: of its config.yaml never rebuild it.
TEST_F(CloneTest, KeepsItsDiskWhateverItsConfigSays) {
  Mkdir("golden");
  Fill("golden", 20, 1);
  ASSERT_EQ(Clone("golden", "a"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "a/config.yaml",
                      "images: [{location: nowhere}]\ndisk: 80MiB\n"),
            Verdict{})
      << Error("a");
  EXPECT_TRUE(Holds("a", 20, 1));
  EXPECT_EQ(WriteText(Dir() / "a/disk", "32MiB\n").error, EINVAL);
}

// A domain of somebody else's, which goes on writing to its disk.
class CloneOfAnothers : public CloneTest {
 protected:
  std::string Options() const override { return CloneTest::Options() + ",all"; }
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    hangs_ = std::make_unique<Hangs>();
    counter_ = stdfs::path(std::getenv("SBXFS_INSIDE")) / "faults";
    setenv("SBXFS_FAULTS", counter_.c_str(), 1);
    {
      const FaultsPreloaded faults;
      CloneTest::SetUp();
    }
    place_ = stdfs::path(std::getenv("SBXFS_INSIDE")) / "others";
    stdfs::create_directory(place_);
    disk_ = place_ / "vm.qcow2";
    (void)RunProgram({"qemu-img", "create", "-f", "qcow2", disk_, "48M"});
    Pattern(7);
    std::ofstream(place_ / "vm.xml")
        << "<domain type='qemu'><name>test-vm</name><memory "
           "unit='MiB'>40</memory><vcpu>2</vcpu><os><type "
           "arch='x86_64'>hvm</type></os><devices><disk type='file' "
           "device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>"
           "<disk type='file' device='disk'><driver name='qemu' "
           "type='qcow2'/><source file='" +
               disk_.native() +
               "'/><target dev='sda' bus='sata'/></disk></devices></domain>";
    Virsh({"define", (place_ / "vm.xml").string()});
    ASSERT_TRUE(
        Eventually([this] { return stdfs::exists(Dir() / "test-vm"); }));
  }
  void TearDown() override {
    hangs_.reset();
    unsetenv("SBXFS_FAULTS");
    if (!place_.empty()) {
      Undefine();
      (void)RunProgram(
          {"virsh", "-c", "qemu:///system", "pool-destroy", "others"});
      stdfs::remove_all(place_);
    }
    CloneTest::TearDown();
  }
  static void Undefine() {
    (void)RunProgram({"virsh", "-c", "qemu:///system", "destroy", "test-vm"});
    (void)RunProgram({"virsh", "-c", "qemu:///system", "undefine", "test-vm"});
  }
  // Another mount, which takes what was cut off for abandoned at once.
  static void ExpectSwept(const World& wanted) {
    BackendOptions options;
    options.uri = "qemu:///system";
    options.orphan_age = 0s;
    const auto backend = OpenLibvirt(options);
    EXPECT_TRUE(Eventually([&] { return World::Now() == wanted; }))
        << World::Now().volumes;
  }
  void Start() {
    Virsh({"start", "test-vm"});
    ASSERT_TRUE(Becomes("test-vm", "running"));
  }
  // A clone that hangs in that call, and is interrupted there.
  void Interrupt(const std::string& call) {
    const World before = World::Now();
    hangs_->Begin(call);
    const Ended made = RunProgram({"timeout", "--signal=INT", "3", "mkdir",
                                   (Dir() / "test-vm/clones/copy").string()});
    EXPECT_EQ(made.status, 124) << made.err;
    hangs_->End(call);
    EXPECT_TRUE(Eventually([&] { return World::Now() == before; }))
        << World::Now().volumes;
    EXPECT_FALSE(stdfs::exists(Dir() / "copy"));
  }
  void Pattern(int byte) {
    const Ended ended = RunProgram(
        {"qemu-io", "-f", "qcow2", "-c",
         fmt::format("write -P {} {} 65536", byte, 20 * 65536), disk_});
    ASSERT_EQ(ended.status, 0) << ended.err;
  }

  std::unique_ptr<Hangs> hangs_;
  stdfs::path place_, disk_, counter_;
};

TEST_F(CloneOfAnothers, IsAWholeCopyOfADiskThatRests) {
  const Verdict outside = Clone("test-vm", "copy");
  EXPECT_EQ(outside.error, ENOENT);
  EXPECT_EQ(Error("test-vm"),
            fmt::format("Cannot clone 'test-vm' to 'copy': its disk '{0}' is "
                        "in no active pool of that libvirt, so that libvirt "
                        "cannot copy it; 'virsh pool-create-as NAME dir "
                        "--target {1}' makes one, or copy the file into "
                        ".host/images",
                        disk_.native(), place_.native()));
  EXPECT_FALSE(stdfs::exists(Dir() / "copy"));
  Virsh({"pool-create-as", "others", "dir", "--target", place_.string()});
  ASSERT_EQ(Clone("test-vm", "copy"), Verdict{}) << Error("test-vm");
  EXPECT_EQ(ReadLine(Dir() / "copy/cpus"), "2");
  EXPECT_EQ(ReadLine(Dir() / "copy/memory"), "40MiB");
  EXPECT_EQ(ReadLine(Dir() / "copy/disk"), "48MiB");
  EXPECT_EQ(stdfs::read_symlink(Dir() / "test-vm/clones/copy"), "../../copy");
  EXPECT_TRUE(Holds("copy", 20, 7));
  Pattern(8);
  EXPECT_TRUE(Holds("copy", 20, 7));
  Fill("copy", 20, 9);
  Boot("copy");
  ASSERT_EQ(WriteText(Dir() / "copy/status", "kill\n"), Verdict{});

  Start();
  // Of a running one it is the disk as it was at the call, and nothing of the
  // copying stays with the domain.
  const std::string untouched = Virsh({"dumpxml", "test-vm"});
  ASSERT_EQ(Clone("test-vm", "live"), Verdict{}) << Error("test-vm");
  EXPECT_TRUE(Holds("live", 20, 8));
  EXPECT_EQ(ReadLine(Dir() / "live/disk"), "48MiB");
  EXPECT_EQ(Virsh({"dumpxml", "test-vm"}), untouched);
  EXPECT_EQ(Virsh({"domjobinfo", "test-vm"}).find("Backup"), std::string::npos);
  EXPECT_EQ(Virsh({"checkpoint-list", "test-vm", "--name"}), "");
  Virsh({"suspend", "test-vm"});
  ASSERT_TRUE(Becomes("test-vm", "paused"));
  ASSERT_EQ(Clone("test-vm", "paused"), Verdict{}) << Error("test-vm");
  EXPECT_TRUE(Holds("paused", 20, 8));
  Virsh({"resume", "test-vm"});
  // It needs nothing of what it came from.
  Undefine();
  stdfs::remove(disk_);
  ASSERT_TRUE(Eventually([this] { return !stdfs::exists(Dir() / "test-vm"); }));
  EXPECT_TRUE(Holds("copy", 20, 9));
  ASSERT_EQ(WriteText(Dir() / "copy/status", "factory-reset\n"), Verdict{})
      << Error("copy");
  EXPECT_TRUE(Holds("copy", 20, 7));
  ASSERT_EQ(Clone("copy", "second"), Verdict{}) << Error("copy");
  EXPECT_TRUE(Holds("second", 20, 7));
}

TEST_F(CloneOfAnothers, AnInterruptUndoesIt) {
  Virsh({"pool-create-as", "others", "dir", "--target", place_.string()});
  Interrupt("virStorageVolCreateXMLFrom");
  Start();
  const std::string untouched = Virsh({"dumpxml", "test-vm"});
  Interrupt("virDomainGetJobInfo");
  EXPECT_EQ(Virsh({"dumpxml", "test-vm"}), untouched);
  EXPECT_EQ(Clone("test-vm", "copy"), Verdict{}) << Error("test-vm");
}

// Before each call that it makes, and while the hypervisor copies.
TEST_F(CloneOfAnothers, KilledWhileThatRunsItIsDoneOrUndone) {
  mount_->ExpectLoggedErrors();
  Start();
  const std::string untouched = Virsh({"dumpxml", "test-vm"});
  const World before = World::Now();
  int calls = 1;
  for (bool alive = false; !alive; ++calls) {
    ASSERT_LT(calls, 20);
    std::ofstream(counter_) << calls << "\n";
    const Verdict made = Clone("test-vm", "copy");
    std::error_code dead;
    alive = stdfs::exists(Host(), dead);
    stdfs::remove(counter_);
    if (alive) {
      EXPECT_EQ(made, Verdict{}) << Error("test-vm");
    } else {
      mount_->Crash();
      const FaultsPreloaded faults;
      mount_->Start();
    }
    // Nobody aborts the copying: it comes to its end by itself.
    EXPECT_TRUE(Eventually([&] {
      return Virsh({"domjobinfo", "test-vm"}).find("Backup") ==
             std::string::npos;
    }));
    EXPECT_EQ(Virsh({"dumpxml", "test-vm"}), untouched) << calls;
    EXPECT_EQ(Virsh({"checkpoint-list", "test-vm", "--name"}), "") << calls;
    EXPECT_EQ(Virsh({"snapshot-list", "test-vm", "--name"}), "") << calls;
    if (stdfs::exists(Dir() / "copy")) {
      EXPECT_TRUE(Holds("copy", 20, 7)) << calls;
      ASSERT_EQ(rmdir((Dir() / "copy").c_str()), 0);
      ASSERT_EQ(rmdir((Host() / "trash/copy").c_str()), 0);
    } else {
      EXPECT_FALSE(alive);
    }
    ExpectSwept(before);
    if (HasFailure()) return;
  }
  // It was killed where it makes the volume, has it copied and waits.
  EXPECT_GT(calls, 4);
}

class CommitInState : public CloneTest,
                      public testing::WithParamInterface<const char*> {};

TEST_P(CommitInState, MakesAnImageThatStandsOnNothing) {
  Mkdir("box");
  Fill("box", 20, 1);
  ASSERT_EQ(mkdir((Dir() / "box/snapshots/one").c_str(), 0777), 0);
  if (GetParam() != std::string("stopped")) Boot("box");
  if (GetParam() == std::string("paused")) {
    ASSERT_EQ(WriteText(Dir() / "box/status", "pause\n"), Verdict{});
  }
  Fill("box", 21, 2);
  ASSERT_EQ(WriteText(Dir() / "box/commit", "made\n"), Verdict{})
      << Error("box");
  EXPECT_EQ(Status("box"), GetParam());
  EXPECT_TRUE(stdfs::exists(Host() / "images/made"));
  EXPECT_EQ(Virsh({"snapshot-list", "box", "--name"}), "one");
  const std::string path = Virsh({"vol-path", "image.made", "--pool", "sbxfs"});
  const Ended info = RunProgram({"qemu-img", "info", path});
  EXPECT_EQ(info.out.find("backing file"), std::string::npos) << info.out;
  EXPECT_EQ(WriteText(Dir() / "box/commit", "made\n").error, EEXIST);
  EXPECT_EQ(WriteText(Dir() / "box/commit", "a b\n").error, EINVAL);
  std::ofstream(Dir() / "new.yaml") << "images: [{location: made}]\n";
  ASSERT_TRUE(stdfs::exists(Dir() / "new")) << ReadText(Host() / "error");
  EXPECT_TRUE(Holds("new", 20, 1));
  EXPECT_TRUE(Holds("new", 21, 2));
  EXPECT_EQ(
      Call([&] { return unlink((Host() / "images/made").c_str()); }).error,
      EBUSY);
  ASSERT_EQ(rmdir((Dir() / "new").c_str()), 0);
  ASSERT_EQ(rmdir((Host() / "trash/new").c_str()), 0);
  EXPECT_EQ(unlink((Host() / "images/made").c_str()), 0);
}

INSTANTIATE_TEST_SUITE_P(States, CommitInState,
                         testing::Values("stopped", "running", "paused"));

}  // namespace
}  // namespace sbxfs
