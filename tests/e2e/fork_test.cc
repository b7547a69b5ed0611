// Clones of a running guest go on from its memory.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "tests/support/debian_guests.h"
#include "tests/support/secrets.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class ForkTest : public DebianGuests {
 protected:
  ForkTest() : DebianGuests(Boots::kWarmIfItCan) {}

  void Clone(const stdfs::path& clone) {
    ASSERT_EQ(mkdir((Dir() / clone).c_str(), 0700), 0)
        << ReadText(Dir() / *clone.begin() / "error")
        << ReadText(Host() / "error");
  }
  void Remove(const std::string& name) {
    ASSERT_EQ(WriteText(Dir() / name / "status", "kill\n"), Verdict{});
    ASSERT_EQ(rmdir((Dir() / name).c_str()), 0);
    ASSERT_EQ(rmdir((Host() / "trash" / name).c_str()), 0);
  }
  // In memory alone.
  void Mark(const std::string& name, const std::string& mark) {
    (void)Job(name, "echo " + mark + " | sudo tee /run/mark");
  }
  std::string MarkOf(const std::string& name) {
    return Job(name, "cat /run/mark");
  }
  // All that tells it from others is in none of those `seen`.
  void ExpectItself(const std::string& name, std::set<std::string>& seen) {
    const Names names = NamesOf(name);
    EXPECT_EQ(names.host, "lima-" + name);
    for (const auto& one :
         {names.host, names.machine, names.mac, names.random,
          Job(name, "sudo cat /etc/ssh/ssh_host_ed25519_key.pub")}) {
      EXPECT_TRUE(seen.insert(one).second) << name << ": " << one;
    }
  }
};

