// Sandboxes that nobody uses are saved, and woken by who connects.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "backend/wake_ports.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

class IdleTest : public BlankGuests {
 protected:
  void Configure(const std::string& text) {
    ASSERT_EQ(WriteText(Dir() / "box/config.yaml", text), Verdict{})
        << ReadText(Dir() / "box/error");
  }
  [[nodiscard]] Forward Port() const {
    return SshForward(std::stoi(ReadLine(Dir() / "box/ssh_port")));
  }
  // Looked at without waking it.
  [[nodiscard]] bool IsOpen() const {
    return Listens(std::to_string(Port().host_port));
  }
  [[nodiscard]] bool Connects() const { return ConnectTo(Port()).Valid(); }
  // Saved, with its port open for who wakes it.
  void Save() {
    ASSERT_EQ(WriteText(Dir() / "box/status", "save\n"), Verdict{});
    ASSERT_TRUE(Eventually([&] { return IsOpen(); }));
  }
};

TEST_F(IdleTest, OneThatNobodyUsesIsSavedAndAConnectionWakesIt) {
  Mkdir("box");
  Boot("box");
  Configure("idle: 2s\n");
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
  ASSERT_TRUE(Becomes("box", "saved"));
  EXPECT_NE(
      ReadText(Host() / "events").find("box idle nobody has used it for 2s"),
      std::string::npos)
      << ReadText(Host() / "events");
  ASSERT_TRUE(Eventually([&] { return Connects(); }));
  EXPECT_TRUE(Becomes("box", "running"));
  // The port is QEMU's now; and again and again.
  ASSERT_TRUE(Becomes("box", "saved"));
  Configure("idle: 0\n");
  EXPECT_TRUE(Eventually([&] { return !IsOpen(); }));
  EXPECT_EQ(Status("box"), "saved");
  ASSERT_EQ(WriteText(Dir() / "box/status", "start\n", O_NONBLOCK), Verdict{});
  ASSERT_TRUE(Becomes("box", "running"));
  std::this_thread::sleep_for(3s);
  EXPECT_EQ(Status("box"), "running");
}

TEST_F(IdleTest, AStartFindsThePortFreeAndTheEndClosesIt) {
  Mkdir("box");
  Boot("box");
  Configure("idle: 1h\n");
  Save();
  ASSERT_EQ(WriteText(Dir() / "box/status", "start\n", O_NONBLOCK), Verdict{});
  ASSERT_TRUE(Becomes("box", "running")) << ReadText(Dir() / "box/error");
  EXPECT_TRUE(IsOpen());
  Save();
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  EXPECT_TRUE(Eventually([&] { return !IsOpen(); }));
  EXPECT_EQ(Status("box"), "stopped");
}

// The one has the port open, the other has it started by that.
TEST_F(IdleTest, AnotherMountStartsItToo) {
  Mkdir("box");
  Boot("box");
  Configure("idle: 1h\n");
  Save();
  GuestMount other(kOptions);
  ASSERT_TRUE(Eventually(
      [&] { return ReadLine(other.Dir() / "box/status") == "saved"; }));
  ASSERT_EQ(WriteText(other.Dir() / "box/status", "start\n", O_NONBLOCK),
            Verdict{});
  EXPECT_TRUE(Becomes("box", "running")) << ReadText(other.Dir() / "box/error");
  other.Stop();
}

// The daemon holds ports of what it finds saved.
TEST_F(IdleTest, ADaemonThatComesBackHasThePortsOpen) {
  Mkdir("box");
  Boot("box");
  Configure("idle: 1h\n");
  Save();
  mount_->Crash();
  mount_->Start();
  ASSERT_TRUE(Eventually([&] { return Connects(); }));
  EXPECT_TRUE(Becomes("box", "running"));
}

TEST_F(IdleTest, AJobWakesItToo) {
  Mkdir("box");
  Boot("box");
  Configure("idle: 1h\n");
  Save();
  ASSERT_EQ(mkdir((Dir() / "box/exec/1").c_str(), 0700), 0);
  // Nobody answers in there; but it runs.
  Writer job(Dir() / "box/exec/1/command", "true\n");
  EXPECT_TRUE(Becomes("box", "running"));
  job.Signal(SIGINT);
  EXPECT_TRUE(job.Ended().has_value());
  // Without it a saved one is not started by that.
  Configure("idle: 0\n");
  ASSERT_EQ(WriteText(Dir() / "box/status", "save\n"), Verdict{});
  ASSERT_EQ(mkdir((Dir() / "box/exec/2").c_str(), 0700), 0);
  EXPECT_EQ(WriteText(Dir() / "box/exec/2/command", "true\n"),
            (Verdict{EHOSTDOWN,
                     "Cannot run job '2': the sandbox is saved; echo start > "
                     "status first"}));
}

}  // namespace
}  // namespace sbxfs
