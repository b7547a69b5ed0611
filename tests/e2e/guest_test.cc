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
#include <filesystem>
#include <fstream>
#include <memory>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"
#include "tests/support/secrets.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

constexpr auto kBoot = 600s;
constexpr auto npos = std::string::npos;

class GuestTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!NoBootBecause().empty()) return;
    mount_ =
        std::make_unique<GuestMount>("cold,start_timeout=600,stop_timeout=90");
    before_ = World::Now();
  }
  static void TearDownTestSuite() {
    if (mount_ == nullptr) return;
    ExpectNoSecrets(mount_->Dir());
    if (stdfs::exists(Box())) Clear(mount_->Dir());
    mount_->Stop();
    mount_.reset();
  }
  void SetUp() override {
    if (const auto why = NoBootBecause(); !why.empty()) GTEST_SKIP() << why;
    if (broken_) GTEST_SKIP() << "an earlier step failed";
  }
  // Without the earlier steps the later ones only waste time.
  void TearDown() override { broken_ = broken_ || HasFatalFailure(); }

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
  const stdfs::path source = GuestImage();
  const stdfs::path image = Host() / "images/debian-12";
  const Ended cp = RunProgram({"cp", source.string(), image.string()}, 120s);
  ASSERT_EQ(cp.status, 0) << cp.err << ReadText(Host() / "error");
  EXPECT_EQ(stdfs::file_size(image), stdfs::file_size(source));
  EXPECT_EQ(RunProgram({"cmp", source.string(), image.string()}, 120s).status,
            0);
}

// What each step leaves behind is looked at after the first boot, and after
// the second what it left behind twice.
constexpr char kConfig[] = R"(
ssh: {ca: true}
memory: 512MiB
maxMemory: 768MiB
maxCPUs: 3
disk: 4GiB
additionalDisks:
- name: data
  fsArgs: ['-m', '0']
- {name: bare, format: false}
timezone: Etc/GMT-3
env:
  PLAIN: two words
  HASH: "a#b"
param:
  greeting: hello
hostResolver:
  hosts:
    docker.internal: host.lima.internal
    fixed.internal: 10.1.2.3
provision:
- mode: user
  script: |
    #!/bin/bash
    echo "user $(id -un) $HOME $PLAIN" >> ~/user-said
    systemctl --user show-environment > /dev/null && echo "has a session"
- mode: system
  script: |
    #!/bin/sh
    echo "system $(id -un) $PARAM_greeting $LIMA_CIDATA_NAME $LIMA_CIDATA_USER"
    cat /etc/sbxfs-data
    echo booted >> /var/lib/boots
    date +%N >> /mnt/lima-data/provisioned
- mode: data
  path: /etc/sbxfs-data
  owner: root:root
  permissions: 640
  content: |
    data for {{.Name}}
- mode: dependency
  script: |
    #!/bin/sh
    echo dependency; [ ! -e /etc/sbxfs-data ] || echo again
- mode: boot
  script: |
    echo "boot $HASH"
    mountpoint -q /mnt/lima-cidata
probes:
- description: the third try
  hint: See whether it counts.
  script: |
    #!/bin/bash
    n=$(cat ~/tries 2> /dev/null)
    echo $((++n)) > ~/tries
    echo "try $n"
    ((n >= 3))
)";

TEST_F(GuestTest, T02_MkdirAndConfigure) {
  ASSERT_EQ(WriteText(Host() / "disks/data", "64MiB\n", O_CREAT), Verdict{});
  ASSERT_EQ(WriteText(Host() / "disks/bare", "8MiB\n", O_CREAT), Verdict{});
  ASSERT_EQ(Call([] { return mkdir(Box().c_str(), 0700); }), Verdict{})
      << Errors();
  std::ofstream(Box() / "config.yaml") << kConfig;
  ASSERT_EQ(ReadText(Box() / "error"), "");
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  port_ = ReadLine(Box() / "ssh_port");
}

