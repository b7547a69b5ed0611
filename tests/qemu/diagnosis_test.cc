// Why a hypervisor cannot be reached: each failure provoked for real.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "tests/support/far.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class DiagnosisTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!NoGuestsBecause().empty()) return;
    far_ = std::make_unique<FarLibvirtd>();
    dir_ = far_->Dir() / "mnt";
    stdfs::create_directory(dir_);
    chmod(dir_.c_str(), 0777);
  }
  static void TearDownTestSuite() { far_.reset(); }
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
  }

  // What sbxfs says when it does not mount; run by another user.
  static std::string Said(const std::string& uri, uid_t uid = 0) {
    std::vector<std::string> as;
    if (uid != 0) {
      const std::string home = At(fmt::format("home-{}", uid));
      stdfs::create_directory(home);
      EXPECT_EQ(chown(home.c_str(), uid, uid), 0);
      as = {"setpriv",        fmt::format("--reuid={}", uid),
            "--clear-groups", "env",
            "HOME=" + home,   "XDG_DATA_HOME=" + home};
    }
    as.insert(as.end(), {std::string(SBXFS_BIN_DIR) + "/sbxfs", "-f", "-o",
                         "insecure_tcp", uri, dir_.string()});
    const Ended ended = RunProgram(as);
    EXPECT_NE(ended.status, 0) << uri;
    std::string said = ended.err;
    if (said.ends_with('\n')) said.pop_back();
    fmt::print("{}\n", said);
    const std::string begin =
        fmt::format("sbxfs: Cannot connect to '{}': ", uri);
    EXPECT_THAT(said, StartsWith(begin));
    EXPECT_EQ(said.find('\n'), std::string::npos) << said;
    return said.substr(std::min(begin.size(), said.size()));
  }
  static std::string At(const std::string& name) {
    return (far_->Dir() / name).string();
  }
  // By the far one's ssh, with other files.
  static std::string Ssh(const std::string& key, const std::string& hosts,
                         uint16_t port = FarLibvirtd::kSshPort) {
    return fmt::format(
        "qemu+ssh://root@127.0.0.1:{}/system?keyfile={}&known_hosts={}", port,
        At(key), At(hosts));
  }

  static std::unique_ptr<FarLibvirtd> far_;
  static stdfs::path dir_;
};
std::unique_ptr<FarLibvirtd> DiagnosisTest::far_;
stdfs::path DiagnosisTest::dir_;

TEST_F(DiagnosisTest, NamesAndNetworks) {
  const std::string no_name =
      "; the name does not resolve: see its spelling, /etc/hosts and "
      "/etc/resolv.conf";
  // The certificates are looked at first.
  const std::string pki = "?pkipath=" + At("pki");
  for (const auto& [transport, more] : {std::pair("ssh", std::string()),
                                        {"tcp", ""},
                                        {"tls", pki},
                                        {"libssh2", ""}}) {
    EXPECT_THAT(Said(fmt::format("qemu+{}://no-such.invalid/system{}",
                                 transport, more)),
                EndsWith(no_name));
  }
  EXPECT_THAT(Said("qemu+ssh://host.docker.internal/system"),
              EndsWith("; that name is there in a container alone which was "
                       "run with --add-host host.docker.internal:host-gateway "
                       "(extra_hosts in compose)"));
  for (const auto& [transport, more] :
       {std::pair("ssh", std::string()), {"tcp", ""}, {"tls", pki}}) {
    EXPECT_THAT(
        Said(fmt::format("qemu+{}://10.9.9.9/system{}", transport, more)),
        AllOf(HasSubstr("Network is unreachable"),
              EndsWith("; this machine has no route to there: see ip "
                       "route")));
  }
  EXPECT_THAT(Said("qemu+ssh://127.0.0.1:1/system"),
              AllOf(HasSubstr("Connection refused"),
                    EndsWith("; no sshd listens there: see host and port")));
  for (const auto& [transport, more] :
       {std::pair("tcp", std::string()), {"tls", pki}}) {
    EXPECT_THAT(
        Said(fmt::format("qemu+{}://127.0.0.1:1/system{}", transport, more)),
        AllOf(HasSubstr("Connection refused"),
              EndsWith("; nothing listens there: see host and port, "
                       "and whether libvirtd was told to (systemctl "
                       "start libvirtd-tcp.socket or "
                       "libvirtd-tls.socket)")));
  }
}

