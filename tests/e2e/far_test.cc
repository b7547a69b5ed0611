// A Debian guest on a hypervisor that is reached by ssh, over a link of its
// own, and that shares neither files nor ports with this side.
#include "tests/support/far.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>

#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using namespace std::chrono_literals;

class FarTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = NoBootBecause(); !why.empty()) GTEST_SKIP() << why;
    far_ = std::make_unique<FarLibvirtd>(/*apart=*/true);
    const char* place = std::getenv("SBXFS_TEST_POOL");
    const bool warm =
        place != nullptr && stdfs::exists(place) &&
        far_->Run(fmt::format("mkdir -m 711 {0} && cp -a {1}/. {0}",
                              "/var/lib/libvirt/sbxfs", place))
                .status == 0;
    mount_ = std::make_unique<GuestMount>(
        std::string(warm ? "" : "cold,") +
            "start_timeout=600,stop_timeout=90,trash=0",
        far_->Uri("ssh"));
    if (stdfs::exists(Host() / "images/debian-12")) return;
    const Ended cp = RunProgram(
        {"cp", GuestImage().string(), (Host() / "images/debian-12").string()},
        120s);
    ASSERT_EQ(cp.status, 0) << cp.err << ReadText(Host() / "error");
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    Clear(mount_->Dir());
    unlink((Host() / "images/debian-12").c_str());
    mount_->Stop();
  }
  [[nodiscard]] stdfs::path Host() const { return mount_->Dir() / ".host"; }
  [[nodiscard]] stdfs::path Box() const { return mount_->Dir() / "box"; }
  [[nodiscard]] Ended Ssh(const std::string& words) const {
    return RunProgram({"ssh", "-F", Host() / "ssh_config", "-o",
                       "BatchMode=yes", "sbx-box", words});
  }

  std::unique_ptr<FarLibvirtd> far_;
  std::unique_ptr<GuestMount> mount_;
};

TEST_F(FarTest, ItsPortsMountsAndSshAreHere) {
  ASSERT_EQ(mkdir(Box().c_str(), 0700), 0) << ReadText(Host() / "error");
  ASSERT_EQ(WriteText(Box() / "config.yaml", kWarmConfig), Verdict{});
  const stdfs::path shared =
      stdfs::path(std::getenv("SBXFS_INSIDE")) / "shared";
  stdfs::create_directory(shared);
  std::ofstream(shared / "note") << "from here\n";
  ASSERT_EQ(
      WriteText(Box() / "mounts/shared", shared.string() + ":w\n", O_CREAT),
      Verdict{})
      << ReadText(Box() / "error");
  EXPECT_EQ(WriteText(Box() / "ports/5000.udp", "5000\n", O_CREAT).error,
            EOPNOTSUPP);
  Writer start(Box() / "status", "start\n");
  const auto started = start.Ended(600s);
  ASSERT_TRUE(started.has_value()) << ReadText(Box() / "ready");
  ASSERT_EQ(*started, Verdict{}) << ReadText(Box() / "console.log");
  EXPECT_EQ(Ssh("cat " + (shared / "note").string()).out, "from here\n");
  EXPECT_EQ(Ssh("echo back > " + (shared / "answer").string()).status, 0);
  EXPECT_EQ(ReadText(shared / "answer"), "back\n");
  EXPECT_EQ(ReadText(Box() / "fs/etc/hostname"), "lima-box\n");
  // A port of the guest's is one of this machine.
  ASSERT_EQ(Ssh("sudo systemd-run --quiet python3 -m http.server -d /etc 3000")
                .status,
            0);
  ASSERT_EQ(WriteText(Box() / "ports/3000", "18080\n", O_CREAT), Verdict{})
      << ReadText(Box() / "error");
  EXPECT_TRUE(Eventually([] {
    return RunProgram({"curl", "-sf", "http://127.0.0.1:18080/hostname"}).out ==
           "lima-box\n";
  }));
  ASSERT_EQ(WriteText(Box() / "ports/3000", "none\n"), Verdict{});
  EXPECT_TRUE(Eventually([] {
    return RunProgram({"curl", "-sf", "http://127.0.0.1:18080/hostname"})
               .status == 7;
  }));
  // Or one of the hypervisor's, for those over there.
  EXPECT_EQ(WriteText(Box() / "ports/3000", "0.0.0.0:18080\n", O_CREAT).error,
            EOPNOTSUPP);
  ASSERT_EQ(WriteText(Box() / "ports/3000", "@hv:18080\n", O_CREAT), Verdict{})
      << ReadText(Box() / "error");
  EXPECT_EQ(ReadText(Box() / "ports/3000"), "@hv:18080\n");
  EXPECT_TRUE(Eventually([this] {
    return far_->Run("curl -sf http://127.0.0.1:18080/hostname").out ==
           "lima-box\n";
  }));
  EXPECT_NE(far_->Run("ss -Hltn").out.find("0.0.0.0:18080"), std::string::npos);
  EXPECT_EQ(
      RunProgram({"curl", "-sf", "http://127.0.0.1:18080/hostname"}).status, 7);
  // The way to it is found again when the hypervisor's sshd was away.
  mount_->ExpectLoggedErrors();
  far_->KillSshd();
  far_->StartSshd(FarLibvirtd::kSshPort);
  EXPECT_TRUE(Eventually([this] { return Ssh("true").status == 0; }, 30s))
      << ReadText(Host() / "connection");
  // Nothing of it outlives the mount but the guest.
  mount_->Stop();
  EXPECT_EQ(far_->Virsh("list --name"), "box");
  EXPECT_NE(RunProgram({"sh", "-c", "pgrep -f 'exec [c]at'"}).status, 0);
  mount_->Start();
  EXPECT_TRUE(Eventually([this] { return Ssh("true").status == 0; }, 30s));
}

