// The host ports of running guests: changed while they run, known to every
// mount, the same after a save, a crash of the daemon, a start by virsh.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "backend/forwards.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

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

// Whether a connection to the port is taken up.
bool Answers(int port) {
  const UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(client.Get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof address) == 0;
}

std::string Self() {
  return fmt::format("process 'qemu_tests' (pid {})", getpid());
}

class PortsTest : public BlankGuests {
 protected:
  static std::string Sorted(std::vector<std::string> forwards) {
    std::sort(forwards.begin(), forwards.end());
    return fmt::format("{}", fmt::join(forwards, " "));
  }
  // What the guest's QEMU itself says that it forwards, sorted.
  static std::string Forwarded(const std::string& name) {
    const std::string text =
        Virsh({"qemu-monitor-command", name, "--hmp", "info usernet"});
    std::vector<std::string> forwards;
    for (const Forward& one : ParseUsernet(text, "sbxnet0")) {
      forwards.push_back(FormatHostfwd(one));
    }
    return Sorted(std::move(forwards));
  }
  // The same of what its next start will forward.
  static std::string Defined(const std::string& name) {
    const std::string xml = Virsh({"dumpxml", "--inactive", name});
    std::vector<std::string> forwards;
    for (size_t at = 0; (at = xml.find("hostfwd=", at)) != std::string::npos;) {
      at += 8;
      forwards.push_back(xml.substr(at, xml.find_first_of(",'", at) - at));
    }
    return Sorted(std::move(forwards));
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

TEST_F(PortsTest, PortsAreOpenedAndClosedLive) {
  Mkdir("box");
  const std::string ssh =
      "tcp:127.0.0.1:" + ReadLine(Dir() / "box/ssh_port") + "-:22";
  const stdfs::path ports = Dir() / "box/ports";
  EXPECT_TRUE(stdfs::is_empty(ports));
  // Of a stopped one they are in its definition, and so in its start.
  ASSERT_EQ(WriteText(ports / "3000", "8090\n", O_CREAT), Verdict{});
  EXPECT_EQ(ReadText(ports / "3000"), "8090\n");
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
  EXPECT_EQ(Defined("box"), Sorted({ssh, "tcp:127.0.0.1:8090-:3000"}));
  EXPECT_FALSE(Answers(8090));
  Boot("box");
  EXPECT_TRUE(Answers(8090));
  ASSERT_EQ(WriteText(ports / "53.udp", "0.0.0.0:8053\n", O_CREAT), Verdict{});
  ASSERT_EQ(WriteText(ports / "4000-4002", "8100-8102\n", O_CREAT), Verdict{});
  EXPECT_EQ(ReadText(ports / "53.udp"), "0.0.0.0:8053\n");
  EXPECT_EQ(ReadText(ports / "4000-4002"), "8100-8102\n");
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
  const std::string all =
      Sorted({ssh, "tcp:127.0.0.1:8090-:3000", "tcp:127.0.0.1:8100-:4000",
              "tcp:127.0.0.1:8101-:4001", "tcp:127.0.0.1:8102-:4002",
              "udp:0.0.0.0:8053-:53"});
  EXPECT_EQ(Forwarded("box"), all);
  EXPECT_EQ(Defined("box"), all);
  EXPECT_TRUE(Answers(8102));
  // Another host port in place of the old, and the same one for another guest
  // port.
  ASSERT_EQ(WriteText(ports / "3000", "8091\n"), Verdict{});
  EXPECT_FALSE(Answers(8090));
  EXPECT_TRUE(Answers(8091));
  ASSERT_EQ(rename((ports / "3000").c_str(), (ports / "3001").c_str()), 0);
  EXPECT_NE(Forwarded("box").find("tcp:127.0.0.1:8091-:3001"),
            std::string::npos);
  EXPECT_EQ(unlink((ports / "3001").c_str()), 0);
  ASSERT_EQ(WriteText(ports / "4000-4002", "none\n"), Verdict{});
  EXPECT_EQ(unlink((ports / "53.udp").c_str()), 0);
  EXPECT_TRUE(stdfs::is_empty(ports));
  EXPECT_EQ(Forwarded("box"), ssh);
  EXPECT_EQ(Defined("box"), ssh);
  EXPECT_FALSE(Answers(8091));
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
}

TEST_F(PortsTest, RulesOfAConfigAreOpenedLiveToo) {
  Mkdir("box");
  const std::string ssh =
      "tcp:127.0.0.1:" + ReadLine(Dir() / "box/ssh_port") + "-:22";
  Boot("box");
  const std::string config =
      ReadText(Dir() / "box/config.yaml") +
      "\nportForwards:\n"
      "- guestPort: 3001\n  guestIP: 0.0.0.0\n  ignore: true\n"
      "- guestPortRange: [3000, 3002]\n  hostPortRange: [8110, 8112]\n"
      "  proto: tcp\n"
      "- guestPortRange: [1, 65535]\n  guestIP: 0.0.0.0\n"
      "  proto: any\n  ignore: true\n";
  ASSERT_EQ(WriteText(Dir() / "box/config.yaml", config, O_TRUNC), Verdict{});
  const std::string all =
      Sorted({ssh, "tcp:127.0.0.1:8110-:3000", "tcp:127.0.0.1:8112-:3002"});
  EXPECT_TRUE(Eventually([&] { return Forwarded("box") == all; }));
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
  EXPECT_EQ(Defined("box"), all);
}

TEST_F(PortsTest, RefusalsNameTheHolderAndChangeNothing) {
  Mkdir("box");
  Mkdir("crate");
  Boot("box");
  const stdfs::path ports = Dir() / "box/ports";
  ASSERT_EQ(WriteText(ports / "3000", "8120\n", O_CREAT), Verdict{});
  const std::string before = Forwarded("box");
  const UniqueFd taken = Occupy(8122);
  auto refused = [&](const std::string& name, const std::string& guest,
                     const std::string& value, int error,
                     const std::string& reason) {
    const Verdict verdict =
        WriteText(Dir() / name / "ports" / guest, value + "\n", O_CREAT);
    EXPECT_EQ(verdict.error, error) << guest << ' ' << value;
    EXPECT_EQ(ReadLine(Dir() / name / "error"),
              fmt::format("Cannot forward port '{}' of '{}' to '{}': {}", guest,
                          name, value, reason));
    EXPECT_FALSE(stdfs::exists(Dir() / name / "ports" / guest));
  };
  refused("box", "3002", "8122", EADDRINUSE,
          "port 127.0.0.1:8122 (for the guest's 3002) is taken by " + Self() +
              "; choose another");
  // The whole range or nothing.
  refused("box", "5000-5002", "8121-8123", EADDRINUSE,
          "port 127.0.0.1:8122 (for the guest's 5001) is taken by " + Self() +
              "; choose another");
  refused("crate", "3000", "8120", EADDRINUSE,
          "port 127.0.0.1:8120 (for the guest's 3000) is taken by sandbox "
          "'box'; choose another");
  refused("crate", "3000", ReadLine(Dir() / "box/ssh_port"), EADDRINUSE,
          fmt::format("port 127.0.0.1:{} (for the guest's 3000) is taken by "
                      "sandbox 'box'; choose another",
                      ReadLine(Dir() / "box/ssh_port")));
  refused("box", "1000-1600", "9000-9600", EINVAL,
          "portForwards: more than 512 ports in all; each is opened whether "
          "anything listens in the guest or not, so name those that are used");
  refused("box", "3001", "8120", EINVAL,
          "portForwards: guest ports 3000 and 3001 both want the host's "
          "127.0.0.1:8120; give one of them another hostPort");
  refused("box", "http", "8121", EINVAL,
          "a guest's port is named as in '3000', '53.udp' or '4000-4010'");
  ASSERT_EQ(chown((Dir() / "crate").c_str(), 1000, 1000), 0);
  refused("crate", "80", "80", EACCES,
          "port 127.0.0.1:80 (for the guest's 80) is below 1024, which only a "
          "guest of root's that QEMU runs as root can have; choose another");
  EXPECT_EQ(Forwarded("box"), before);
  EXPECT_EQ(Defined("box"), before);
  // Two that are stopped may want one; the second to start is told.
  Mkdir("other");
  ASSERT_EQ(WriteText(Dir() / "other/ports/3000", "8125\n", O_CREAT),
            Verdict{});
  ASSERT_EQ(WriteText(Dir() / "crate/ports/3000", "8125\n", O_CREAT),
            Verdict{});
  Boot("other");
  EXPECT_EQ(WriteText(Dir() / "crate/status", "start\n").error, EADDRINUSE);
  EXPECT_EQ(ReadLine(Dir() / "crate/error"),
            "Cannot start 'crate': its port 127.0.0.1:8125 (for the guest's "
            "3000) is taken by sandbox 'other'; end that, or write another to "
            "ports/");
}

}  // namespace
}  // namespace sbxfs
