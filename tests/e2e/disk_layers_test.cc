// Snapshots and clones of a Debian guest that was booted: files written before
// and after, and what a clone knows itself by.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "backend/util/text.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class DiskLayersTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    const char* image = std::getenv("SBXFS_TEST_IMAGE");
    if (image == nullptr || *image == '\0') {
      GTEST_SKIP() << "needs a guest image: set SBXFS_TEST_IMAGE to its path";
    }
    mount_ = std::make_unique<GuestMount>("start_timeout=600,stop_timeout=90");
    ASSERT_EQ(RunProgram({"cp", image, Host() / "images/debian-12"}).status, 0);
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    Clear(mount_->Dir());
    EXPECT_EQ(unlink((Host() / "images/debian-12").c_str()), 0);
    mount_->Stop();
  }
  [[nodiscard]] stdfs::path Dir() const { return mount_->Dir(); }
  [[nodiscard]] stdfs::path Host() const { return Dir() / ".host"; }
  void Do(const std::string& file, const std::string& text) {
    Writer writer(Dir() / file, text + "\n");
    const auto verdict = writer.Ended(650s);
    ASSERT_TRUE(verdict.has_value()) << text;
    ASSERT_EQ(*verdict, Verdict{});
  }
  std::string In(const std::string& name, const std::string& script) {
    const Ended ended = RunProgram({"ssh", "-F", Host() / "ssh_config", "-o",
                                    "BatchMode=yes", "sbx-" + name, script},
                                   120s);
    EXPECT_EQ(ended.status, 0) << ended.err;
    return std::string(Trim(ended.out));
  }

  std::unique_ptr<GuestMount> mount_;
};

TEST_F(DiskLayersTest, FilesComeAndGoWithTheDiskAndAClonesSelfIsItsOwn) {
  ASSERT_EQ(mkdir((Dir() / "golden").c_str(), 0700), 0)
      << ReadText(Host() / "error");
  Do("golden/status", "start");
  In("golden", "echo first > mark");
  ASSERT_EQ(mkdir((Dir() / "golden/snapshots/clean").c_str(), 0777), 0)
      << ReadText(Dir() / "golden/error");
  EXPECT_EQ(ReadLine(Dir() / "golden/snapshots/clean/kind"), "disk quiesced");
  In("golden", "echo second > mark; sync");
  ASSERT_EQ(mkdir((Dir() / "golden/snapshots/clean/clones/copy").c_str(), 0700),
            0)
      << ReadText(Dir() / "golden/error");
  const std::string golden = In("golden", "cat /etc/machine-id");

  // With its memory: what was there is there again, and the time is right.
  const stdfs::path config = Dir() / "golden/config.yaml";
  ASSERT_EQ(WriteText(config, ReadText(config) + "snapshotMemory: true\n"),
            Verdict{})
      << ReadText(Dir() / "golden/error");
  const std::string boot = In("golden", "cat /proc/sys/kernel/random/boot_id");
  In("golden", "echo then >/dev/shm/mark; (sleep 3000 >/dev/null 2>&1 &)");
  ASSERT_EQ(mkdir((Dir() / "golden/snapshots/moment").c_str(), 0777), 0)
      << ReadText(Dir() / "golden/error");
  EXPECT_TRUE(Eventually(
      [&] {
        return ReadLine(Dir() / "golden/snapshots/moment/kind") ==
               "disk+memory";
      },
      60s));
  In("golden", "echo now >/dev/shm/mark; echo third >mark; pkill sleep");
  std::this_thread::sleep_for(5s);
  Do("golden/snapshot", "moment");
  EXPECT_EQ(In("golden", "cat /proc/sys/kernel/random/boot_id"), boot);
  EXPECT_EQ(In("golden", "cat /dev/shm/mark mark"), "then\nsecond");
  EXPECT_NE(In("golden", "pgrep sleep"), "");
  EXPECT_TRUE(Eventually(
      [&] {
        const auto guest = ParseNumber(In("golden", "date +%s"));
        const auto now = std::chrono::duration_cast<std::chrono::seconds>(
            std::chrono::system_clock::now().time_since_epoch());
        return guest && now.count() - static_cast<int64_t>(*guest) < 4;
      },
      30s));

  // Back, on the running guest; it is waited for, as it could be used before.
  Do("golden/snapshot", "clean");
  EXPECT_EQ(In("golden", "cat mark"), "first");
  EXPECT_EQ(In("golden", "cat /etc/machine-id"), golden);
  Do("golden/status", "kill");

  Do("copy/status", "start");
  EXPECT_EQ(In("copy", "cat mark"), "first");
  EXPECT_EQ(In("copy", "hostname"), "lima-copy");
  const std::string copy = In("copy", "cat /etc/machine-id");
  EXPECT_EQ(copy.size(), 32u);
  EXPECT_NE(copy, golden);
  Do("copy/status", "kill");
  Do("golden/snapshot", ".undo");
  Do("golden/status", "start");
  EXPECT_EQ(In("golden", "cat mark"), "second");
}

}  // namespace
}  // namespace sbxfs
