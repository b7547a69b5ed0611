// Chains of running guests are kept short in the background.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "backend/backend.h"
#include "backend/libvirt_backend.h"
#include "tests/support/guest_disk.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using namespace std::chrono_literals;

class PullTest : public BlankGuests {
 protected:
  void Snapshot(const std::string& tag) {
    ASSERT_EQ(mkdir((Dir() / "box/snapshots" / tag).c_str(), 0777), 0)
        << ReadText(Dir() / "box/error");
  }
  void Drop(const std::string& tag) {
    ASSERT_EQ(rmdir((Dir() / "box/snapshots" / tag).c_str()), 0)
        << ReadText(Dir() / "box/error");
  }
  // Blocks 20, 21 and 22 in three layers, and 23 in the top one.
  void Layered() {
    Mkdir("box");
    for (int i = 0; i < 3; ++i) {
      Fill("box", 20 + i, 1 + i);
      Snapshot(fmt::format("s{}", i));
    }
    Fill("box", 23, 4);
  }
  void ExpectBytes(const std::string& box) {
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(Holds(box, 20 + i, 1 + i)) << i;
  }
  // Of the pool, so that it is seen what is left.
  static long Layers() {
    // The directory itself: virsh would have libvirt look at it anew.
    std::string volumes;
    for (const auto& entry :
         stdfs::directory_iterator("/var/lib/libvirt/sbxfs")) {
      volumes += entry.path().filename().string() + "\n";
    }
    long count = 0;
    for (size_t at = 0; (at = volumes.find(".disk", at)) != std::string::npos;
         ++at) {
      ++count;
    }
    return count;
  }
  // Another mount, which looks for long chains at once.
  static std::unique_ptr<Backend> Keeper() {
    BackendOptions options;
    options.uri = "qemu:///system";
    options.pull_pause = 0s;
    options.orphan_age = 0s;
    return OpenLibvirt(options);
  }
  // With another mount there, which ends in the middle of what it does.
  static void ExpectShortenedTo(long layers) {
    {
      const auto keeper = Keeper();
      EXPECT_TRUE(Eventually([&] { return Layers() == layers; })) << Layers();
    }
    // Kept, it would have others wait for ten minutes.
    EXPECT_TRUE(Eventually([] {
      return !stdfs::exists("/var/lib/libvirt/sbxfs/lease.background");
    }));
  }
};

TEST_F(PullTest, LayersThatNobodyNeedsGoWhileTheGuestRuns) {
  Layered();
  Boot("box");
  ASSERT_EQ(mkdir((Dir() / "box/snapshots/s0/clones/copy").c_str(), 0777), 0)
      << ReadText(Host() / "error");
  for (const char* tag : {"s1", "s2"}) Drop(tag);
  // Four of box, one of the clone.
  EXPECT_EQ(Layers(), 5);
  {
    const auto keeper = Keeper();
    EXPECT_TRUE(Eventually([] { return Layers() == 3; })) << Layers();
    // What the snapshot and the clone are stays.
    std::this_thread::sleep_for(300ms);
    EXPECT_EQ(Layers(), 3);
  }
  ExpectBytes("box");
  EXPECT_EQ(Status("box"), "running");
  EXPECT_EQ(ReadLine(Dir() / "box/pending"), "");
  EXPECT_TRUE(Holds("copy", 20, 1));
  ASSERT_EQ(rmdir((Dir() / "copy").c_str()), 0);
  ASSERT_EQ(rmdir((Host() / "trash/copy").c_str()), 0);
  Drop("s0");
  ExpectShortenedTo(1);
  ExpectBytes("box");
  // It starts from what is left, and goes on as ever.
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  ExpectBytes("box");
  Boot("box");
  Snapshot("again");
  Fill("box", 23, 5);
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "box/snapshot", "again\n"), Verdict{});
  Boot("box");
  EXPECT_TRUE(Holds("box", 23, 4));
}

// What libvirt refuses beside a pull ends it, wherever it is.
TEST_F(PullTest, ASnapshotASaveAndAnotherSizeEndIt) {
  Layered();
  for (int block = 100; block < 164; ++block) Fill("box", block, 7);
  Snapshot("full");
  Drop("full");
  Boot("box");
  const auto pull = [] {
    Virsh({"blockpull", "box", "vda", "--bandwidth", "1"});
    EXPECT_NE(Virsh({"blockjob", "box", "vda", "--raw"}).find("Block Pull"),
              std::string::npos);
  };
  pull();
  Snapshot("taken");
  pull();
  ASSERT_EQ(WriteText(Dir() / "box/status", "save\n"), Verdict{})
      << ReadText(Dir() / "box/error");
  ASSERT_TRUE(Becomes("box", "saved"));
  Boot("box");
  pull();
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  ExpectBytes("box");
  EXPECT_TRUE(Holds("box", 150, 7));
}

// Somebody's own, or one whose daemon was killed: what is left is swept.
TEST_F(PullTest, WhatAnotherPulledOutIsSwept) {
  Layered();
  for (const char* tag : {"s0", "s1", "s2"}) Drop(tag);
  Boot("box");
  mount_->Crash();
  Virsh({"blockpull", "box", "vda", "--wait"});
  mount_->Start();
  EXPECT_EQ(Layers(), 4);
  ExpectShortenedTo(1);
  ExpectBytes("box");
}

}  // namespace
}  // namespace sbxfs
