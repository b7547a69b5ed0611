// A Debian guest, booted once and shared by the tests, which go on from each
// other in their order: README's path from `cp image` to an empty trash.
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include "backend/util/text.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

constexpr auto kBoot = 240s;

class GuestTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!Because().empty()) return;
    mount_ = std::make_unique<GuestMount>("start_timeout=240,stop_timeout=90");
    before_ = World::Now();
  }
  static void TearDownTestSuite() {
    if (mount_ == nullptr) return;
    if (stdfs::exists(Box())) Clear(mount_->Dir());
    mount_->Stop();
    mount_.reset();
  }
  void SetUp() override {
    if (const auto why = Because(); !why.empty()) GTEST_SKIP() << why;
    if (broken_) GTEST_SKIP() << "an earlier step failed";
  }
  // Without the earlier steps the later ones only waste time.
  void TearDown() override { broken_ = broken_ || HasFatalFailure(); }

  static std::string Because() {
    if (const auto why = NoGuestsBecause(); !why.empty()) return why;
    const char* image = std::getenv("SBXFS_TEST_IMAGE");
    if (image == nullptr || *image == '\0') {
      return "needs a guest image: set SBXFS_TEST_IMAGE to its path";
    }
    return "";
  }
  static stdfs::path Host() { return mount_->Dir() / ".host"; }
  static stdfs::path Box() { return mount_->Dir() / name_; }
  static std::string Errors() {
    return ReadText(Box() / "error") + ReadText(Host() / "error") +
           ReadText(Box() / "ready");
  }
  // Runs words in the guest by ssh, as README has it.
  static Ended Ssh(std::vector<std::string> words,
                   std::chrono::seconds limit = 60s) {
    words.insert(words.begin(), {"ssh", "-F", Host() / "ssh_config", "-o",
                                 "BatchMode=yes", "sbx-" + name_});
    return RunProgram(words, limit);
  }
  static void ExpectSsh(const std::vector<std::string>& words,
                        const std::string& out) {
    const Ended ended = Ssh(words);
    EXPECT_EQ(ended.status, 0) << ended.err;
    EXPECT_EQ(ended.out, out);
  }
  static void Status(const std::string& verb, std::chrono::seconds limit) {
    Writer writer(Box() / "status", verb + "\n");
    const auto verdict = writer.Ended(limit);
    ASSERT_TRUE(verdict.has_value())
        << verb << " goes on and on: " << ReadText(Box() / "progress");
    ASSERT_EQ(*verdict, Verdict{}) << ReadText(Box() / "console.log");
  }

  static std::unique_ptr<GuestMount> mount_;
  static World before_;
  static std::string name_;
  static std::string port_;
  static bool broken_;
};

std::unique_ptr<GuestMount> GuestTest::mount_;
World GuestTest::before_;
std::string GuestTest::name_ = "box";
std::string GuestTest::port_;
bool GuestTest::broken_ = false;

TEST_F(GuestTest, T01_AnImageIsCopiedIn) {
  const stdfs::path source = std::getenv("SBXFS_TEST_IMAGE");
  const stdfs::path image = Host() / "images/debian-12";
  const Ended cp = RunProgram({"cp", source.string(), image.string()}, 120s);
  ASSERT_EQ(cp.status, 0) << cp.err << ReadText(Host() / "error");
  EXPECT_EQ(stdfs::file_size(image), stdfs::file_size(source));
  EXPECT_EQ(RunProgram({"cmp", source.string(), image.string()}, 120s).status,
            0);
}

TEST_F(GuestTest, T02_MkdirAndConfigure) {
  ASSERT_EQ(Call([] { return mkdir(Box().c_str(), 0700); }), Verdict{})
      << Errors();
  ASSERT_EQ(WriteText(Box() / "memory", "512MiB\n"), Verdict{}) << Errors();
  ASSERT_EQ(WriteText(Box() / "disk", "4GiB\n"), Verdict{}) << Errors();
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  port_ = ReadLine(Box() / "ssh_port");
}

TEST_F(GuestTest, T03_StartReturnsWhenTheGuestCanBeUsed) {
  Status("start", kBoot);
  EXPECT_EQ(ReadLine(Box() / "status"), "running");
  EXPECT_TRUE(ReadText(Box() / "ready").starts_with("yes "))
      << ReadText(Box() / "ready");
  EXPECT_EQ(ReadText(Box() / "error"), "");
  EXPECT_EQ(ReadText(Box() / "progress"), "");
  EXPECT_NE(ReadText(Box() / "console.log"), "");
}