TEST_F(ForkTest, ACloneOfARunningGuestGoesOnFromThatMoment) {
  Make("box", std::string(kWarmConfig) + "snapshotMemory: true\n");
  Do("box/status", "start");
  (void)Job("box", "sudo systemd-run -q sleep 98765");
  Mark("box", "first");
  Stopwatch begin;
  Clone("box/clones/one");
  fmt::print("a clone with memory {:.1f} s\n", begin.Seconds());
  EXPECT_EQ(ReadText(Dir() / "box/status"), "running\n");
  Mark("box", "second");
  // One of one that was not started yet is of the same moment.
  // Its name has the other's in it, as their hosts' names have.
  Clone("one/clones/one2");
  begin = Stopwatch();
  Do("one/status", "start");
  fmt::print("its first start {:.1f} s\n", begin.Seconds());
  begin = Stopwatch();
  Do("one2/status", "start");
  fmt::print("that of another of the same memory {:.1f} s\n", begin.Seconds());
  EXPECT_EQ(Volumes(".ram.").size(), 1U);
  for (const std::string name : {"one", "one2"}) {
    EXPECT_EQ(MarkOf(name), "first") << name;
    EXPECT_EQ(Job(name, "pgrep -xc sleep"), "1") << name;
    EXPECT_EQ(ReadText(Dir() / name / "pending"), "") << name;
  }
  EXPECT_EQ(MarkOf("box"), "second");
  const Names box = NamesOf("box");
  const Names one = NamesOf("one");
  const Names two = NamesOf("one2");
  EXPECT_EQ(box.host, "lima-box");
  EXPECT_EQ(one.host, "lima-one");
  EXPECT_EQ(two.host, "lima-one2");
  EXPECT_NE(one.machine, box.machine);
  EXPECT_NE(one.machine, two.machine);
  EXPECT_NE(one.mac, box.mac);
  EXPECT_NE(one.mac, two.mac);
  EXPECT_NE(one.random, two.random);
  // ssh looks at the host key that is theirs.
  EXPECT_EQ(In("one2", "hostname"), "lima-one2");
  EXPECT_EQ(In("one2", "getent hosts 127.0.1.1"),
            "127.0.1.1       lima-one2 lima-one2");

  // Of a snapshot with memory, after another one's clones are gone.
  ASSERT_EQ(mkdir((Dir() / "box/snapshots/now").c_str(), 0700), 0);
  ASSERT_TRUE(Eventually([&] {
    return ReadText(Dir() / "box/snapshots/now/kind") == "disk+memory\n";
  }));
  Mark("box", "third");
  Remove("one");
  EXPECT_EQ(MarkOf("one2"), "first");
  Remove("one2");
  EXPECT_TRUE(Eventually([] { return Volumes(".ram.").empty(); }));
  Clone("box/snapshots/now/clones/three");
  Clone("box/snapshots/now/clones/four");
  // What fits no more boots, and says so before the memory is split for it.
  ASSERT_EQ(WriteText(Dir() / "four/memory", "640MiB\n"), Verdict{});
  {
    Writer start(Dir() / "four/status", "start\n");
    EXPECT_TRUE(Says("four",
                     "cold, since the memory to go on from is of a "
                     "guest with cpus 1 and memory 512MiB"))
        << ReadText(Dir() / "four/progress");
    ASSERT_EQ(WriteText(Dir() / "four/status", "kill\n"), Verdict{});
  }
  EXPECT_TRUE(Volumes(".ram.").empty());
  Do("three/status", "start");
  EXPECT_EQ(MarkOf("three"), "second");

  // Secrets are handed on to nobody who was not named.
  ASSERT_EQ(WriteText(Dir() / "box/secrets/token", Canary("hush\n"), O_CREAT),
            Verdict{});
  EXPECT_EQ(mkdir((Dir() / "box/clones/five").c_str(), 0700), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(ReadText(Dir() / "box/error").find("it holds secrets"),
            std::string::npos)
      << ReadText(Dir() / "box/error");
  Clone("box/clones/five!");
  EXPECT_EQ(mkdir((Dir() / "five/clones/six").c_str(), 0700), -1);
  EXPECT_EQ(errno, EPERM);
  Do("five/status", "start");
  EXPECT_EQ(Job("five", "sudo cat /run/sbxfs/token"), Canary("hush"));
  EXPECT_TRUE(stdfs::exists(Dir() / "five/secrets/token"));
  EXPECT_EQ(WriteText(Dir() / "five/status", "save\n").error, EPERM);

  for (const std::string name : {"three", "four", "five"}) Remove(name);
  ASSERT_EQ(rmdir((Dir() / "box/snapshots/now").c_str()), 0);
  EXPECT_TRUE(Eventually([] {
    return Volumes(".ram.").empty() && Volumes(".fork.").empty() &&
           Volumes(".memory.").size() <= 1;
  })) << testing::PrintToString(Volumes("."));
}

TEST_F(ForkTest, TwentyFirstStartsAtOnce) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
  std::set<std::string> seen;
  std::vector<Writer> starts;
  for (int i = 0; i < 20; ++i) Make(fmt::format("box{}", i), kWarmConfig);
  const Stopwatch watch;
  for (int i = 0; i < 20; ++i) {
    starts.emplace_back(Dir() / fmt::format("box{}/status", i), "start\n");
  }
  for (Writer& start : starts) EXPECT_EQ(start.Ended(300s), Verdict{});
  fmt::print("all ready after {:.1f} s\n", watch.Seconds());
  for (int i = 0; i < 20; ++i) ExpectItself(fmt::format("box{}", i), seen);
  EXPECT_EQ(seen.size(), 100U);
}

// None is ever another.
TEST_F(ForkTest, AHundredFirstStartsInARow) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
  std::set<std::string> seen;
  std::vector<double> took;
  for (int i = 0; i < 100; ++i) {
    const std::string name = fmt::format("box{}", i);
    Make(name, kWarmConfig);
    const Stopwatch watch;
    Do(name + "/status", "start");
    took.push_back(watch.Seconds());
    ExpectItself(name, seen);
    // The last ten stay, so that there are others to be taken for.
    if (i >= 10) Remove(fmt::format("box{}", i - 10));
  }
  std::sort(took.begin(), took.end());
  fmt::print("ready after {:.1f} s, {:.1f} s at most\n", took[50], took[99]);
  EXPECT_EQ(seen.size(), 500U);
}

}  // namespace
}  // namespace sbxfs