TEST_F(GuestTest, T03_StartReturnsWhenTheGuestCanBeUsed) {
  Writer start(Box() / "status", "start\n");
  // Everything that is waited for has its name, in both files.
  EXPECT_TRUE(Eventually(
      [] { return ReadText(Box() / "ready").find("cloud-init") != npos; },
      kBoot));
  std::string ready;
  std::string progress;
  EXPECT_TRUE(Eventually(
      [&] {
        ready = ReadLine(Box() / "ready");
        progress = ReadLine(Box() / "progress");
        return ready.find("status 1") != npos && progress.find("try") != npos;
      },
      kBoot))
      << ready << ReadText(Box() / "provision.log");
  EXPECT_TRUE(
      ready.starts_with("no: probe 1 of 1 (the third try), which ended "
                        "with status 1, having said 'try "))
      << ready;
  EXPECT_TRUE(ready.ends_with("'; See whether it counts.")) << ready;
  EXPECT_TRUE(progress.starts_with("step 4 of 4: waiting for probe 1 of 1"))
      << progress;
  const auto verdict = start.Ended(kBoot);
  ASSERT_TRUE(verdict.has_value()) << ReadText(Box() / "progress");
  ASSERT_EQ(*verdict, Verdict{}) << ReadText(Box() / "console.log");
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

TEST_F(GuestTest, T04b_ProvisionedAsConfigYamlSays) {
  std::string log = ReadText(Box() / "provision.log");
  std::string user = Ssh({"id", "-un"}).out;
  user.pop_back();
  // Without the times.
  std::string plain;
  for (const std::string_view line : Split(log, '\n')) {
    plain += line.starts_with("== 2") ? "==" + std::string(line.substr(23))
                                      : std::string(line);
    plain += '\n';
  }
  EXPECT_TRUE(plain.starts_with("== disk data\n")) << plain;
  const auto after = plain.find("== time zone");
  ASSERT_NE(after, npos) << plain;
  EXPECT_EQ(plain.substr(after),
            "== time zone\n== exit status 0\n"
            "== provision script 5 (mode boot)\nboot a#b\n== exit status 0\n"
            "== provision script 4 (mode dependency)\ndependency\n"
            "== exit status 0\n"
            "== provision script 3 (mode data, /etc/sbxfs-data)\n"
            "== exit status 0\n"
            "== provision script 2 (mode system)\n"
            "system root hello box " +
                user +
                "\ndata for box\n== exit status 0\n"
                "== provision script 1 (mode user)\nhas a session\n"
                "== exit status 0\n\n");
  const Ended ended =
      Ssh({"cat user-said; echo $PLAIN $HASH; date +%Z; stat -c '%a %U' "
           "/etc/sbxfs-data; getent hosts docker.internal fixed.internal; "
           "sh -lc 'echo $HASH'; sudo ls /mnt/lima-cidata; env"});
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(ended.out.starts_with(
      "user " + user + " /home/" + user + " two words\n" +
      "two words a#b\n+03\n640 root\n"
      "192.168.5.2     docker.internal\n10.1.2.3        fixed.internal\n"
      "a#b\n"))
      << ended.out;
  EXPECT_NE(ended.out.find("\nHASH=a#b\n"), npos) << ended.out;
  // An additional disk is formatted once.
  ExpectSsh({"findmnt -rno FSTYPE,LABEL /mnt/lima-data; findmnt /mnt/lima-bare;"
             "wc -l </mnt/lima-data/provisioned; "
             "ls /dev/disk/by-id/ | grep -x virtio-bare"},
            "ext4 lima-data\n1\nvirtio-bare\n");
}

TEST_F(GuestTest, T04a_CpusAndMemoryAreChangedLive) {
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  ExpectSsh({"nproc"}, "2\n");
  const auto total = [] {
    return ParseNumber(Trim(Ssh({"awk '/MemTotal/ {print $2}' "
                                 "/proc/meminfo"})
                                .out))
               .value_or(0) /
           1024;
  };
  const uint64_t at_first = total();
  EXPECT_LT(at_first, 512U);
  const auto set = [](const char* file, const char* value) {
    return WriteText(Box() / file, std::string(value) + "\n");
  };
  // Emulated ones get processors at their next start alone.
  const bool plugs =
      Virsh({"dumpxml", "box"}).find("<domain type='kvm'") != npos;
  ASSERT_EQ(set("cpus", "3"), Verdict{}) << Errors();
  ASSERT_EQ(set("memory", "768MiB"), Verdict{}) << Errors();
  EXPECT_EQ(ReadText(Box() / "pending"), plugs ? "" : "cpus\n");
  ExpectSsh({"nproc"}, plugs ? "3\n" : "2\n");
  EXPECT_EQ(total(), at_first + 256);
  ASSERT_EQ(set("memory", "384MiB"), Verdict{}) << Errors();
  EXPECT_EQ(ReadText(Box() / "pending"), plugs ? "" : "cpus\n");
  EXPECT_EQ(total(), at_first - 128);
  EXPECT_NE(Virsh({"dommemstat", "box"}).find("actual 393216"), npos);
  // Beyond what it was started with only the next start goes.
  ASSERT_EQ(set("cpus", "4"), Verdict{}) << Errors();
  ASSERT_EQ(set("memory", "1GiB"), Verdict{}) << Errors();
  EXPECT_EQ(ReadText(Box() / "pending"), "cpus\nmemory\n");
  ASSERT_EQ(set("cpus", plugs ? "3" : "2"), Verdict{}) << Errors();
  ASSERT_EQ(set("memory", "512MiB"), Verdict{}) << Errors();
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  EXPECT_EQ(total(), at_first);
}

TEST_F(GuestTest, T04a1_TheDiskGrowsLiveAndWhatIsTrimmedIsGivenBack) {
  const auto blocks = [] {
    return ParseNumber(Trim(Ssh({"df -m --output=size / | tail -1"}).out))
        .value_or(0);
  };
  EXPECT_LT(blocks(), 4096U);
  ASSERT_EQ(WriteText(Box() / "disk", "6GiB\n"), Verdict{}) << Errors();
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  EXPECT_GT(blocks(), 5500U);
  ASSERT_EQ(WriteText(Box() / "disk", "5GiB\n").error, EINVAL);
  // fstrim in the guest gives the pool its bytes back.
  const auto taken = [] {
    const std::string usage = ReadText(Box() / "usage");
    const auto at = usage.find("disk_bytes ");
    return ParseNumber(usage.substr(at + 11, usage.find('\n', at) - at - 11))
        .value_or(0);
  };
  ExpectSsh({"sudo fstrim / && head -c 64M /dev/urandom > big && sync"}, "");
  const uint64_t full = taken();
  ExpectSsh({"rm big && sync && sudo fstrim /"}, "");
  EXPECT_LT(taken() + (56U << 20), full) << full;
}

TEST_F(GuestTest, T04c_ASecretIsTheGuestsAlone) {
  const std::string token = Canary("token");
  const stdfs::path secrets = Box() / "secrets";
  EXPECT_EQ(RunProgram({"ls", secrets}).out, "");
  {
    const ProcessWatch watch;
    ASSERT_EQ(WriteText(secrets / "TOKEN", token + "#\n", O_CREAT), Verdict{})
        << Errors();
    const std::string pem =
        Canary("pem\n") + std::string(60000, 'k') + Canary("end\n");
    ASSERT_EQ(WriteText(secrets / "PEM", pem, O_CREAT), Verdict{}) << Errors();
  }
  EXPECT_EQ(RunProgram({"ls", secrets}).out, "PEM\nTOKEN\n");
  EXPECT_EQ(
      Call([&] { return open((secrets / "TOKEN").c_str(), O_RDONLY); }).error,
      EACCES);
  ExpectSsh(
      {"cat /run/sbxfs/TOKEN; echo; env | grep ^TOKEN; "
       "sh -lc 'echo $TOKEN; echo ${#PEM}'; "
       "stat -c '%a %s' /run/sbxfs/PEM; df --output=fstype /run/sbxfs | "
       "tail -1"},
      fmt::format("{0}#\nTOKEN={0}#\n{0}#\n60033\n400 60034\ntmpfs\n", token));
  // Nothing of this machine has it but the daemon that was told.
  ExpectNoSecrets(mount_->Dir());
  for (const auto& file : stdfs::directory_iterator(Box())) {
    if (!file.is_regular_file()) continue;
    EXPECT_EQ(ReadText(file.path()).find(Canary("")), npos) << file.path();
  }
  EXPECT_EQ(Ssh({"sudo", "grep", "-rlaF", "-D", "skip", "-e",
                 token.substr(0, 12), "/etc", "/var", "/home", "/root", "/tmp"},
                120s)
                .out,
            "");
  EXPECT_EQ(WriteText(Box() / "status", "save\n").error, EPERM);
  ASSERT_EQ(WriteText(secrets / "PEM", "none\n"), Verdict{}) << Errors();
  ExpectSsh({"ls", "/run/sbxfs"}, "TOKEN\n");
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
  // It has known the authority since its first boot.
  std::ofstream(key + "-cert.pub") << CertificateOf(Box(), key + ".pub");
  EXPECT_EQ(RunProgram(login).status, 0);
  stdfs::remove(key + "-cert.pub");
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
import http.server, socket, socketserver, threading
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
class Engine(http.server.BaseHTTPRequestHandler):
    """What docker's client asks of an engine, to tell its version."""
    def do_GET(self):
        text = b'OK'
        if self.path.endswith('/version'):
            text = b'{"Version": "of the guest", "ApiVersion": "1.44"}'
        self.send_response(200)
        self.send_header('Api-Version', '1.44')
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        if self.command == 'GET': self.wfile.write(text)
    do_HEAD = do_GET
    def log_message(self, *_): pass
threading.Thread(target=socketserver.ThreadingUnixStreamServer(
    '/tmp/docker.sock', Engine).serve_forever).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('0.0.0.0', 5300))
while True:
    data, peer = udp.recvfrom(4096)
    udp.sendto(data, peer)
)py";

