// An additional disk in a Debian guest: formatted once, there at every boot,
// grown with its disk.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "backend/util/text.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class DisksTest : public testing::Test {
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
    for (const auto& entry : stdfs::directory_iterator(Host() / "disks")) {
      EXPECT_EQ(unlink(entry.path().c_str()), 0) << entry.path();
    }
    EXPECT_EQ(unlink((Host() / "images/debian-12").c_str()), 0);
    mount_->Stop();
  }
  [[nodiscard]] stdfs::path Dir() const { return mount_->Dir(); }
  [[nodiscard]] stdfs::path Host() const { return Dir() / ".host"; }
  void Do(const std::string& file, const std::string& text) {
    Writer writer(Dir() / file, text + "\n");
    const auto verdict = writer.Ended(650s);
    ASSERT_TRUE(verdict.has_value()) << text;
    ASSERT_EQ(*verdict, Verdict{}) << ReadText(Dir() / "one/provision.log");
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

TEST_F(DisksTest, FormattedOnceThereAtEveryBootAndInEverySandbox) {
  ASSERT_EQ(WriteText(Host() / "disks/data", "64MiB\n", O_CREAT), Verdict{});
  ASSERT_EQ(WriteText(Host() / "disks/bare", "8MiB\n", O_CREAT), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "one.yaml",
                      "additionalDisks:\n"
                      "- name: data\n  fsArgs: ['-m', '0']\n"
                      "- {name: bare, format: false}\n"
                      "provision:\n"
                      "- script: |\n"
                      "    #!/bin/sh\n"
                      "    date +%N >>/mnt/lima-data/provisioned\n",
                      O_CREAT),
            Verdict{});
  Do("one/status", "start");
  EXPECT_EQ(In("one", "findmnt -rno FSTYPE,LABEL /mnt/lima-data"),
            "ext4 lima-data");
  EXPECT_EQ(In("one",
               "findmnt /mnt/lima-bare || wc -l "
               "</mnt/lima-data/provisioned"),
            "1");
  EXPECT_EQ(In("one", "ls /dev/disk/by-id/ | grep -x virtio-bare"),
            "virtio-bare");
  In("one", "echo kept | sudo tee /mnt/lima-data/mark; sync");
  Do("one/status", "stop");

  // Larger, and in another sandbox at its first boot, to which it is not blank.
  ASSERT_EQ(WriteText(Host() / "disks/data", "256MiB\n"), Verdict{});
  ASSERT_EQ(mkdir((Dir() / "two").c_str(), 0700), 0);
  ASSERT_EQ(WriteText(Dir() / "two/config.yaml", "additionalDisks: [data]\n"),
            Verdict{});
  Do("two/status", "start");
  EXPECT_EQ(In("two", "cat /mnt/lima-data/mark"), "kept");
  const auto size =
      ParseNumber(In("two", "df -B1M --output=size /mnt/lima-data | tail -1"));
  ASSERT_TRUE(size.has_value());
  EXPECT_GT(*size, 200u);
  Do("two/status", "kill");

  // And again in the first, whose scripts find it there.
  Do("one/status", "start");
  EXPECT_EQ(In("one",
               "cat /mnt/lima-data/mark; wc -l "
               "</mnt/lima-data/provisioned"),
            "kept\n2");
}

}  // namespace
}  // namespace sbxfs
