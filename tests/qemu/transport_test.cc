// A hypervisor that is reached by each of libvirt's transports, and whose file
// systems are not ours.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "tests/support/far.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using namespace std::chrono_literals;

constexpr char kOptions[] = "stop_timeout=2,start_timeout=4,insecure_tcp";

class TransportTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (NoGuestsBecause().empty()) far_ = std::make_unique<FarLibvirtd>();
  }
  static void TearDownTestSuite() { far_.reset(); }
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
  }

  // With an image for blank guests.
  void Mount(const std::string& uri, const std::string& more = "") {
    mount_ = std::make_unique<GuestMount>(kOptions + more, uri);
    MakeBlank(Host());
  }
  void Mkdir(const std::string& name) {
    // Several connections of ssh each; what is late is undone, and made again.
    Verdict made;
    EXPECT_TRUE(Eventually(
        [&] {
          made = Call([&] { return mkdir((Dir() / name).c_str(), 0700); });
          return made.error != ETIMEDOUT && made.error != EBUSY;
        },
        60s));
    ASSERT_EQ(made, Verdict{}) << ReadText(Host() / "error");
  }
  [[nodiscard]] bool Becomes(const std::string& name,
                             const std::string& state) {
    return Eventually(
        [&] { return ReadLine(Dir() / name / "status") == state; });
  }
  [[nodiscard]] bool Connected() {
    return Eventually([this] {
      return ReadText(Host() / "connection").starts_with("connected");
    });
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    Clear(Dir());
    mount_->Stop();
    EXPECT_EQ(far_->Virsh("list --all --name"), "");
  }

  [[nodiscard]] std::filesystem::path Dir() const { return mount_->Dir(); }
  [[nodiscard]] std::filesystem::path Host() const { return Dir() / ".host"; }

  static std::unique_ptr<FarLibvirtd> far_;
  std::unique_ptr<GuestMount> mount_;
};
std::unique_ptr<FarLibvirtd> TransportTest::far_;

class EveryTransport : public TransportTest,
                       public testing::WithParamInterface<const char*> {};

TEST_P(EveryTransport, CarriesASandboxsWholeLife) {
  ASSERT_NO_FATAL_FAILURE(Mount(far_->Uri(GetParam())));
  EXPECT_EQ(ReadLine(Host() / "uri"), far_->Uri(GetParam()));
  EXPECT_EQ(ReadText(Host() / "connection").find("unauthenticated") !=
                std::string::npos,
            GetParam() == std::string("tcp"))
      << ReadText(Host() / "connection");
  Mkdir("box");
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "");
  EXPECT_EQ(far_->Virsh("list --all --name"), "box");
  ASSERT_EQ(WriteText(Dir() / "box/status", "start\n", O_NONBLOCK), Verdict{});
  ASSERT_TRUE(Becomes("box", "running")) << ReadText(Dir() / "box/error");
  EXPECT_EQ(
      Call([&] { return mkdir((Dir() / "box/snapshots/a").c_str(), 0700); }),
      Verdict{})
      << ReadText(Dir() / "box/error");
  EXPECT_EQ(far_->Virsh("snapshot-list box --name"), "a");
  EXPECT_EQ(WriteText(Dir() / "box/description", "far\n"), Verdict{});
  EXPECT_EQ(far_->Virsh("desc box"), "far");
  EXPECT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  EXPECT_EQ(WriteText(Dir() / "box/snapshot", "a\n"), Verdict{})
      << ReadText(Dir() / "box/error");
  EXPECT_EQ(Call([&] {
              return rename((Dir() / "box").c_str(), (Dir() / "other").c_str());
            }),
            Verdict{});
  EXPECT_EQ(far_->Virsh("list --all --name"), "other");
  EXPECT_EQ(
      Call([&] { return mkdir((Dir() / "other/clones/c").c_str(), 0700); }),
      Verdict{})
      << ReadText(Host() / "error");
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "");
}
INSTANTIATE_TEST_SUITE_P(Transports, EveryTransport,
                         testing::Values("unix", "ssh", "libssh2", "tcp",
                                         "tls"),
                         [](const auto& info) { return info.param; });

TEST_F(TransportTest, ANewWayToTheSameHypervisorIsTakenAnotherOneIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Mount(far_->Uri("unix")));
  Mkdir("box");
  for (const char* way : {"ssh", "tcp", "unix"}) {
    EXPECT_EQ(WriteText(Host() / "uri", far_->Uri(way) + "\n"), Verdict{})
        << way << ReadText(Host() / "error");
    EXPECT_EQ(ReadLine(Host() / "uri"), far_->Uri(way));
    EXPECT_NE(ReadText(Host() / "uri.explain")
                  .find(fmt::format("transport {}\n", way)),
              std::string::npos);
    EXPECT_EQ(WriteText(Dir() / "box/description", way), Verdict{});
    EXPECT_EQ(far_->Virsh("desc box"), way);
  }
  for (const auto& [uri, error] : {std::pair("qemu:///system", EBUSY),
                                   {"test:///default", EBUSY},
                                   {"qemu+tcp://127.0.0.1:1/system", EHOSTDOWN},
                                   {"nonsense", EINVAL}}) {
    EXPECT_EQ(WriteText(Host() / "uri", std::string(uri) + "\n").error, error)
        << uri << ReadText(Host() / "error");
    EXPECT_EQ(ReadLine(Host() / "uri"), far_->Uri("unix"));
    EXPECT_EQ(ReadLine(Dir() / "box/status"), "stopped") << uri;
    EXPECT_EQ(WriteText(Dir() / "box/description", "still\n"), Verdict{});
  }
}