TEST_F(GuestTest, T04_SshAsReadmeSays) {
  const Ended uname = Ssh({"uname", "-a"});
  ASSERT_EQ(uname.status, 0) << uname.err;
  EXPECT_TRUE(uname.out.starts_with("Linux lima-box ")) << uname.out;
  EXPECT_EQ(uname.err, "");
  ExpectSsh({"hostname"}, "lima-box\n");
  // Its own file serves too, and its host key is checked against known_hosts.
  const Ended own = RunProgram({"ssh", "-F", Box() / "ssh_config", "-o",
                                "BatchMode=yes", "sbx-box", "sudo", "-n", "cat",
                                "/etc/ssh/ssh_host_ed25519_key.pub"});
  EXPECT_EQ(own.status, 0) << own.err;
  const std::string known = ReadText(Box() / "known_hosts");
  EXPECT_NE(known.find(std::string(Trim(own.out.substr(0, 80)))),
            std::string::npos)
      << known << own.out;
  // The disk is the size asked for.
  const Ended size = Ssh({"lsblk", "-bndo", "SIZE", "/dev/vda"});
  EXPECT_EQ(Trim(size.out), "4294967296") << size.err;
}

TEST_F(GuestTest, T05_FilesGoInAndOut) {
  const stdfs::path sent = Host().parent_path().string() + ".sent";
  const stdfs::path back = Host().parent_path().string() + ".back";
  std::string bytes;
  for (int i = 0; i < 50000; ++i) bytes += fmt::format("line {}\n", i);
  std::ofstream(sent) << bytes;
  const Ended scp = RunProgram(
      {"scp", "-q", "-F", Host() / "ssh_config", sent, "sbx-box:sent"});
  EXPECT_EQ(scp.status, 0) << scp.err;
  const Ended scp_back = RunProgram(
      {"scp", "-q", "-F", Host() / "ssh_config", "sbx-box:sent", back});
  EXPECT_EQ(scp_back.status, 0) << scp_back.err;
  EXPECT_EQ(ReadText(back), bytes);
}

TEST_F(GuestTest, T06_AuthorizedKeysAreLive) {
  const std::string key = Host().parent_path().string() + ".key";
  ASSERT_EQ(RunProgram({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C",
                        "test", "-f", key})
                .status,
            0);
  const std::string user = ReadText(Box() / "ssh_config");
  const auto at = user.find("  User ") + 7;
  const std::vector<std::string> login = {
      "ssh",
      "-F",
      "/dev/null",
      "-o",
      "BatchMode=yes",
      "-o",
      "IdentitiesOnly=yes",
      "-o",
      "UserKnownHostsFile=" + (Box() / "known_hosts").string(),
      "-i",
      key,
      "-p",
      port_,
      user.substr(at, user.find('\n', at) - at) + "@127.0.0.1",
      "true"};
  EXPECT_EQ(RunProgram(login).status, 255);
  ASSERT_EQ(WriteText(Box() / "authorized_keys", ReadText(key + ".pub")),
            Verdict{});
  EXPECT_TRUE(Eventually([&] { return RunProgram(login).status == 0; }, 60s))
      << Errors();
  ASSERT_EQ(WriteText(Box() / "authorized_keys", "# none\n"), Verdict{});
  EXPECT_TRUE(Eventually([&] { return RunProgram(login).status == 255; }, 60s))
      << Errors();
  ExpectSsh({"echo", "hi"}, "hi\n");  // the mount's own key stays
}

// Echoes on all that is forwarded below.
constexpr char kEcho[] = R"py(
import socket, threading
def serve(listener):
    while True:
        peer = listener.accept()[0]
        def echo(peer=peer):
            while data := peer.recv(4096): peer.sendall(data)
        threading.Thread(target=echo, daemon=True).start()
def listen(family, address):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(8)
    threading.Thread(target=serve, args=(listener,)).start()
listen(socket.AF_INET, ('0.0.0.0', 3000))
listen(socket.AF_INET, ('127.0.0.1', 3001))
listen(socket.AF_UNIX, '/tmp/echo.sock')
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('0.0.0.0', 5300))
while True:
    data, peer = udp.recvfrom(4096)
    udp.sendto(data, peer)
)py";

