// An additional disk in a Debian guest: formatted once, there at every boot,
// grown with its disk.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class DisksTest : public DebianGuests {
 protected:
  void TearDown() override {
    if (mount_ == nullptr) return;
    Clear(Dir());
    for (const auto& entry : stdfs::directory_iterator(Host() / "disks")) {
      EXPECT_EQ(unlink(entry.path().c_str()), 0) << entry.path();
    }
    DebianGuests::TearDown();
  }
};

// GuestTest has the first steps of it, too.
TEST_F(DisksTest, FormattedOnceThereAtEveryBootAndInEverySandbox) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
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
