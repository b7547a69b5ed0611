#include "tests/support/far.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

void Must(const std::vector<std::string>& words) {
  const Ended ended = RunProgram(words);
  if (ended.status != 0) {
    throw std::runtime_error(
        fmt::format("{}: {}", words.front(), ended.err + ended.out));
  }
}

// A certificate of our own authority's for its addresses, in its directory.
constexpr char kCertificates[] = R"(
set -eu
cd "$0"
mkdir -p pki
cd pki
new() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
new cakey.pem
openssl req -x509 -new -key cakey.pem -subj /CN=test-ca -days 2 -out cacert.pem
for kind in server client; do
  new ${kind}key.pem
  printf 'subjectAltName=IP:127.0.0.1,IP:10.77.0.2,DNS:localhost\n' > ext
  openssl req -new -key ${kind}key.pem -subj /CN=$kind -out req
  openssl x509 -req -in req -CA cacert.pem -CAkey cakey.pem -CAcreateserial \
    -extfile ext -days 2 -out ${kind}cert.pem
done
rm -f req ext
)";

void WriteConfiguration(const stdfs::path& dir, const std::string& address) {
  const std::string at = dir.string();
  Must({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at + "/host_key"});
  Must({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at + "/key"});
  stdfs::copy_file(dir / "key.pub", dir / "authorized_keys");
  Must({"sh", "-c", kCertificates, at});
  std::ofstream(dir / "sshd_config")
      << "Port " << FarLibvirtd::kSshPort << "\nListenAddress 0.0.0.0\nHostKey "
      << at << "/host_key\nAuthorizedKeysFile " << at
      << "/authorized_keys\nPidFile " << at
      << "/sshd.pid\nStrictModes no\nUsePAM no\n"
         "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
         "MaxStartups 100\n";
  std::ofstream(dir / "libvirtd.conf")
      << "listen_addr = \"0.0.0.0\"\nlisten_tcp = 1\nlisten_tls = 1\n"
      << "auth_tcp = \"none\"\n"
      << fmt::format("tcp_port = \"{}\"\ntls_port = \"{}\"\n",
                     FarLibvirtd::kTcpPort, FarLibvirtd::kTlsPort)
      << fmt::format(
             "ca_file = \"{0}/pki/cacert.pem\"\n"
             "cert_file = \"{0}/pki/servercert.pem\"\n"
             "key_file = \"{0}/pki/serverkey.pem\"\n",
             at);
  std::ofstream known(dir / "known_hosts");
  std::string key = ReadLine(dir / "host_key.pub");
  known << fmt::format("[{}]:{} {}\n", address, FarLibvirtd::kSshPort, key);
}

}  // namespace

FarLibvirtd::FarLibvirtd(bool apart) {
  static int count = 0;
  if (apart) address_ = "10.77.0.2";
  dir_ =
      stdfs::path(std::getenv("SBXFS_INSIDE")) / fmt::format("far-{}", ++count);
  stdfs::create_directory(dir_);
  WriteConfiguration(dir_, address_);
  pid_ = fork();
  if (pid_ == 0) {
    if (apart) setenv("SBXFS_APART", "yes", 1);
    const std::string inside = SBXFS_SOURCE_DIR "/tests/support/inside";
    execlp(inside.c_str(), inside.c_str(), "--beside", dir_.c_str(), "sh", "-c",
           "touch \"$0\"; exec sleep 100000", (dir_ / "ready").c_str(),
           nullptr);
    _exit(127);
  }
  if (!Eventually([this] { return stdfs::exists(dir_ / "ready"); })) {
    throw std::runtime_error("the far libvirtd did not start");
  }
  if (!apart) return;
  Must({"ip", "link", "add", "far", "type", "veth", "peer", "name", "near",
        "netns", Inner()});
  Must({"ip", "address", "add", "10.77.0.1/24", "dev", "far"});
  SetLink(true);
  Must({"nsenter", "-t", Inner(), "-n", "ip", "address", "add", "10.77.0.2/24",
        "dev", "near"});
  Must({"nsenter", "-t", Inner(), "-n", "ip", "link", "set", "near", "up"});
}

std::string FarLibvirtd::Inner() const {
  // The shell of its namespaces is the child of unshare.
  return std::to_string(ChildOf(pid_));
}

void FarLibvirtd::SetLink(bool up) const {
  Must({"ip", "link", "set", "far", up ? "up" : "down"});
}

FarLibvirtd::~FarLibvirtd() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::string FarLibvirtd::Uri(const std::string& transport) const {
  const std::string at = dir_.string();
  if (transport == "unix") {
    return fmt::format("qemu+unix:///system?socket={}/run/libvirt-sock", at);
  }
  if (transport == "tcp") {
    return fmt::format("qemu+tcp://{}:{}/system", address_, kTcpPort);
  }
  if (transport == "tls") {
    return fmt::format("qemu+tls://{}:{}/system?pkipath={}/pki", address_,
                       kTlsPort, at);
  }
  return fmt::format(
      "qemu+{}://root@{}:{}/system?keyfile={}/key&known_hosts={}/"
      "known_hosts{}",
      transport, address_, kSshPort, at, at,
      transport == "ssh" ? "" : "&sshauth=privkey&known_hosts_verify=normal");
}

Ended FarLibvirtd::Run(const std::string& script) const {
  return RunProgram(
      {"nsenter", "-t", Inner(), "-m", "-p", "-n", "sh", "-c", script});
}

std::string FarLibvirtd::Virsh(const std::string& words) const {
  const Ended ended = Run("virsh -q -c qemu:///system " + words);
  EXPECT_EQ(ended.status, 0) << words << ": " << ended.err;
  return std::string(Trim(ended.out));
}

void FarLibvirtd::SignalLibvirtd(int signal) {
  EXPECT_EQ(
      Run(fmt::format("kill -{} $(cat /run/libvirtd.pid)", signal)).status, 0);
}
void FarLibvirtd::KillLibvirtd() { SignalLibvirtd(SIGKILL); }
void FarLibvirtd::StartLibvirtd() {
  EXPECT_EQ(Run("libvirtd -d --listen").status, 0);
}

void FarLibvirtd::KillSshd() {
  // Its sessions too.
  EXPECT_EQ(Run("pkill -9 sshd").status, 0);
}
void FarLibvirtd::StartSshd(uint16_t port) {
  const Ended ended = Run(fmt::format(
      "/usr/sbin/sshd -f {}/sshd_config -o Port={}", dir_.string(), port));
  EXPECT_EQ(ended.status, 0) << ended.err;
}

}  // namespace sbxfs