// What comes back for `text`; nothing when nobody answers within 2 s.
std::string Echo(const sockaddr* address, socklen_t size, int type,
                 const std::string& text) {
  const UniqueFd fd(socket(address->sa_family, type | SOCK_CLOEXEC, 0));
  const timeval limit{2, 0};
  setsockopt(fd.Get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::string back(text.size(), '\0');
  if (connect(fd.Get(), address, size) != 0 ||
      send(fd.Get(), text.data(), text.size(), MSG_NOSIGNAL) < 0 ||
      recv(fd.Get(), back.data(), back.size(), MSG_WAITALL) !=
          static_cast<ssize_t>(back.size())) {
    return "";
  }
  return back;
}

std::string EchoPort(int port, int type, const std::string& text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return Echo(reinterpret_cast<const sockaddr*>(&address), sizeof address, type,
              text);
}

std::string EchoSocket(const stdfs::path& path, const std::string& text) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.native().copy(address.sun_path, sizeof address.sun_path - 1);
  return Echo(reinterpret_cast<const sockaddr*>(&address), sizeof address,
              SOCK_STREAM, text);
}

UniqueFd ListenOn(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(bind(fd.Get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof address),
            0);
  EXPECT_EQ(listen(fd.Get(), 8), 0);
  return fd;
}

TEST_F(GuestTest, T07_PortsAreOpenedAndClosedLive) {
  std::ofstream(Host().parent_path().string() + ".echo") << kEcho;
  const Ended put =
      RunProgram({"scp", "-q", "-F", Host() / "ssh_config",
                  Host().parent_path().string() + ".echo", "sbx-box:echo.py"});
  ASSERT_EQ(put.status, 0) << put.err;
  const Ended begun =
      Ssh({"setsid -f python3 echo.py </dev/null >/dev/null 2>&1"});
  ASSERT_EQ(begun.status, 0) << begun.err;
  const stdfs::path ports = Box() / "ports";
  ASSERT_EQ(WriteText(ports / "3000", "8210\n", O_CREAT), Verdict{})
      << Errors();
  ASSERT_EQ(WriteText(ports / "5300.udp", "8211\n", O_CREAT), Verdict{})
      << Errors();
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  EXPECT_TRUE(
      Eventually([] { return EchoPort(8210, SOCK_STREAM, "tcp") == "tcp"; }));
  EXPECT_TRUE(
      Eventually([] { return EchoPort(8211, SOCK_DGRAM, "udp") == "udp"; }));
  EXPECT_EQ(unlink((ports / "3000").c_str()), 0);
  EXPECT_EQ(unlink((ports / "5300.udp").c_str()), 0);
  EXPECT_EQ(EchoPort(8210, SOCK_STREAM, "tcp"), "");
  EXPECT_EQ(EchoPort(8211, SOCK_DGRAM, "udp"), "");
}

TEST_F(GuestTest, T08_SshPortIsChangedUnderAnOpenConnection) {
  // A login that stays, and a line through it before and after.
  const std::string config = Host() / "ssh_config";
  const std::string base = Host().parent_path().string();
  const std::string script = fmt::format(
      "mkfifo {0}.in; ssh -F {1} -o BatchMode=yes sbx-box cat <{0}.in >{0}.out "
      "2>&1 & exec 9>{0}.in; echo one >&9; "
      "n=0; until grep -q one {0}.out || [ $n = 60 ]; do sleep 0.5; "
      "n=$((n+1)); done; echo 8222 >{2}/ssh_port || exit 1; echo two >&9; "
      "n=0; until grep -q two {0}.out || [ $n = 60 ]; do sleep 0.5; "
      "n=$((n+1)); done; exec 9>&-; wait; cat {0}.out",
      base, config, Box().native());
  const Ended ended = RunProgram({"sh", "-c", script}, 90s);
  EXPECT_EQ(ended.status, 0) << ended.err << Errors();
  EXPECT_EQ(ended.out, "one\ntwo\n");
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), "8222");
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  ExpectSsh({"hostname"}, "lima-box\n");
  ASSERT_EQ(WriteText(Box() / "ssh_port", port_ + "\n"), Verdict{}) << Errors();
}

