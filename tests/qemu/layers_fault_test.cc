// kill -9 of the daemon before each call of libvirt that an operation on layers
// makes: after the next mount it is done or undone.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "backend/libvirt_backend.h"
#include "tests/support/faults.h"
#include "tests/support/guest_disk.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class LayersFaultTest : public BlankGuests {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    counter_ = stdfs::path(std::getenv("SBXFS_INSIDE")) / "faults";
    setenv("SBXFS_FAULTS", counter_.c_str(), 1);
    {
      const FaultsPreloaded faults;
      BlankGuests::SetUp();
    }
    mount_->ExpectLoggedErrors();
  }
  void TearDown() override {
    std::error_code none;
    stdfs::remove(counter_, none);
    if (mount_ == nullptr) return;
    Clear(Dir());
    RemoveImages();
    SweepAll();
    BlankGuests::TearDown();
  }

  void RemoveImages() {
    for (int i = 0; i <= commits_; ++i) {
      unlink((Host() / fmt::format("images/made{}", i)).c_str());
    }
  }
  // Another mount, which takes what was cut off for abandoned at once.
  void SweepAll() {
    BackendOptions options;
    options.uri = "qemu:///system";
    options.orphan_age = std::chrono::seconds(0);
    const auto backend = OpenLibvirt(options);
    EXPECT_TRUE(Eventually([this] {
      return World::Now().volumes == before_.volumes;
    })) << World::Now().volumes;
  }

  // The sandbox as everyone can see it: tags, what they stand on, and bytes.
  std::string Look() {
    std::string text = "on " + ReadLine(Dir() / "box/snapshot") + ":";
    auto bytes = [&](auto&& holds) {
      for (int block = 20; block < 22; ++block) {
        for (int byte = 0; byte < 4; ++byte) {
          if (holds(block, byte)) text += fmt::format(" {}", byte);
        }
      }
    };
    bytes([](int block, int byte) { return Holds("box", block, byte); });
    for (const auto& entry :
         stdfs::directory_iterator(Dir() / "box/snapshots")) {
      const std::string tag = entry.path().filename();
      text +=
          fmt::format("; {} from '{}'", tag, ReadLine(entry.path() / "parent"));
    }
    if (stdfs::exists(Dir() / "copy")) {
      text += "; copy:";
      bytes([](int block, int byte) { return Holds("copy", block, byte); });
    }
    for (const auto& entry : stdfs::directory_iterator(Host() / "images")) {
      if (entry.path().filename() != "blank") text += "; image";
    }
    return text;
  }
  // Takes back what an operation did, as far as it can be seen.
  void Begin() {
    Clear(Dir());
    RemoveImages();
    Mkdir("box");
    Fill("box", 20, 1);
    ASSERT_EQ(mkdir((Dir() / "box/snapshots/one").c_str(), 0777), 0);
    Fill("box", 21, 2);
    ASSERT_EQ(mkdir((Dir() / "box/snapshots/two").c_str(), 0777), 0);
    Fill("box", 20, 3);
  }
  // Runs it undisturbed, and then killed at each of its calls.
  void Sweep(const std::function<void()>& operation) {
    Begin();
    const std::string before = Look();
    operation();
    const std::string after = Look();
    ASSERT_NE(before, after);
    int done = 0;
    int calls = 1;
    for (;; ++calls) {
      ASSERT_LT(calls, 40);
      Begin();
      std::ofstream(counter_) << calls << "\n";
      operation();
      std::error_code dead;
      const bool alive = stdfs::exists(Host(), dead);
      stdfs::remove(counter_);
      if (alive) {
        EXPECT_EQ(Look(), after);
        break;
      }
      mount_->Crash();
      {
        const FaultsPreloaded faults;
        mount_->Start();
      }
      std::string now;
      EXPECT_TRUE(Eventually([&] {
        now = Look();
        return now == before || now == after;
      })) << "killed at call "
          << calls << ":\n"
          << now << "\nis neither\n"
          << before << "\nnor\n"
          << after;
      if (now == after) ++done;
      // It works on from there, whatever it is.
      EXPECT_EQ(mkdir((Dir() / "box/snapshots/more").c_str(), 0777), 0)
          << ReadText(Dir() / "box/error");
      const bool renamed = !stdfs::exists(Dir() / "box/snapshots/one");
      EXPECT_EQ(
          WriteText(Dir() / "box/snapshot", renamed ? "first!\n" : "one!\n"),
          Verdict{});
      EXPECT_TRUE(Holds("box", 20, 1));
      if (HasFailure()) return;
    }
    std::printf("%d calls, killed at each: %d times it was done\n", calls - 1,
                done);
  }

  stdfs::path counter_;
  int commits_ = 0;
};

TEST_F(LayersFaultTest, Take) {
  Sweep([this] { mkdir((Dir() / "box/snapshots/new").c_str(), 0777); });
}
TEST_F(LayersFaultTest, Revert) {
  Sweep([this] { WriteText(Dir() / "box/snapshot", "one\n"); });
}
TEST_F(LayersFaultTest, Remove) {
  Sweep([this] { rmdir((Dir() / "box/snapshots/one").c_str()); });
}
TEST_F(LayersFaultTest, Rename) {
  Sweep([this] {
    rename((Dir() / "box/snapshots/one").c_str(),
           (Dir() / "box/snapshots/first").c_str());
  });
}
TEST_F(LayersFaultTest, Clone) {
  Sweep([this] { mkdir((Dir() / "box/clones/copy").c_str(), 0700); });
}
TEST_F(LayersFaultTest, Commit) {
  // A name cut off before it had a mark is kept for a while.
  Sweep([this] {
    WriteText(Dir() / "box/commit", fmt::format("made{}\n", ++commits_));
  });
}
TEST_F(LayersFaultTest, FactoryReset) {
  Sweep([this] { WriteText(Dir() / "box/status", "factory-reset\n"); });
}

}  // namespace
}  // namespace sbxfs