TEST_F(DiagnosisTest, KeysOfSsh) {
  ASSERT_EQ(RunProgram({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                        At("other")})
                .status,
            0);
  EXPECT_THAT(Said(Ssh("none", "known_hosts")),
              HasSubstr("cannot be used: No such file or directory; make one "
                        "with ssh-keygen, or correct keyfile="));
  stdfs::copy_file(At("key"), At("open"));
  chmod(At("open").c_str(), 0644);
  EXPECT_THAT(Said(Ssh("open", "known_hosts")),
              EndsWith("can be read by others, so that ssh does not use it; "
                       "chmod 600 " +
                       At("open")));
  EXPECT_THAT(Said(Ssh("other", "known_hosts")),
              EndsWith("; the host takes no key of this user: add keyfile=PATH "
                       "to the URI, or the key to authorized_keys over there "
                       "(ssh-copy-id)"));
  std::ofstream(At("no_hosts"));
  EXPECT_THAT(Said(Ssh("key", "no_hosts")),
              EndsWith("; the host's key is not in known_hosts: connect once "
                       "with ssh and look at it, or add it with "
                       "known_hosts="));
  std::ofstream(At("other_hosts")) << fmt::format(
      "[127.0.0.1]:{} {}\n", FarLibvirtd::kSshPort, ReadLine(At("other.pub")));
  EXPECT_EQ(Said(Ssh("key", "other_hosts")),
            "its host key is another than the one in known_hosts; if that "
            "machine was made anew take its old key out with ssh-keygen -R "
            "HOST, else somebody is in between");
}

TEST_F(DiagnosisTest, Libvirtds) {
  EXPECT_THAT(Said("qemu+unix:///system?socket=/no/socket"),
              AllOf(HasSubstr("No such file or directory"),
                    EndsWith("; no libvirtd listens there: start it (systemctl "
                             "start libvirtd, or virtlogd -d; libvirtd -d)")));
  EXPECT_THAT(Said("smoke:///system"),
              EndsWith("; libvirt here has no such driver: see the spelling "
                       "before '://', and whether the package of that driver "
                       "is installed"));
  const std::string socket = At("run/libvirt-sock");
  chmod(socket.c_str(), 0700);
  EXPECT_THAT(
      Said(far_->Uri("unix"), 65534),
      AllOf(HasSubstr("Permission denied"),
            EndsWith("; this user may not use that libvirt: add it to the "
                     "group libvirt, or use qemu:///session")));
  chmod(socket.c_str(), 0777);
  far_->KillLibvirtd();
  EXPECT_THAT(Said(far_->Uri("ssh")),
              AllOf(HasSubstr("Failed to connect socket to"),
                    EndsWith("; no libvirtd listens over there: start it")));
  far_->StartLibvirtd();
}

// In a container a user may have a number alone.
TEST_F(DiagnosisTest, UsersWithoutAName) {
  EXPECT_THAT(
      Said("qemu+ssh://127.0.0.1:2222/system", 61234),
      AllOf(HasSubstr("61234"),
            EndsWith("this user has no name here, which ssh wants: add a line "
                     "for its uid to /etc/passwd (in a container, where it was "
                     "given by number)")));
  EXPECT_THAT(Said("qemu:///session", 61234),
              AllOf(HasSubstr("61234"), HasSubstr("this user has no name")));
}

