// A libvirtd that is there and does not answer: stopped by SIGSTOP.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace stdfs = std::filesystem;

int Milliseconds(Clock::duration time) {
  return static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
}

// Freezes libvirtd a while after it was made; thaws it when it goes.
class Frost {
 public:
  explicit Frost(std::chrono::microseconds delay = 0us)
      : thread_([this, delay] {
          std::this_thread::sleep_for(delay);
          kill(pid_, SIGSTOP);
        }) {}
  ~Frost() { Thaw(); }
  Frost(const Frost&) = delete;
  Frost& operator=(const Frost&) = delete;
  void Wait() {
    if (thread_.joinable()) thread_.join();
  }
  void Thaw() {
    Wait();
    kill(pid_, SIGCONT);
  }

 private:
  const pid_t pid_ = LibvirtdPid();
  std::thread thread_;
};

class FrozenTest : public BlankGuests {
 protected:
  void SetUp() override {
    BlankGuests::SetUp();
    if (mount_ != nullptr) mount_->ExpectLoggedErrors();
  }
  // What `call` came to with a libvirtd that freezes in the middle of it.
  // Reading goes on meanwhile.
  Verdict InFrost(std::chrono::microseconds delay,
                  const std::function<int()>& call) {
    Frost frost(delay);
    const auto before = Clock::now();
    const Verdict verdict = Call(call);
    longest_ = std::max(longest_, Clock::now() - before);
    frost.Wait();
    const auto reading = Clock::now();
    EXPECT_EQ(Status("other"), "stopped");
    EXPECT_NE(ReadText(Dir() / "other/config.yaml"), "");
    EXPECT_NE(ReadText(Host() / "list"), "");
    EXPECT_LT(Clock::now() - reading, 2s);
    return verdict;
  }
  void ExpectLimit(const char* what) {
    fmt::print("{}: longest answer {} ms\n", what, Milliseconds(longest_));
    EXPECT_LT(longest_, 3s);
  }
  [[nodiscard]] std::string NewestHostError() const {
    const std::string text = ReadText(Host() / "error");
    return text.substr(text.find("Cannot "),
                       text.find('\n') - text.find("Cannot "));
  }

  static int Rounds() { return LongRun() ? 30 : 6; }
  Clock::duration longest_{};
};

TEST_F(FrozenTest, MkdirIsAnsweredInTimeAndUndone) {
  Mkdir("other");
  const World with_other = World::Now();
  int late = 0;
  for (int round = 0; round < Rounds(); ++round) {
    const Verdict verdict = InFrost(round * 45ms / Rounds(), [this] {
      return mkdir((Dir() / "box").c_str(), 0700);
    });
    if (verdict.error == 0) {
      EXPECT_TRUE(Becomes("box", "stopped"));
      EXPECT_EQ(rmdir((Dir() / "box").c_str()), 0);
      EXPECT_EQ(rmdir((Host() / "trash/box").c_str()), 0);
    } else {
      ++late;
      EXPECT_EQ(verdict.error, ETIMEDOUT);
      EXPECT_EQ(NewestHostError(),
                "Cannot make 'box': the hypervisor did not answer within "
                "2 s; what was begun is undone, look again later");
    }
    EXPECT_TRUE(Eventually([&] { return World::Now() == with_other; }))
        << round << ": " << testing::PrintToString(World::Now());
    EXPECT_FALSE(stdfs::exists(Dir() / "box"));
  }
  EXPECT_GT(late, 0);
  ExpectLimit("mkdir");
}

// EEXIST would say that it is there.
TEST_F(FrozenTest, AnotherTryWhileTheFirstIsUndoneIsTold) {
  const auto make = [this] {
    return Call([this] { return mkdir((Dir() / "box").c_str(), 0700); });
  };
  {
    Frost frost;
    frost.Wait();
    EXPECT_EQ(make().error, ETIMEDOUT);
    EXPECT_EQ(make().error, EBUSY);
    EXPECT_EQ(NewestHostError(),
              "Cannot create 'box': an earlier attempt is still being undone; "
              "try again in a moment");
  }
  Verdict made;
  EXPECT_TRUE(Eventually([&] {
    made = make();
    return made.error != EBUSY;
  }));
  EXPECT_EQ(made, Verdict{});
  EXPECT_EQ(Status("box"), "stopped");
}

