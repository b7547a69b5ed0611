// A first boot leaves a memory template, and others go on from it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class WarmTest : public DebianGuests {
 protected:
  WarmTest() : DebianGuests(Boots::kLeavesATemplate) {}
};

TEST_F(WarmTest, AFirstBootLeavesATemplateAndOthersGoOnFromIt) {
  Make("first", kWarmConfig);
  const Stopwatch cold;
  {
    Writer start(Dir() / "first/status", "start\n");
    EXPECT_TRUE(Says("first", "cold, since there is no template of its yet"))
        << ReadText(Dir() / "first/progress");
    ASSERT_EQ(start.Ended(650s), Verdict{});
  }
  const double cold_took = cold.Seconds();
  ASSERT_EQ(WriteText(Dir() / "first/status", "kill\n"), Verdict{});
  ASSERT_TRUE(Eventually(
      [&] {
        return ReadText(Host() / "warm")
            .starts_with("debian-12: cpus 1, memory 512MiB, ");
      },
      600s))
      << ReadText(Host() / "warm");
  EXPECT_EQ(Volumes(".warm.").size(), 1U);
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "first");
  KeepTemplate();

  // One has all that the template has not.
  Make("second", kWarmConfig);
  ASSERT_EQ(WriteText(Host() / "disks/data", "64MiB\n", O_CREAT), Verdict{});
  Make("third", std::string(kWarmConfig) +
                    "env: {GREETING: hello}\n"
                    "additionalDisks: [data]\n"
                    "provision:\n"
                    "- script: |\n"
                    "    #!/bin/sh\n"
                    "    echo \"$GREETING from $(hostname)\" >/etc/greeting\n");
  ASSERT_EQ(
      WriteText(Dir() / "second/ports/8000", "127.0.0.1:18000\n", O_CREAT),
      Verdict{});
  const Stopwatch warm;
  Do("second/status", "start");
  const double warm_took = warm.Seconds();
  EXPECT_EQ(ReadText(Dir() / "second/pending"), "");
  Do("third/status", "start");
  fmt::print("ready from cold {:.1f} s, from a template {:.1f} s: {:.0f} x\n",
             cold_took, warm_took, cold_took / warm_took);
  EXPECT_LT(warm_took, cold_took);

  const Names second = NamesOf("second");
  const Names third = NamesOf("third");
  EXPECT_EQ(second.host, "lima-second");
  EXPECT_EQ(third.host, "lima-third");
  EXPECT_NE(second.machine, third.machine);
  EXPECT_NE(second.mac, third.mac);
  EXPECT_NE(second.random, third.random);
  EXPECT_EQ(Job("third", "cat /etc/greeting; echo $GREETING"),
            "hello from lima-third\nhello");
  EXPECT_EQ(Job("third", "findmnt -no FSTYPE /mnt/lima-data"), "ext4");
  EXPECT_EQ(ReadText(Dir() / "third/pending"), "");
  EXPECT_NE(ReadText(Dir() / "third/provision.log").find("exit status 0"),
            std::string::npos);
  // ssh looks at the host key that is theirs.
  EXPECT_EQ(In("second", "hostname"), "lima-second");
  EXPECT_EQ(In("third", "hostname"), "lima-third");

  // Its disk is its own, and so are its snapshots.
  Job("second", "echo mine | sudo tee /etc/mine; sync");
  ASSERT_EQ(mkdir((Dir() / "second/snapshots/now").c_str(), 0700), 0);
  EXPECT_EQ(Job("third", "ls /etc/mine || true"), "");

  // A template that somebody wrote to is none. Those that go on from it would
  // miss what is cut off.
  ASSERT_EQ(WriteText(Dir() / "second/status", "save\n"), Verdict{})
      << ReadText(Dir() / "second/error");
  ASSERT_EQ(WriteText(Dir() / "third/status", "kill\n"), Verdict{});
  const auto memory = Volumes(
      stdfs::path(Volumes(".warm.").front()).filename().native().substr(0, 36) +
      ".memory");
  ASSERT_EQ(memory.size(), 1U);
  stdfs::resize_file(memory.front(), 4096);
  Make("fourth", kWarmConfig);
  {
    Writer start(Dir() / "fourth/status", "start\n");
    EXPECT_TRUE(Says("fourth", "cold, since its template is damaged"))
        << ReadText(Dir() / "fourth/progress");
    ASSERT_EQ(WriteText(Dir() / "fourth/status", "kill\n"), Verdict{});
  }
  EXPECT_TRUE(Volumes(".warm.").empty());
  // One that was saved has its memory.
  ASSERT_TRUE(Eventually([&] { return !stdfs::exists(memory.front()); }));
  Do("second/status", "start");
  EXPECT_EQ(Job("second", "cat /etc/mine; hostname"), "mine\nlima-second");
}

}  // namespace
}  // namespace sbxfs
