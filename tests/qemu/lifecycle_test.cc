// The life of sandboxes whose guests are blank, with virsh and a second mount
// beside the first.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class LifecycleTest : public BlankGuests {};

TEST_F(LifecycleTest, MkdirStartStopRmdirAsVirshSeesThem) {
  Mkdir("box");
  EXPECT_EQ(Status("box"), "stopped");
  EXPECT_EQ(Virsh({"domstate", "box"}), "shut off");
  const std::string port = ReadLine(Dir() / "box/ssh_port");
  EXPECT_FALSE(Listens(port));
  Boot("box");
  EXPECT_EQ(Virsh({"domstate", "box"}), "running");
  EXPECT_TRUE(Listens(port));
  EXPECT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  EXPECT_EQ(Status("box"), "stopped");
  EXPECT_EQ(ReadText(Dir() / "box/ip"), "none: it is stopped\n");
  EXPECT_EQ(Virsh({"domstate", "box"}), "shut off");
  EXPECT_FALSE(Listens(port));

  EXPECT_EQ(rmdir((Dir() / "box").c_str()), 0);
  EXPECT_FALSE(stdfs::exists(Dir() / "box"));
  EXPECT_TRUE(stdfs::exists(Host() / "trash/box"));
  stdfs::rename(Host() / "trash/box", Dir() / "box");
  EXPECT_EQ(ReadLine(Dir() / "box/ssh_port"), port);
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "box");
  EXPECT_EQ(rmdir((Dir() / "box").c_str()), 0);
  EXPECT_EQ(rmdir((Host() / "trash/box").c_str()), 0);
  EXPECT_EQ(World::Now(), before_);
}

