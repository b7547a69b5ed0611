// The daemon killed under its mount, and libvirtd killed under the daemon.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace stdfs = std::filesystem;

class SurvivalTest : public BlankGuests {};

TEST_F(SurvivalTest, AKilledDaemonLeavesGuestAndTreeAsTheyWere) {
  Mkdir("box");
  Mkdir("idle");
  ASSERT_EQ(WriteText(Dir() / "box/description", "mine\n"), Verdict{});
  // Rights of the whole and of single files.
  for (const auto& [file, mode] :
       {std::pair("box", 0750), {"box/status", 0620}, {"box/cpus", 0400}}) {
    ASSERT_EQ(chmod((Dir() / file).c_str(), static_cast<mode_t>(mode)), 0);
    ASSERT_EQ(chown((Dir() / file).c_str(), 61235, 61236), 0);
  }
  Boot("box");
  auto tree = [this] {
    std::string text;
    for (const char* file :
         {"box/status", "box/ssh_port", "box/config.yaml", "box/known_hosts",
          "box/description", "box/ssh_config", "idle/status",
          "idle/ssh_port"}) {
      text += ReadText(Dir() / file);
    }
    for (const char* file : {"box", "box/status", "box/cpus", "box/disk"}) {
      struct stat info {};
      stat((Dir() / file).c_str(), &info);
      text += fmt::format("{} {:o} {} {}\n", file, info.st_mode, info.st_uid,
                          info.st_gid);
    }
    struct stat info {};
    stat((Dir() / "box/config.yaml").c_str(), &info);
    return text + fmt::format("{}", info.st_mtime);
  };
  const std::string before = tree();
  const std::string id = Virsh({"domid", "box"});
  mount_->Crash();
  EXPECT_EQ(Virsh({"domid", "box"}), id);
  mount_->Start();
  EXPECT_EQ(tree(), before);
  EXPECT_NE(before.find("box/status 100620 61235 61236"), std::string::npos)
      << before;
  EXPECT_EQ(Virsh({"domid", "box"}), id);
  EXPECT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
}

TEST_F(SurvivalTest, WithoutLibvirtdReadsGoOnAndChangesAreRefusedAtOnce) {
  mount_->ExpectLoggedErrors();
  Mkdir("box");
  Mkdir("idle");
  Boot("box");
  const std::string config = ReadText(Dir() / "box/config.yaml");
  KillLibvirtd();
  ASSERT_TRUE(Becomes("box", "unreachable"));
  EXPECT_TRUE(Becomes("idle", "unreachable"));
  EXPECT_EQ(ReadText(Dir() / "box/config.yaml"), config);
  EXPECT_TRUE(
      ReadText(Host() / "connection").starts_with("disconnected since "))
      << ReadText(Host() / "connection");
  for (const char* file : {"usage", "ip", "console.log", "domain.xml"}) {
    EXPECT_TRUE(stdfs::exists(Dir() / "box" / file)) << file;
  }
  const auto started = Clock::now();
  auto refused = [&](const std::string& path, const std::string& text) {
    const Verdict verdict = WriteText(Dir() / path, text);
    EXPECT_EQ(verdict.error, EHOSTDOWN) << path;
    EXPECT_NE(ReadText((Dir() / path).parent_path() / "error")
                  .find(": libvirt cannot be reached ("),
              std::string::npos)
        << path << ": " << verdict.sentence;
  };
  refused("idle/status", "start\n");
  refused("box/status", "kill\n");
  refused("box/status", "stop\n");
  refused("idle/cpus", "2\n");
  refused("idle/config.yaml", "cpus: 2\n");
  refused("idle/ssh_port", "2345\n");
  refused("idle/authorized_keys",
          "ssh-ed25519 "
          "AAAAC3NzaC1lZDI1NTE5AAAAIGJ3iB0ZCTqGFR4R6DBy2kOp9hq3Hle0nU6x7ukvVFwE"
          " x\n");
  EXPECT_EQ(Call([&] { return mkdir((Dir() / "new").c_str(), 0700); }).error,
            EHOSTDOWN);
  EXPECT_EQ(Call([&] { return rmdir((Dir() / "idle").c_str()); }).error,
            EHOSTDOWN);
  EXPECT_EQ(Call([&] {
              return rename((Dir() / "idle").c_str(),
                            (Dir() / "other").c_str());
            }).error,
            EHOSTDOWN);
  EXPECT_EQ(Call([&] { return chmod((Dir() / "idle").c_str(), 0750); }).error,
            EHOSTDOWN);
  EXPECT_EQ(
      Call([&] { return unlink((Host() / "images/blank").c_str()); }).error,
      EHOSTDOWN);
  EXPECT_LT(Clock::now() - started, 10s);

  StartLibvirtd();
  EXPECT_TRUE(Becomes("box", "running", 60s)) << Status("box");
  EXPECT_EQ(Status("idle"), "stopped");
  ExpectConnected();
  EXPECT_EQ(WriteText(Dir() / "idle/cpus", "2\n"), Verdict{});
}

TEST_F(SurvivalTest, AWaitingVerbEndsWithTheConnection) {
  mount_->ExpectLoggedErrors();
  Mkdir("box");
  Boot("box");
  Writer wait(Dir() / "box/status", "start\n");
  EXPECT_FALSE(wait.Ended(300ms).has_value());
  KillLibvirtd();
  const auto verdict = wait.Ended();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->error, EHOSTDOWN) << verdict->sentence;
  StartLibvirtd();
  EXPECT_TRUE(Becomes("box", "running", 60s)) << Status("box");
}

// Wherever in mkdir libvirtd dies: the sandbox is whole, or nothing of it is
// left once libvirtd is back.
TEST_F(SurvivalTest, LibvirtdKilledInTheMiddleOfMkdirLeavesNothingBehind) {
  mount_->ExpectLoggedErrors();
  const int rounds = LongRun() ? 60 : 12;
  const World empty = World::Now();
  int made = 0;
  for (int round = 0; round < rounds; ++round) {
    const pid_t killer = fork();
    if (killer == 0) {
      std::this_thread::sleep_for(round * 50ms / rounds);
      _exit(kill(LibvirtdPid(), SIGKILL) == 0 ? 0 : 1);
    }
    const Verdict verdict =
        Call([&] { return mkdir((Dir() / "box").c_str(), 0700); });
    waitpid(killer, nullptr, 0);
    ASSERT_TRUE(Eventually([] {
      return RunProgram({"virsh", "-c", "qemu:///system", "version"}).status !=
             0;
    }));
    StartLibvirtd();
    ExpectConnected();
    if (verdict.error == 0) {
      ++made;
      EXPECT_TRUE(Becomes("box", "stopped")) << round;
      Clear(Dir());
    } else {
      EXPECT_TRUE(verdict.error == EHOSTDOWN || verdict.error == ETIMEDOUT)
          << strerrorname_np(verdict.error) << ": "
          << ReadText(Host() / "error");
    }
    EXPECT_TRUE(Eventually([&] { return World::Now() == empty; }))
        << "round " << round << ", " << testing::PrintToString(World::Now());
    // The tree hears of it from libvirt.
    EXPECT_TRUE(Eventually([&] { return !stdfs::exists(Dir() / "box"); }, 5s))
        << round;
  }
  fmt::print("{} of {} rounds made the sandbox\n", made, rounds);
}

}  // namespace
}  // namespace sbxfs