TEST_F(GuestTest, T09_SocketsOfTheGuestAreOnThisMachine) {
  const std::string config = ReadText(Box() / "config.yaml");
  const std::string here = Host().parent_path().string() + ".sock";
  const UniqueFd listener = ListenOn(here);
  const std::string rules =
      "\nportForwards:\n"
      "- guestSocket: /tmp/echo.sock\n  hostSocket: \"{{.Dir}}/sock/e.sock\"\n"
      "- guestSocket: /tmp/host.sock\n  hostSocket: " +
      here + "\n  reverse: true\n" +
      "- guestIP: 127.0.0.1\n  guestPort: 3001\n  hostPort: 8213\n";
  ASSERT_EQ(WriteText(Box() / "config.yaml",
                      config.substr(0, config.find("\nportForwards:")) + rules,
                      O_TRUNC),
            Verdict{})
      << Errors();
  const stdfs::path link = Box() / "sock/e.sock";
  EXPECT_TRUE(Eventually([] { return ReadText(Box() / "pending").empty(); }))
      << Errors();
  ASSERT_TRUE(stdfs::is_symlink(link)) << Errors();
  const stdfs::path path = stdfs::read_symlink(link);
  EXPECT_EQ(path.filename(), "e.sock");
  EXPECT_EQ(stdfs::status(path.parent_path()).permissions() & stdfs::perms::all,
            stdfs::perms::owner_all);
  EXPECT_EQ(EchoSocket(link, "socket"), "socket");
  EXPECT_EQ(EchoPort(8213, SOCK_STREAM, "loopback"), "loopback");
  // A socket of this machine in the guest.
  const Ended said =
      Ssh({"python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); "
           "s.connect(\"/tmp/host.sock\"); s.sendall(b\"guest\")'"});
  EXPECT_EQ(said.status, 0) << said.err << Errors();
  const UniqueFd peer(accept4(listener.Get(), nullptr, nullptr, SOCK_CLOEXEC));
  std::string heard(5, '\0');
  EXPECT_EQ(recv(peer.Get(), heard.data(), heard.size(), MSG_WAITALL), 5);
  EXPECT_EQ(heard, "guest");
  // They outlive the daemon, and the next finds them.
  mount_->Crash();
  EXPECT_EQ(EchoSocket(path, "alone"), "alone");
  mount_->Start();
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  EXPECT_EQ(EchoSocket(link, "again"), "again");
  ASSERT_EQ(WriteText(Box() / "config.yaml", config, O_TRUNC), Verdict{});
  EXPECT_TRUE(Eventually([&] {
    return !stdfs::is_symlink(link) && EchoSocket(path, "x").empty() &&
           EchoPort(8213, SOCK_STREAM, "x").empty();
  }));
  EXPECT_TRUE(Eventually([] { return ReadText(Box() / "pending").empty(); }));
}

TEST_F(GuestTest, T10_AKilledDaemonDoesNotMatterToTheGuest) {
  const std::string boot = Ssh({"cat", "/proc/sys/kernel/random/boot_id"}).out;
  ASSERT_NE(boot, "");
  mount_->Crash();
  mount_->Start();
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), port_);
  EXPECT_EQ(ReadLine(Box() / "status"), "running");
  EXPECT_TRUE(ReadText(Box() / "ready").starts_with("yes "));
  ExpectSsh({"cat", "/proc/sys/kernel/random/boot_id"}, boot);
}

TEST_F(GuestTest, T11_StopShutsTheGuestDown) {
  const Ended touched = Ssh({"sh", "-c", "'echo kept > kept; sync'"});
  EXPECT_EQ(touched.status, 0) << touched.err;
  Status("stop", 120s);
  EXPECT_EQ(ReadLine(Box() / "status"), "stopped");
  EXPECT_EQ(Virsh({"domstate", "box"}), "shut off");
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), port_);
}

TEST_F(GuestTest, T12_SshToAStoppedSandboxBootsIt) {
  const Ended ended = Ssh({"cat", "kept"}, kBoot);
  ASSERT_EQ(ended.status, 0) << ended.err << Errors();
  EXPECT_EQ(ended.out, "kept\n");
  EXPECT_EQ(ReadLine(Box() / "status"), "running");
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), port_);
}

TEST_F(GuestTest, T13_NothingIsLeftInTheEnd) {
  EXPECT_EQ(Call([] { return rmdir(Box().c_str()); }).error, EBUSY);
  EXPECT_EQ(
      Call([] { return unlink((Host() / "images/debian-12").c_str()); }).error,
      EBUSY);
  Status("stop", 120s);
  ASSERT_EQ(Call([] { return rmdir(Box().c_str()); }), Verdict{}) << Errors();
  ASSERT_EQ(Call([] { return rmdir((Host() / "trash/box").c_str()); }),
            Verdict{})
      << Errors();
  EXPECT_EQ(Call([] { return unlink((Host() / "images/debian-12").c_str()); }),
            Verdict{})
      << Errors();
  EXPECT_EQ(World::Now(), before_);
}

}  // namespace
}  // namespace sbxfs