TEST_F(DiagnosisTest, Certificates) {
  auto tls = [](const std::string& pki, const std::string& host = "127.0.0.1",
                uint16_t port = FarLibvirtd::kTlsPort) {
    return fmt::format("qemu+tls://{}:{}/system?pkipath={}", host, port,
                       At(pki));
  };
  stdfs::create_directory(At("empty"));
  EXPECT_THAT(Said(tls("empty")),
              EndsWith("; put the CA's certificate there, or name its "
                       "directory with pkipath="));
  // The same authority's, without one for us.
  stdfs::create_directory(At("nobody"));
  stdfs::copy_file(At("pki/cacert.pem"), At("nobody/cacert.pem"));
  EXPECT_THAT(Said(tls("nobody")),
              EndsWith("; the server does not take our certificate: put "
                       "clientcert.pem and clientkey.pem, signed by its CA, "
                       "where pkipath= says"));
  // Another authority, of the same kind.
  const Ended made = RunProgram(
      {"sh", "-ec",
       "cd \"$0\"; mkdir foreign expired; cd foreign; openssl req -x509 "
       "-newkey "
       "rsa:2048 -nodes -keyout cakey.pem -out cacert.pem -subj /CN=foreign "
       "-days 2; cd ../expired; cp ../pki/cacert.pem ../pki/clientkey.pem .; "
       "openssl req -new -key clientkey.pem -subj /CN=client -out req; touch "
       "index; echo 01 > serial; printf '%s\\n' '[ca]' default_ca=c '[c]' "
       "database=index serial=serial new_certs_dir=. default_md=sha256 "
       "policy=p '[p]' commonName=supplied > conf; openssl ca -batch -config "
       "conf -in req -cert ../pki/cacert.pem -keyfile ../pki/cakey.pem "
       "-startdate 20200101000000Z -enddate 20200102000000Z -out "
       "clientcert.pem",
       far_->Dir().string()});
  ASSERT_EQ(made.status, 0) << made.err;
  const std::string unverified =
      "; another CA than that of cacert.pem signed the server's certificate, "
      "or "
      "it was made for another host name: openssl s_client -connect HOST:PORT "
      "-CAfile cacert.pem -verify_hostname HOST tells which";
  EXPECT_THAT(Said(tls("foreign")), EndsWith(unverified));
  EXPECT_THAT(Said(tls("expired")),
              EndsWith("; the certificate is out of date: renew it, or set the "
                       "clock"));
  EXPECT_THAT(Said(tls("pki", "127.1")), EndsWith(unverified));
  EXPECT_THAT(Said(tls("pki", "127.0.0.1", FarLibvirtd::kTcpPort)),
              EndsWith("; no TLS is spoken at that port: see the port, and "
                       "whether it is qemu+tcp's"));
  EXPECT_THAT(Said(fmt::format("qemu+tcp://127.0.0.1:{}/system",
                               FarLibvirtd::kTlsPort)),
              EndsWith("; what listens there is no libvirtd of that transport: "
                       "see the port (16509 for tcp, 16514 for tls)"));
}

TEST_F(DiagnosisTest, WhoWantsAPassword) {
  far_->KillLibvirtd();
  EXPECT_EQ(far_->Run("sed -i 's/auth_tcp = \"none\"/auth_tcp = \"sasl\"/' "
                      "/etc/libvirt/libvirtd.conf")
                .status,
            0);
  far_->StartLibvirtd();
  const std::string uri =
      fmt::format("qemu+tcp://127.0.0.1:{}/system", FarLibvirtd::kTcpPort);
  EXPECT_THAT(Said(uri), EndsWith("; that libvirt wants a name and password, "
                                  "which nobody can be asked for: use "
                                  "qemu+ssh, or qemu+tls with certificates"));
}