TEST_F(TransportTest, AnotherWayIsTakenWhileThereIsNoConnection) {
  ASSERT_NO_FATAL_FAILURE(Mount(far_->Uri("ssh")));
  mount_->ExpectLoggedErrors();
  Mkdir("box");
  far_->KillSshd();
  ASSERT_TRUE(Becomes("box", "unreachable"));
  EXPECT_EQ(WriteText(Host() / "uri", "qemu:///system\n").error, EBUSY);
  EXPECT_EQ(WriteText(Host() / "uri", far_->Uri("tls") + "\n"), Verdict{})
      << ReadText(Host() / "error");
  EXPECT_TRUE(Becomes("box", "stopped"));
  EXPECT_TRUE(Connected());
  far_->StartSshd(FarLibvirtd::kSshPort);
}

// A Lima VM that comes back at another port.
TEST_F(TransportTest, AnSshPortThatMovesIsFoundAgain) {
  const stdfs::path config = far_->Dir() / "ssh.config";
  auto write = [&](uint16_t port) {
    std::ofstream(config) << fmt::format(
        "Host lima-hv\n  HostName 127.0.0.1\n  Port {}\n  User root\n"
        "  IdentityFile \"{}/key\"\n  StrictHostKeyChecking no\n"
        "  UserKnownHostsFile /dev/null\n  ControlMaster auto\n"
        "  ControlPath \"{}/master\"\n  ControlPersist yes\n",
        port, far_->Dir().string(), far_->Dir().string());
  };
  write(FarLibvirtd::kSshPort);
  ASSERT_NO_FATAL_FAILURE(
      Mount("qemu+ssh://lima-hv/system", ",ssh_config=" + config.string()));
  mount_->ExpectLoggedErrors();
  EXPECT_NE(ReadText(Host() / "uri.explain")
                .find(fmt::format("ssh-says hostname 127.0.0.1, port {}, user "
                                  "root, key {}/key\n",
                                  FarLibvirtd::kSshPort, far_->Dir().string())),
            std::string::npos)
      << ReadText(Host() / "uri.explain");
  Mkdir("box");
  far_->KillSshd();
  ASSERT_TRUE(Becomes("box", "unreachable"));
  write(FarLibvirtd::kSshPort + 1);
  far_->StartSshd(FarLibvirtd::kSshPort + 1);
  EXPECT_TRUE(Becomes("box", "stopped")) << ReadText(Host() / "connection");
  EXPECT_TRUE(Connected());
  EXPECT_EQ(WriteText(Dir() / "box/description", "moved\n"), Verdict{});
  far_->KillSshd();
  far_->StartSshd(FarLibvirtd::kSshPort);
  ASSERT_TRUE(Becomes("box", "unreachable"));
  write(FarLibvirtd::kSshPort);
  EXPECT_TRUE(Becomes("box", "stopped")) << ReadText(Host() / "connection");
}

// Somebody else's libvirtd behind the address of the mounted one.
TEST_F(TransportTest, AnotherHypervisorAtTheSameAddressIsNotTaken) {
  const stdfs::path socket = far_->Dir() / "socket";
  stdfs::create_symlink(far_->Dir() / "run/libvirt-sock", socket);
  ASSERT_NO_FATAL_FAILURE(
      Mount("qemu+unix:///system?socket=" + socket.string()));
  mount_->ExpectLoggedErrors();
  Mkdir("box");
  stdfs::remove(socket);
  stdfs::create_symlink("/run/libvirt/libvirt-sock", socket);
  // A mount of ours has been there.
  { GuestMount(kOptions).Stop(); }
  far_->KillLibvirtd();
  EXPECT_TRUE(Eventually([this] {
    return ReadText(Host() / "connection").find("another hypervisor") !=
           std::string::npos;
  })) << ReadText(Host() / "connection");
  EXPECT_EQ(ReadLine(Dir() / "box/status"), "unreachable");
  EXPECT_EQ(Call([&] { return mkdir((Dir() / "new").c_str(), 0700); }).error,
            EHOSTDOWN);
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "");
  far_->StartLibvirtd();
  stdfs::remove(socket);
  stdfs::create_symlink(far_->Dir() / "run/libvirt-sock", socket);
  EXPECT_TRUE(Becomes("box", "stopped"));
  EXPECT_TRUE(Connected());
}

}  // namespace
}  // namespace sbxfs
