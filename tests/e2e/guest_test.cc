// A Debian guest, booted once and shared by the tests, which go on from each
// other in their order: README's path from `cp image` to an empty trash.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
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

TEST_F(GuestTest, T07_AKilledDaemonDoesNotMatterToTheGuest) {
  const std::string boot = Ssh({"cat", "/proc/sys/kernel/random/boot_id"}).out;
  ASSERT_NE(boot, "");
  mount_->Crash();
  mount_->Start();
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), port_);
  EXPECT_EQ(ReadLine(Box() / "status"), "running");
  EXPECT_TRUE(ReadText(Box() / "ready").starts_with("yes "));
  ExpectSsh({"cat", "/proc/sys/kernel/random/boot_id"}, boot);
}

TEST_F(GuestTest, T08_StopShutsTheGuestDown) {
  const Ended touched = Ssh({"sh", "-c", "'echo kept > kept; sync'"});
  EXPECT_EQ(touched.status, 0) << touched.err;
  Status("stop", 120s);
  EXPECT_EQ(ReadLine(Box() / "status"), "stopped");
  EXPECT_EQ(Virsh({"domstate", "box"}), "shut off");
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), port_);
}

TEST_F(GuestTest, T09_SshToAStoppedSandboxBootsIt) {
  const Ended ended = Ssh({"cat", "kept"}, kBoot);
  ASSERT_EQ(ended.status, 0) << ended.err << Errors();
  EXPECT_EQ(ended.out, "kept\n");
  EXPECT_EQ(ReadLine(Box() / "status"), "running");
  EXPECT_EQ(ReadLine(Box() / "ssh_port"), port_);
}

TEST_F(GuestTest, T10_NothingIsLeftInTheEnd) {
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