// The same sentences are in the tree.
TEST_F(DiagnosisTest, TheTreeTellsThem) {
  GuestMount mount("trash=0", far_->Uri("ssh"));
  mount.ExpectLoggedErrors();
  const stdfs::path host = mount.Dir() / ".host";
  const Verdict refused =
      WriteText(host / "uri", "qemu+ssh://no-such.invalid/system\n");
  EXPECT_EQ(refused.error, EHOSTDOWN);
  EXPECT_THAT(ReadText(host / "error"),
              HasSubstr("Cannot connect to "
                        "'qemu+ssh://no-such.invalid/system': "));
  EXPECT_THAT(ReadText(host / "connection"), StartsWith("connected"));
  EXPECT_EQ(WriteText(host / "uri", "qemu+tcp://127.0.0.1/system\n").error,
            EPERM);
  // A key that is not there any more.
  stdfs::rename(At("key"), At("key.away"));
  far_->KillSshd();
  far_->StartSshd(FarLibvirtd::kSshPort);
  EXPECT_TRUE(Eventually([&] {
    return ReadText(host / "connection")
               .find(
                   "cannot be used: No such file or directory; make one with "
                   "ssh-keygen") != std::string::npos;
  })) << ReadText(host / "connection");
  stdfs::rename(At("key.away"), At("key"));
  EXPECT_TRUE(Eventually([&] {
    return ReadText(host / "connection").starts_with("connected");
  })) << ReadText(host / "connection");
  mount.Stop();
}

// That the node is there and opens, and that libvirt offers kvm, says nothing
// of guests: a processor, or a machine around this one, may have kept its
// virtualisation to itself.
TEST_F(DiagnosisTest, AKvmIsTakenWhereItWorks) {
  ASSERT_EQ(far_->Run("mknod -m 666 /dev/kvm c 10 232").status, 0);
  if (far_->Run(": <>/dev/kvm").status != 0) {
    EXPECT_EQ(far_->Run("rm /dev/kvm").status, 0);
    GTEST_SKIP() << "this machine's kernel has no KVM";
  }
  const bool works = far_->Run("grep -Eqw 'vmx|svm' /proc/cpuinfo").status == 0;
  far_->KillLibvirtd();
  far_->StartLibvirtd();
  EXPECT_THAT(far_->Virsh("capabilities"), HasSubstr("<domain type='kvm'"));
  {
    GuestMount mount("trash=0", far_->Uri("unix"));
    const stdfs::path host = mount.Dir() / ".host";
    MakeBlank(host);
    const std::string told =
        works ? "kvm"
              : "tcg: /dev/kvm is there, but the processor offers neither vmx "
                "nor svm, so that guests under KVM would hang";
    EXPECT_THAT(ReadText(host / "capacity"),
                HasSubstr("\naccelerator " + told + "\n"));
    EXPECT_THAT(ReadText(host / "connection"),
                HasSubstr(works ? "connected" : "\nnote: " + told + "\n"));
    ASSERT_EQ(mkdir((mount.Dir() / "box").c_str(), 0755), 0);
    EXPECT_THAT(ReadText(mount.Dir() / "box/effective.yaml"),
                HasSubstr("accelerator: " + told));
    ASSERT_EQ(WriteText(mount.Dir() / "box/status", "start\n", O_NONBLOCK),
              Verdict{});
    EXPECT_TRUE(Eventually([&] {
      return ReadLine(mount.Dir() / "box/status") == "running";
    })) << ReadText(mount.Dir() / "box/error");
    EXPECT_EQ(far_->Virsh("domstate box"), "running");
    EXPECT_THAT(
        far_->Virsh("dumpxml box"),
        HasSubstr(works ? "<domain type='kvm'" : "<domain type='qemu'"));
    ASSERT_EQ(WriteText(mount.Dir() / "box/status", "kill\n"), Verdict{});
    ASSERT_EQ(rmdir((mount.Dir() / "box").c_str()), 0);
    mount.Stop();
  }
  EXPECT_EQ(far_->Run("rm /dev/kvm").status, 0);
}

TEST_F(DiagnosisTest, APoolThatKeepsNoFiles) {
  Virsh({"pool-define-as", "volumes", "logical", "--source-name", "volumes",
         "--target", "/dev/volumes"});
  const Ended ended =
      RunProgram({std::string(SBXFS_BIN_DIR) + "/sbxfs", "-f", "-o",
                  "pool=volumes", "qemu:///system", dir_.string()});
  EXPECT_NE(ended.status, 0);
  EXPECT_THAT(ended.err,
              HasSubstr("Cannot use the pool 'volumes': it is of type logical, "
                        "which keeps no files"));
  Virsh({"pool-undefine", "volumes"});
}

}  // namespace
}  // namespace sbxfs