TEST_F(LifecycleTest, StatusFollowsVirshAndWakesPoll) {
  Mkdir("box");
  const UniqueFd status(
      open((Dir() / "box/status").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(status.Valid());
  auto after = [&](const std::string& command, const std::string& state) {
    char byte;
    (void)pread(status.Get(), &byte, 1, 0);
    pollfd waked{status.Get(), POLLPRI, 0};
    (void)poll(&waked, 1, 0);
    Virsh({command, "box"});
    EXPECT_EQ(poll(&waked, 1, 10000), 1) << command;
    EXPECT_TRUE(Becomes("box", state)) << command << ": " << Status("box");
  };
  after("start", "running");
  after("suspend", "paused");
  after("resume", "running");
  after("destroy", "stopped");
}

TEST_F(LifecycleTest, AGuestStartedByVirshHasItsForward) {
  Mkdir("box");
  Virsh({"start", "box"});
  EXPECT_TRUE(Listens(ReadLine(Dir() / "box/ssh_port")));
}

TEST_F(LifecycleTest, SaveKeepsTheMemoryAndStartBringsItBack) {
  Mkdir("box");
  Boot("box");
  // No ssh ever comes; another verb overtakes that wait.
  EXPECT_EQ(WriteText(Dir() / "box/status", "save\n"), Verdict{});
  EXPECT_EQ(Status("box"), "saved");
  EXPECT_EQ(Virsh({"list", "--all", "--with-managed-save", "--name"}), "box");
  EXPECT_EQ(Call([&] { return rmdir((Dir() / "box").c_str()); }).error, EBUSY);
  EXPECT_EQ(ReadLine(Dir() / "box/error"),
            "Cannot remove 'box': its memory is saved; start it, or write "
            "kill to its status to drop that");
  Boot("box");
  EXPECT_EQ(Virsh({"list", "--all", "--with-managed-save", "--name"}), "");
  EXPECT_TRUE(Listens(ReadLine(Dir() / "box/ssh_port")));
}

TEST_F(LifecycleTest, TwoMountsAgree) {
  GuestMount other(kOptions);
  Mkdir("box");
  const stdfs::path there = other.Dir() / "box";
  ASSERT_TRUE(Eventually([&] { return stdfs::exists(there); }));
  for (const char* file : {"config.yaml", "ssh_port", "known_hosts", "status",
                           "cpus", "memory", "disk", "pending"}) {
    EXPECT_EQ(ReadText(there / file), ReadText(Dir() / "box" / file)) << file;
  }
  Boot("box");
  EXPECT_TRUE(
      Eventually([&] { return ReadLine(there / "status") == "running"; }));
  EXPECT_EQ(WriteText(there / "cpus", "3\n"), Verdict{});
  EXPECT_TRUE(
      Eventually([&] { return ReadLine(Dir() / "box/pending") == "cpus"; }));
  EXPECT_EQ(ReadText(there / "pending"), "cpus\n");
  // The start that still waits is the first mount's; it learns of the end.
  EXPECT_EQ(WriteText(there / "status", "kill\n"), Verdict{});
  EXPECT_TRUE(Becomes("box", "stopped"));
  stdfs::rename(there, other.Dir() / "crate");
  EXPECT_TRUE(Eventually([&] { return stdfs::exists(Dir() / "crate"); }));
  EXPECT_FALSE(stdfs::exists(Dir() / "box"));
  EXPECT_EQ(rmdir((Dir() / "crate").c_str()), 0);
  EXPECT_TRUE(
      Eventually([&] { return !stdfs::exists(other.Dir() / "crate"); }));
  EXPECT_TRUE(stdfs::exists(other.Dir() / ".host/trash/crate"));
  other.Stop();
}

TEST_F(LifecycleTest, ASandboxFromAFileIsAllOrNothing) {
  const stdfs::path made = Dir() / "box.yaml";
  const Ended cp =
      RunProgram({"sh", "-c", "printf 'cpus: 2\\nmemory: 48MiB\\n' > \"$1\"",
                  "sh", made.string()});
  EXPECT_EQ(cp.status, 0) << cp.err;
  EXPECT_EQ(ReadText(Dir() / "box/config.yaml"), "cpus: 2\nmemory: 48MiB\n");
  EXPECT_EQ(ReadText(Dir() / "box/memory"), "48MiB\n");
  EXPECT_EQ(ReadText(Dir() / "box/disk"), "64MiB\n");
}

// libvirt names the file of its firmware's variables after the domain, and
// leaves it behind when that is renamed.
TEST_F(LifecycleTest, AUefiSandboxKeepsItsVariablesUnderAnotherName) {
  std::ofstream(Dir() / "box.yaml") << "firmware: {legacyBIOS: false}\n";
  Boot("box");
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  const stdfs::path variables =
      Virsh({"pool-dumpxml", "sbxfs", "--xpath", "//target/path/text()"}) +
      "/" + Virsh({"domuuid", "box"}) + ".nvram";
  ASSERT_GT(stdfs::file_size(variables), 65'536U);
  std::fstream(variables).seekp(65'000) << "mark";

  ASSERT_EQ(rename((Dir() / "box").c_str(), (Dir() / "moved").c_str()), 0);
  Boot("moved");
  EXPECT_NE(ReadText(variables).find("mark"), std::string::npos);
  EXPECT_EQ(WriteText(Dir() / "moved/status", "kill\n"), Verdict{});
  // A redefinition and the trash leave them where they are.
  EXPECT_EQ(WriteText(Dir() / "moved/memory", "64MiB\n"), Verdict{});
  EXPECT_EQ(rmdir((Dir() / "moved").c_str()), 0);
  EXPECT_EQ(rename((Host() / "trash/moved").c_str(), (Dir() / "box").c_str()),
            0);
  EXPECT_NE(ReadText(variables).find("mark"), std::string::npos);
  EXPECT_EQ(rmdir((Dir() / "box").c_str()), 0);
  EXPECT_EQ(rmdir((Host() / "trash/box").c_str()), 0);
  EXPECT_FALSE(stdfs::exists(variables));
}

}  // namespace
}  // namespace sbxfs