// What comes back for `text`; nothing when nobody answers within 60 s, or to a
// datagram, which may be lost, within 2 s.
std::string Echo(const sockaddr* address, socklen_t size, int type,
                 const std::string& text) {
  const UniqueFd fd(socket(address->sa_family, type | SOCK_CLOEXEC, 0));
  const timeval limit{type == SOCK_DGRAM ? 2 : 60, 0};
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
      "- guestSocket: /tmp/docker.sock\n  hostSocket: docker.sock\n"
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
  // As README has it for docker's client, where there is one.
  if (RunProgram({"sh", "-c", "command -v docker"}).status == 0) {
    const Ended version = RunProgram(
        {"env", "DOCKER_CONFIG=/nonexistent", "docker", "-H",
         "unix://" + stdfs::read_symlink(Box() / "sock/docker.sock").string(),
         "version", "--format", "{{.Server.Version}}"},
        60s);
    EXPECT_EQ(version.out, "of the guest\n") << version.err;
  }
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
  EXPECT_EQ(RunProgram({"ls", Box() / "secrets"}).out, "TOKEN\n");
  // The agent may still be busy for the one that was killed.
  EXPECT_TRUE(Eventually([] {
    return ReadText(Box() / "provision.log").find("hello box") != npos;
  }));
  ExpectSsh({"cat", "/proc/sys/kernel/random/boot_id"}, boot);
}