// A Debian that runs there comes to this machine's hypervisor.
TEST_F(FarTest, ItMovesHereAsItRuns) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
  const stdfs::path hosts = far_->Dir() / "hosts";
  std::ofstream(hosts) << "near qemu:///system\nfar " << far_->Uri("ssh")
                       << '\n';
  ASSERT_EQ(unlink((Host() / "images/debian-12").c_str()), 0);
  mount_->Stop();
  mount_ = std::make_unique<GuestMount>(
      "cold,start_timeout=600,stop_timeout=90,trash=0,hosts=" + hosts.string(),
      hosts.string());
  const stdfs::path image = Host() / "hosts/far/images/debian-12";
  const Ended cp = RunProgram({"cp", GuestImage().string(), image}, 300s);
  ASSERT_EQ(cp.status, 0) << cp.err << ReadText(Host() / "error");
  ASSERT_EQ(WriteText(mount_->Dir() / "box.yaml",
                      "host: far\nmemory: 512MiB\nimages: [{location: "
                      "debian-12}]\n",
                      O_CREAT),
            Verdict{})
      << ReadText(Host() / "error");
  Writer start(Box() / "status", "start\n");
  ASSERT_EQ(start.Ended(600s), Verdict{}) << ReadText(Box() / "error");
  const std::string boot = Ssh("cat /proc/sys/kernel/random/boot_id").out;
  EXPECT_EQ(Ssh("head -c 30M /dev/urandom > data; sha256sum data > sum; (while "
                "sleep 0.5; do date >> clock; done) >/dev/null 2>&1 </dev/null "
                "&")
                .status,
            0);
  Writer move(Box() / "host", "near\n");
  ASSERT_EQ(move.Ended(600s), Verdict{}) << ReadText(Box() / "error");
  EXPECT_EQ(ReadLine(Box() / "host"), "near");
  EXPECT_EQ(ReadLine(Box() / "status"), "running");
  EXPECT_TRUE(Eventually([this] { return Ssh("true").status == 0; }, 120s));
  EXPECT_EQ(Ssh("cat /proc/sys/kernel/random/boot_id").out, boot);
  EXPECT_EQ(Ssh("sudo sh -c 'echo 3 > /proc/sys/vm/drop_caches'; "
                "sha256sum -c sum")
                .out,
            "data: OK\n");
  EXPECT_EQ(Ssh("a=$(wc -l <clock); sleep 3; b=$(wc -l <clock); [ $b -gt $a ] "
                "&& echo grows")
                .out,
            "grows\n");
  EXPECT_EQ(far_->Virsh("list --all --name"), "");
  Clear(mount_->Dir());
  unlink((Host() / "hosts/near/images/debian-12").c_str());
  unlink(image.c_str());
}

}  // namespace
}  // namespace sbxfs
