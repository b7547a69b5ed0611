// The host ports of running guests: changed while they run, known to every
// mount, the same after a save, a crash of the daemon, a start by virsh.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/forwards.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

// Takes a port as a server would.
UniqueFd Occupy(int port) {
  UniqueFd taken(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(bind(taken.Get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof address),
            0);
  EXPECT_EQ(listen(taken.Get(), 1), 0);
  return taken;
}

std::string Self() {
  return fmt::format("process 'qemu_tests' (pid {})", getpid());
}

class PortsTest : public BlankGuests {
 protected:
  // What the guest's QEMU itself says that it forwards, sorted.
  static std::string Forwarded(const std::string& name) {
    const std::string text =
        Virsh({"qemu-monitor-command", name, "--hmp", "info usernet"});
    std::string forwards;
    for (const Forward& one : ParseUsernet(text, "sbxnet0")) {
      forwards += (forwards.empty() ? "" : " ") + FormatHostfwd(one);
    }
    return forwards;
  }
  // The same of what its next start will forward.
  static std::string Defined(const std::string& name) {
    const std::string xml = Virsh({"dumpxml", "--inactive", name});
    std::string forwards;
    for (size_t at = 0; (at = xml.find("hostfwd=", at)) != std::string::npos;) {
      at += 8;
      forwards += (forwards.empty() ? "" : " ") +
                  xml.substr(at, xml.find_first_of(",'", at) - at);
    }
    return forwards;
  }
  // In the guest, the definition, the file and `pending`.
  void ExpectSshPort(const std::string& name, const std::string& port) {
    const std::string rule = fmt::format("tcp:127.0.0.1:{}-:22", port);
    EXPECT_EQ(ReadLine(Dir() / name / "ssh_port"), port);
    EXPECT_EQ(ReadText(Dir() / name / "pending"), "");
    EXPECT_EQ(Forwarded(name), rule);
    EXPECT_EQ(Defined(name), rule);
  }
};

TEST_F(PortsTest, SshPortIsChangedUnderARunningGuest) {
  GuestMount other(kOptions);
  Mkdir("box");
  const std::string old = ReadLine(Dir() / "box/ssh_port");
  Boot("box");
  ExpectSshPort("box", old);
  ASSERT_EQ(WriteText(Dir() / "box/ssh_port", "2345\n"), Verdict{});
  ExpectSshPort("box", "2345");
  EXPECT_NE(ReadText(Dir() / "box/config.yaml").find("localPort: 2345"),
            std::string::npos);
  EXPECT_NE(ReadText(Host() / "ssh_config").find("Port 2345"),
            std::string::npos);
  EXPECT_TRUE(Eventually(
      [&] { return ReadLine(other.Dir() / "box/ssh_port") == "2345"; }));
  EXPECT_EQ(ReadText(other.Dir() / "box/pending"), "");
  // Another mount changes it too.
  ASSERT_EQ(WriteText(other.Dir() / "box/ssh_port", "2346\n"), Verdict{});
  EXPECT_TRUE(
      Eventually([&] { return ReadLine(Dir() / "box/ssh_port") == "2346"; }));
  ExpectSshPort("box", "2346");
  // A daemon that knows nothing of what was.
  mount_->Crash();
  mount_->Start();
  ExpectSshPort("box", "2346");
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  Boot("box");
  ExpectSshPort("box", "2346");
}

TEST_F(PortsTest, ATakenPortChangesNothing) {
  Mkdir("box");
  Mkdir("crate");
  const std::string old = ReadLine(Dir() / "box/ssh_port");
  const std::string config = ReadText(Dir() / "box/config.yaml");
  Boot("box");
  const UniqueFd taken = Occupy(2347);
  EXPECT_EQ(WriteText(Dir() / "box/ssh_port", "2347\n").error, EADDRINUSE);
  EXPECT_EQ(ReadLine(Dir() / "box/error"),
            "Cannot set ssh_port of 'box' to '2347': ssh port 2347 is taken "
            "by " +
                Self() + "; choose another");
  const std::string crate = ReadLine(Dir() / "crate/ssh_port");
  EXPECT_EQ(WriteText(Dir() / "box/ssh_port", crate + "\n").error, EADDRINUSE);
  EXPECT_EQ(ReadText(Dir() / "box/config.yaml"), config);
  ExpectSshPort("box", old);
}

TEST_F(PortsTest, ASavedGuestComesBackWithThePortOfToday) {
  Mkdir("box");
  Boot("box");
  ASSERT_EQ(WriteText(Dir() / "box/ssh_port", "2348\n"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "box/status", "save\n"), Verdict{});
  // The memory was saved with the command line of its start; and it changes
  // once more while it is saved.
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
  ASSERT_EQ(WriteText(Dir() / "box/ssh_port", "2349\n"), Verdict{});
  Boot("box");
  ExpectSshPort("box", "2349");
  // virsh alone brings back the command line, and the mount puts it right.
  ASSERT_EQ(WriteText(Dir() / "box/ssh_port", "2350\n"), Verdict{});
  Virsh({"managedsave", "box"});
  Virsh({"start", "box"});
  EXPECT_TRUE(
      Eventually([&] { return Forwarded("box") == "tcp:127.0.0.1:2350-:22"; }));
  EXPECT_TRUE(
      Eventually([&] { return ReadText(Dir() / "box/pending").empty(); }));
  ExpectSshPort("box", "2350");
}

}  // namespace
}  // namespace sbxfs
