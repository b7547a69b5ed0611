// What a running guest takes at once, what others do to its definition, and how
// soon it is seen.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <vector>

#include "backend/util/text.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Millis = std::chrono::duration<double, std::milli>;
namespace stdfs = std::filesystem;
constexpr auto npos = std::string::npos;

class LiveTest : public BlankGuests {
 protected:
  [[nodiscard]] std::string Pending() const {
    return ReadText(Dir() / "box/pending");
  }
  // The definition as `change` makes it, by virsh define.
  static void Redefine(const std::function<void(std::string&)>& change) {
    std::string xml = Virsh({"dumpxml", "--inactive", "box"});
    change(xml);
    const stdfs::path file =
        stdfs::path(std::getenv("SBXFS_INSIDE")) / "box.xml";
    std::ofstream(file) << xml;
    Virsh({"define", file.string()});
  }
  static void Replace(std::string& xml, const std::string& old,
                      const std::string& fresh) {
    const auto at = xml.find(old);
    ASSERT_NE(at, npos) << old << " is not in " << xml;
    xml.replace(at, old.size(), fresh);
  }
};

constexpr char kOne[] = "<vcpu placement='static'>1</vcpu>";
constexpr char kTwo[] = "<vcpu placement='static'>2</vcpu>";
constexpr char kOneCore[] = "cores='1'";
constexpr char kTwoCores[] = "cores='2'";

TEST_F(LiveTest, WhatVirshChangesOfOursIsPendingAtOnce) {
  Mkdir("box");
  EXPECT_EQ(Pending(), "");
  auto change = [](bool more) {
    Redefine([more](std::string& xml) {
      Replace(xml, more ? kOne : kTwo, more ? kTwo : kOne);
      Replace(xml, more ? kOneCore : kTwoCores, more ? kTwoCores : kOneCore);
    });
  };
  std::vector<double> took;
  for (int i = 0; i < 5; ++i) {
    change(true);
    const auto begun = Clock::now();
    EXPECT_TRUE(Eventually([this] {
      return Pending() == "virsh: cpus\nvirsh: maxCPUs\n";
    })) << Pending();
    took.push_back(Millis(Clock::now() - begun).count());
    if (i < 4) change(false);
    EXPECT_TRUE(Eventually([&] { return i == 4 || Pending().empty(); }))
        << Pending();
  }
  std::sort(took.begin(), took.end());
  std::cout << fmt::format("a change by virsh is seen after {:.1f} ms\n",
                           took[2]);
  // It holds, and is what starts, until config.yaml is saved.
  Boot("box");
  EXPECT_EQ(Virsh({"vcpucount", "box", "--live"}), "2");
  EXPECT_EQ(Pending(), "virsh: cpus\nvirsh: maxCPUs\n");
  ASSERT_EQ(
      WriteText(Dir() / "box/config.yaml", ReadText(Dir() / "box/config.yaml")),
      Verdict{});
  EXPECT_EQ(Pending(), "cpus\n");
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  Boot("box");
  EXPECT_EQ(Virsh({"vcpucount", "box", "--live"}), "1");
  EXPECT_EQ(Pending(), "");
}

TEST_F(LiveTest, WhatIsNotOursIsKept) {
  Mkdir("box");
  Redefine([](std::string& xml) {
    Replace(xml, "<metadata>",
            "<title>mine</title><metadata>"
            "<my:note xmlns:my='urn:mine'>kept</my:note>");
    Replace(xml, "</devices>",
            "<watchdog model='i6300esb' action='pause'/>"
            "<channel type='unix'><target type='virtio' name='org.mine'/>"
            "</channel></devices>");
    Replace(xml, "<acpi/>", "<acpi/><pae/>");
    Replace(xml, "</qemu:commandline>",
            "<qemu:arg value='-name'/><qemu:arg value='box,process=mine'/>"
            "</qemu:commandline>");
  });
  EXPECT_EQ(Pending(), "");
  ASSERT_EQ(WriteText(Dir() / "box/memory", "40MiB\n"), Verdict{});
  EXPECT_EQ(Pending(), "");
  const std::string xml = Virsh({"dumpxml", "--inactive", "box"});
  EXPECT_NE(xml.find("<memory unit='KiB'>40960</memory>"), npos);
  for (const char* kept :
       {"<title>mine</title>", ">kept</my:note>", "model='i6300esb'",
        "name='org.mine'", "<pae/>", "value='box,process=mine'"}) {
    EXPECT_NE(xml.find(kept), npos) << kept << xml;
  }
  EXPECT_EQ(xml.find("id=sbxnet0"), xml.rfind("id=sbxnet0"));
  Boot("box");
  // Another architecture has no use for it, and saying it again changes none.
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "box/memory", "32MiB\n"), Verdict{});
  const std::string again = Virsh({"dumpxml", "--inactive", "box"});
  EXPECT_EQ(again.find("org.mine"), again.rfind("org.mine"));
}

