// Snapshots and clones of a Debian guest that was booted: files written before
// and after, and what a clone knows itself by.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <thread>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"
#include "tests/support/reach.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class DiskLayersTest : public DebianGuests {
 protected:
  DiskLayersTest() : DebianGuests(Boots::kWarmIfItCan) {}
};

TEST_F(DiskLayersTest, FilesComeAndGoWithTheDiskAndAClonesSelfIsItsOwn) {
  ASSERT_EQ(WriteText(Dir() / "golden.yaml", kWarmConfig, O_CREAT), Verdict{})
      << ReadText(Host() / "error");
  Do("golden/status", "start");
  In("golden", "echo first > mark");
  {
    const Answering here;
    EXPECT_EQ(In("golden", here.Probe()), "reached: tcp udp tcp6 udp6 raw");
  }
  // A guest that has little of the processor may not freeze within its second.
  const stdfs::path clean = Dir() / "golden/snapshots/clean";
  EXPECT_TRUE(Eventually(
      [&] {
        if (stdfs::exists(clean)) rmdir(clean.c_str());
        EXPECT_EQ(mkdir(clean.c_str(), 0777), 0)
            << ReadText(Dir() / "golden/error");
        return ReadLine(clean / "kind") == "disk quiesced";
      },
      120s));
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

  std::string home;
  if (LongRun()) {
    // Back, on the running guest; it is waited for, as it could be used before.
    Do("golden/snapshot", "clean");
    EXPECT_EQ(In("golden", "cat mark"), "first");
    EXPECT_EQ(In("golden", "cat /etc/machine-id"), golden);
    // An image of it as it runs.
    In("golden", "echo fourth > mark");
    home = In("golden", "pwd");
    EXPECT_EQ(WriteText(Dir() / "golden/commit", "made\n"), Verdict{})
        << ReadText(Dir() / "golden/error");
    EXPECT_TRUE(Eventually(
        [&] { return stdfs::exists(Host() / "images/made"); }, 120s));
  }
  Do("golden/status", "kill");

  Do("copy/status", "start");
  EXPECT_EQ(In("copy", "cat mark"), "first");
  EXPECT_EQ(In("copy", "hostname"), "lima-copy");
  const std::string copy = In("copy", "cat /etc/machine-id");
  EXPECT_EQ(copy.size(), 32u);
  EXPECT_NE(copy, golden);
  Do("copy/status", "kill");
  if (!LongRun()) return;
  Do("golden/snapshot", ".undo");
  Do("golden/status", "start");
  EXPECT_EQ(In("golden", "cat mark"), "second");
  Do("golden/status", "kill");

  // The image has its user already, with the first uid, and the new sandbox's
  // own has another.
  ASSERT_EQ(WriteText(Dir() / "other.yaml", R"(images: [{location: made}]
memory: 512MiB
user: {name: ann}
provision:
- mode: system
  script: |
    #!/bin/sh
    echo {{.UID}} >/told
)",
                      O_CREAT),
            Verdict{})
      << ReadText(Host() / "error");
  Do("other/status", "start");
  EXPECT_EQ(In("other", "id -un; id -u; cat /told"), "ann\n1001\n1001");
  EXPECT_EQ(In("other", "sudo cat " + home + "/mark"), "fourth");
  Do("other/status", "kill");
  EXPECT_EQ(Call([&] { return rmdir((Dir() / "other").c_str()); }), Verdict{});
  EXPECT_EQ(Call([&] { return rmdir((Host() / "trash/other").c_str()); }),
            Verdict{});
  EXPECT_EQ(unlink((Host() / "images/made").c_str()), 0);
}

// Of one golden sandbox: a hundred that share its disk, of which five boot.
TEST_F(DiskLayersTest, AHundredClonesAreDistinct) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
  ASSERT_EQ(mkdir((Dir() / "base").c_str(), 0700), 0)
      << ReadText(Host() / "error");
  Do("base/status", "start");
  In("base", "sync");
  Do("base/status", "stop");
  Identities all;
  for (int i = 0; i < 100; ++i) {
    const std::string name = fmt::format("c{}", i);
    ASSERT_EQ(mkdir((Dir() / "base/clones" / name).c_str(), 0700), 0)
        << ReadText(Dir() / "base/error");
    all.Add(Dir() / name);
  }
  EXPECT_EQ(all.macs.size(), 100U);
  EXPECT_EQ(all.ports.size(), 100U);
  EXPECT_EQ(all.keys.size(), 100U);
  std::set<std::string> machines, hostnames, inside;
  for (int i = 0; i < 5; ++i) {
    const std::string name = fmt::format("c{}", i * 20);
    Do(name + "/status", "start");
    machines.insert(In(name, "cat /etc/machine-id"));
    hostnames.insert(In(name, "hostname"));
    inside.insert(In(name, "sudo cat /etc/ssh/ssh_host_ed25519_key.pub"));
    EXPECT_EQ(In(name, "hostname"), "lima-" + name);
    Do(name + "/status", "kill");
  }
  EXPECT_EQ(machines.size(), 5U);
  EXPECT_EQ(hostnames.size(), 5U);
  EXPECT_EQ(inside.size(), 5U);
}

}  // namespace
}  // namespace sbxfs