TEST_F(GuestTest, T11_StopShutsTheGuestDown) {
  const Ended touched = Ssh({"sh", "-c", "'echo kept > kept; sync'"});
  EXPECT_EQ(touched.status, 0) << touched.err;
  Status("stop", 120s);
  EXPECT_EQ(ReadLine(Box() / "status"), "stopped");
  EXPECT_EQ(Virsh({"domstate", "box"}), "shut off");
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), port_);
  EXPECT_EQ(RunProgram({"ls", Box() / "secrets"}).out, "");
  EXPECT_EQ(WriteText(Box() / "secrets/KEY", "x\n", O_CREAT).error, EBUSY);
  EXPECT_EQ(ReadLine(Box() / "error"),
            "Cannot set secret 'KEY' of 'box': it is stopped, and only a "
            "running guest holds secrets; start it first");
}

TEST_F(GuestTest, T12_SshToAStoppedSandboxBootsIt) {
  const stdfs::path shared = Host().parent_path().string() + ".shared";
  stdfs::create_directory(shared);
  std::ofstream(shared / "note") << "from here\n";
  ASSERT_EQ(WriteText(Box() / "mounts/shared", shared.string() + "\n", O_CREAT),
            Verdict{})
      << Errors();
  ASSERT_EQ(WriteText(Box() / "cpus", "3\n"), Verdict{}) << Errors();
  const Ended ended = Ssh({"cat", "kept"}, kBoot);
  ASSERT_EQ(ended.status, 0) << ended.err << Errors();
  EXPECT_EQ(ended.out, "kept\n");
  EXPECT_EQ(ReadLine(Box() / "status"), "running");
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), port_);
}