TEST_F(FrozenTest, RmdirAndMvAreAnsweredInTimeAndUndone) {
  Mkdir("other");
  Mkdir("box");
  ASSERT_EQ(WriteText(Dir() / "box/autostart", "yes\n"), Verdict{});
  // libvirt copies a definition to rename it, with a new genid and its own
  // indentation.
  const auto definition = [] {
    std::string xml = Virsh({"dumpxml", "box"});
    std::erase(xml, ' ');
    const auto genid = xml.find("<genid>");
    return xml.erase(genid, xml.find('\n', genid) - genid);
  };
  const std::string xml = definition();
  const auto whole = [this] {
    return Status("box") == "stopped" && !stdfs::exists(Host() / "trash/box") &&
           !stdfs::exists(Dir() / "moved");
  };
  for (int round = 0; round < Rounds(); ++round) {
    const bool remove = round % 2 == 0;
    const Verdict verdict = InFrost(round * 12ms / Rounds(), [&] {
      return remove
                 ? rmdir((Dir() / "box").c_str())
                 : rename((Dir() / "box").c_str(), (Dir() / "moved").c_str());
    });
    const stdfs::path gone = remove ? Host() / "trash/box" : Dir() / "moved";
    if (verdict.error == 0) {
      EXPECT_TRUE(stdfs::exists(gone));
      ASSERT_EQ(rename(gone.c_str(), (Dir() / "box").c_str()), 0);
    } else {
      EXPECT_EQ(verdict.error, ETIMEDOUT);
    }
    // Until the libvirtd that thawed has done what it was asked.
    std::this_thread::sleep_for(300ms);
    EXPECT_TRUE(Eventually(whole)) << round << ": " << Status("box");
    // The name goes back first.
    EXPECT_TRUE(Eventually([&] { return definition() == xml; }))
        << definition();
    EXPECT_EQ(Virsh({"list", "--all", "--autostart", "--name"}), "box");
  }
  ExpectLimit("rmdir and mv");
}

TEST_F(FrozenTest, StartAndSetWaitForIt) {
  Mkdir("other");
  Mkdir("box");
  {
    Frost frost;
    frost.Wait();
    Writer start(Dir() / "box/status", "start\n");
    Writer set(Dir() / "other/cpus", "2\n");
    EXPECT_FALSE(start.Ended(500ms).has_value());
    EXPECT_FALSE(set.Ended(500ms).has_value());
    EXPECT_EQ(ReadText(Dir() / "other/cpus"), "1\n");
    frost.Thaw();
    const auto verdict = set.Ended();
    ASSERT_TRUE(verdict.has_value());
    EXPECT_EQ(*verdict, Verdict{});
    EXPECT_TRUE(Becomes("box", "running"));
  }
  EXPECT_EQ(ReadText(Dir() / "other/cpus"), "2\n");
}

// Long enough for the keepalive: everything that was begun ends, and what was
// begun is undone over the next connection.
TEST_F(FrozenTest, ADeadPeerIsNoticedAndWhatWasBegunIsUndone) {
  Mkdir("other");
  Mkdir("box");
  Mkdir("third");
  const World whole = World::Now();
  const auto frozen = Clock::now();
  Clock::duration noticed{};
  {
    Frost frost(3ms);
    Writer set(Dir() / "third/cpus", "2\n");
    EXPECT_EQ(
        Call([this] { return mkdir((Dir() / "new").c_str(), 0700); }).error,
        ETIMEDOUT);
    EXPECT_EQ(Call([this] { return rmdir((Dir() / "box").c_str()); }).error,
              ETIMEDOUT);
    EXPECT_TRUE(Eventually(
        [this] {
          return ReadText(Host() / "connection").starts_with("disconnected");
        },
        30s));
    noticed = Clock::now() - frozen;
    const std::string connection = ReadText(Host() / "connection");
    EXPECT_NE(connection.find("libvirtd did not answer for 15 s"),
              std::string::npos)
        << connection;
    EXPECT_EQ(Status("other"), "unreachable");
    const auto verdict = set.Ended(5s);
    ASSERT_TRUE(verdict.has_value());
    EXPECT_EQ(verdict->error, EHOSTDOWN) << verdict->sentence;
    const auto before = Clock::now();
    EXPECT_EQ(
        Call([this] { return mkdir((Dir() / "late").c_str(), 0700); }).error,
        EHOSTDOWN);
    EXPECT_LT(Clock::now() - before, 5s);
  }
  fmt::print("the dead peer was noticed after {} ms\n", Milliseconds(noticed));
  EXPECT_LT(noticed, 20s);
  ExpectConnected();
  EXPECT_TRUE(Becomes("box", "stopped"));
  EXPECT_FALSE(stdfs::exists(Host() / "trash/box"));
  EXPECT_TRUE(Eventually([&] { return World::Now() == whole; }))
      << testing::PrintToString(World::Now());
  // What the frozen libvirtd had been sent comes to nothing later either.
  std::this_thread::sleep_for(8s);
  EXPECT_EQ(World::Now(), whole);
  EXPECT_FALSE(stdfs::exists(Dir() / "new"));
  EXPECT_TRUE(stdfs::exists(Dir() / "box"));
}

// The mount point is free at once; the daemon leaves its calls behind.
TEST_F(FrozenTest, UnmountingDoesNotWaitForIt) {
  Mkdir("other");
  {
    Frost frost;
    frost.Wait();
    Writer set(Dir() / "other/cpus", "2\n");
    EXPECT_FALSE(set.Ended(500ms).has_value());
    const pid_t daemon = mount_->Pid();
    ASSERT_EQ(kill(daemon, SIGTERM), 0);
    const auto before = Clock::now();
    EXPECT_TRUE(Eventually([&] {
      return ReadText(fmt::format("/proc/{}/stat", daemon)).find(") Z ") !=
             std::string::npos;
    }));
    fmt::print("ended after {} ms\n", Milliseconds(Clock::now() - before));
  }
  mount_->Ended();
  NeedLibvirtd();
  mount_->Start();
  EXPECT_TRUE(Becomes("other", "stopped"));
}

}  // namespace
}  // namespace sbxfs