TEST_F(LiveTest, ABlankGuestFollowsNothingWhichPendingTells) {
  Mkdir("box");
  ASSERT_EQ(WriteText(Dir() / "box/config.yaml",
                      "cpus: 1\nmaxCPUs: 2\nmemory: 32MiB\nmaxMemory: 48MiB\n"),
            Verdict{});
  Boot("box");
  EXPECT_EQ(Virsh({"vcpucount", "box", "--maximum", "--live"}), "2");
  // Its balloon has no driver, so it has all there could be.
  EXPECT_EQ(Pending(), "memory\n");
  ASSERT_EQ(WriteText(Dir() / "box/memory", "48MiB\n"), Verdict{});
  EXPECT_EQ(Pending(), "");
  ASSERT_EQ(WriteText(Dir() / "box/cpus", "2\n"), Verdict{});
  EXPECT_EQ(Pending(), "cpus\n");
  // By virsh it is plugged all the same, which is as wanted now; libvirt tells
  // nobody, so whoever opens the file looks.
  Virsh({"setvcpus", "box", "2", "--live"});
  EXPECT_TRUE(Eventually([this] { return Pending().empty(); })) << Pending();
}

// From just before a change to the return of poll(2).
class Wakes {
 public:
  explicit Wakes(const stdfs::path& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}

  void Measure(const std::function<void()>& change) {
    char bytes[4096];
    pollfd waked{fd_.Get(), POLLPRI, 0};
    // What is left of the change before.
    do {
      lseek(fd_.Get(), 0, SEEK_SET);
      while (read(fd_.Get(), bytes, sizeof bytes) > 0) {
      }
    } while (poll(&waked, 1, 100) == 1);
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      // As it is seen by another process.
      if (poll(&waked, 1, 10000) != 1) _exit(1);
      const auto now = Clock::now().time_since_epoch().count();
      _exit(write(ends[1], &now, sizeof now) < 0 ? 1 : 0);
    }
    close(ends[1]);
    usleep(30000);  // it waits by now
    const auto begun = Clock::now();
    change();
    Clock::rep at = 0;
    EXPECT_EQ(read(ends[0], &at, sizeof at), static_cast<ssize_t>(sizeof at));
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    took_.push_back(
        Millis(Clock::time_point(Clock::duration(at)) - begun).count());
  }
  [[nodiscard]] double Median() {
    std::sort(took_.begin(), took_.end());
    return took_[took_.size() / 2];
  }

 private:
  const UniqueFd fd_;
  std::vector<double> took_;
};

TEST_F(LiveTest, PollWakesWhatAnybodyChanged) {
  mount_->ExpectLoggedErrors();
  Mkdir("box");
  Wakes progress(Dir() / "box/progress");
  Wakes pending(Dir() / "box/pending");
  Wakes connection(Host() / "connection");
  Wakes status(Dir() / "box/status");
  Wakes ready(Dir() / "box/ready");
  Wakes events(Host() / "events");
  Wakes ended(Dir() / "box/status");
  GuestMount other(kOptions);
  ASSERT_TRUE(Eventually([&] { return stdfs::exists(other.Dir() / "box"); }));
  for (int i = 0; i < 5; ++i) {
    progress.Measure([this] {
      EXPECT_EQ(WriteText(Dir() / "box/status", "start\n", O_NONBLOCK),
                Verdict{});
    });
    ASSERT_TRUE(Becomes("box", "running"));
    pending.Measure([&] {
      EXPECT_EQ(WriteText(other.Dir() / "box/cpus", "3\n"), Verdict{});
    });
    ASSERT_EQ(WriteText(Dir() / "box/cpus", "1\n"), Verdict{});
    status.Measure([] { Virsh({"suspend", "box"}); });
    events.Measure([] { Virsh({"resume", "box"}); });
    ASSERT_TRUE(Becomes("box", "running"));
    // As far as anybody can tell the guest ended by itself.
    const auto qemu = ParseNumber(Trim(ReadText("/run/libvirt/qemu/box.pid")));
    ASSERT_TRUE(qemu.has_value());
    ended.Measure([&] { kill(static_cast<pid_t>(*qemu), SIGKILL); });
    ASSERT_TRUE(Becomes("box", "crashed"));
    ready.Measure([] { Virsh({"start", "box"}); });
    ASSERT_TRUE(Becomes("box", "running"));
    ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  }
  other.ExpectLoggedErrors();
  for (int i = 0; i < 3; ++i) {
    connection.Measure([] { KillLibvirtd(); });
    StartLibvirtd();
    ExpectConnected();
  }
  std::cout << fmt::format(
      "poll(2) returns after: progress {:.1f} ms, pending (of another mount) "
      "{:.1f} ms, connection {:.1f} ms, status (virsh suspend) {:.1f} ms, "
      "events "
      "(virsh resume) {:.1f} ms, status (the guest's end) {:.1f} ms, ready "
      "(virsh start) {:.1f} ms\n",
      progress.Median(), pending.Median(), connection.Median(), status.Median(),
      events.Median(), ended.Median(), ready.Median());
  other.Stop();
}

}  // namespace
}  // namespace sbxfs