TEST_F(GuestTest, T13_EachBootProvisionsAnew) {
  ExpectSsh({"cat", Host().parent_path().string() + ".shared/note"},
            "from here\n");
  ExpectSsh({"nproc; wc -l </mnt/lima-data/provisioned"}, "3\n2\n");
  ExpectSsh({"cat /var/lib/boots; ls -A /run/sbxfs; sudo cloud-init query "
             "instance_id >/dev/null; hostname"},
            "booted\nbooted\n.environment\nlima-box\n");
  EXPECT_NE(ReadText(Box() / "provision.log").find("\nagain\n"), npos);
  // Its host key is in the guest, and in no seed any more.
  const std::string seed = Virsh(
      {"vol-path", "--pool", "sbxfs", Virsh({"domuuid", "box"}) + ".seed"});
  EXPECT_EQ(ReadText(seed).find("PRIVATE KEY"), npos);
  EXPECT_NE(ReadText(seed).find("boot.sh"), npos);
}

TEST_F(GuestTest, T14_AFailedScriptIsToldAndTakesNothingAway) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
  mount_->ExpectLoggedErrors();
  Status("stop", 120s);
  const stdfs::path other = Box().parent_path() / "other";
  ASSERT_EQ(Call([&] { return rename(Box().c_str(), other.c_str()); }),
            Verdict{});
  name_ = "other";
  std::ofstream(Box() / "config.yaml") << R"(
memory: 512MiB
disk: 6GiB
provision:
- script: |
    #!/bin/sh
    for line in one two three four; do echo $line; done
    exit 3
- script: |
    #!/bin/sh
    hostname
)";
  ASSERT_EQ(ReadText(Box() / "error"), "");
  Writer start(Box() / "status", "start\n");
  const auto verdict = start.Ended(kBoot);
  ASSERT_TRUE(verdict.has_value()) << ReadText(Box() / "progress");
  const std::string why =
      "provision script 1 (mode system) ended with status 3, having said 'two "
      "| three | four'; see provision.log, mend config.yaml and write restart";
  EXPECT_EQ(*verdict,
            (Verdict{EIO, "Cannot start 'other': it runs, but " + why}));
  EXPECT_EQ(ReadLine(Box() / "error"), verdict->sentence);
  EXPECT_EQ(ReadLine(Box() / "ready"), "no: " + why);
  EXPECT_EQ(ReadLine(Box() / "status"), "running");
  const std::string log = ReadText(Box() / "provision.log");
  EXPECT_NE(log.find("one\ntwo\nthree\nfour\n== exit status 3\n"), npos) << log;
  // The next one ran, in the guest that has its new name.
  EXPECT_NE(log.find("\nlima-other\n== exit status 0\n"), npos) << log;
  // What config.yaml says no more is gone.
  ExpectSsh({"echo x$PLAIN$HASH; grep -c internal /etc/hosts"}, "x\n1\n");
}

TEST_F(GuestTest, T15_NothingIsLeftInTheEnd) {
  EXPECT_EQ(Call([] { return rmdir(Box().c_str()); }).error, EBUSY);
  EXPECT_EQ(
      Call([] { return unlink((Host() / "images/debian-12").c_str()); }).error,
      EBUSY);
  Status("stop", 120s);
  ASSERT_EQ(Call([] { return rmdir(Box().c_str()); }), Verdict{}) << Errors();
  ASSERT_EQ(Call([] { return rmdir((Host() / "trash" / name_).c_str()); }),
            Verdict{})
      << Errors();
  for (const char* disk : {"disks/data", "disks/bare"}) {
    EXPECT_EQ(Call([&] { return unlink((Host() / disk).c_str()); }), Verdict{})
        << Errors();
  }
  EXPECT_EQ(Call([] { return unlink((Host() / "images/debian-12").c_str()); }),
            Verdict{})
      << Errors();
  EXPECT_EQ(World::Now(), before_);
}

}  // namespace
}  // namespace sbxfs
