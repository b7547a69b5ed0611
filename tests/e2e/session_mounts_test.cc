// Directories that the hypervisor serves: a session's, which has its user's
// rights. Debian guests of that user's.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libvirt/libvirt.h>
#include <pwd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "tests/support/debian_guests.h"
#include "tests/support/session_user.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;
using testing::HasSubstr;

// Debian's first user, and so the guest's.
constexpr uid_t kFirstUser = 1000;

class SessionMountsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = NoBootBecause(); !why.empty()) GTEST_SKIP() << why;
    user_ = std::make_unique<SessionUser>(kFirstUser, "joe");
    home_ = user_->Home();
    for (const char* name : {"rw", "ro", "late"}) {
      (void)user_->MakeDirectory(name);
    }
    // libvirt serves nobody whom the machine does not know. This name space is
    // the tests' own.
    if (getpwuid(kFirstUser) == nullptr) {
      const stdfs::path passwd = home_ / "passwd";
      stdfs::copy_file("/etc/passwd", passwd);
      std::ofstream(passwd, std::ios::app) << fmt::format(
          "joe:x:{0}:{0}::{1}:/bin/sh\n", kFirstUser, home_.string());
      ASSERT_EQ(mount(passwd.c_str(), "/etc/passwd", nullptr, MS_BIND, nullptr),
                0);
      known_ = true;
    }
    // What it lies in may be closed to joe.
    stdfs::copy_file(GuestImage(), home_ / "image");
    ASSERT_EQ(chmod((home_ / "image").c_str(), 0644), 0);
    before_ = World::Now();
  }
  void TearDown() override {
    if (user_ == nullptr) return;
    (void)Sh(
        "echo kill >tree/box/status; rmdir tree/box tree/.host/trash/box;"
        "rm tree/.host/images/debian; fusermount3 -uz tree");
    user_.reset();
    if (known_) (void)umount("/etc/passwd");
    EXPECT_EQ(World::Now(), before_);
  }

  [[nodiscard]] Ended Sh(const std::string& script) const {
    return user_->Sh(script);
  }
  [[nodiscard]] std::string Said(const std::string& script,
                                 std::chrono::seconds limit = 60s) const {
    return user_->Said(script, limit, "cat tree/box/error");
  }
  // What the guest's user says.
  [[nodiscard]] std::string In(const std::string& command) const {
    return Said("exec 3<>tree/box/exec/new; cat >&3 <<'E'\n" + command +
                "\nE\ncat <&3");
  }
  // A mount, an image, and directories with content.
  void Begin() const {
    EXPECT_EQ(Said("./sbxfs -o cold,start_timeout=600 qemu:///session tree"),
              "");
    (void)Said("cp image tree/.host/images/debian", 120s);
    (void)Said(
        "echo from the host >ro/seen; "
        "head -c 33554432 /dev/urandom | tee ro/much >late/much");
  }
  // The sandbox, with the two directories that are there from the beginning.
  void Make(const std::string& more, const std::string& of_rw) const {
    (void)Said(fmt::format(
        "cat >tree/box.yaml <<'E'\n"
        "images: [{{location: debian}}]\n"
        "memory: 512MiB\n"
        "{}\n"
        "mounts:\n"
        "- {{location: {}, writable: true, {}}}\n"
        "- {{location: {}}}\n"
        "E\n",
        more, (home_ / "rw").string(), of_rw, (home_ / "ro").string()));
  }
  // Root in the guest can make nothing writable that is not.
  void ExpectReadOnly() const {
    const std::string ro = (home_ / "ro").string();
    EXPECT_EQ(In(fmt::format("touch {}/x 2>&1 | grep -c 'Read-only'; "
                             "sudo mount -o remount,rw {}; "
                             "sudo touch {}/y 2>&1 | grep -c 'Read-only'",
                             ro, ro, ro)),
              "1\n1\n");
    EXPECT_FALSE(stdfs::exists(home_ / "ro/y"));
  }
  // One file is the same on both sides, and its owner's on both.
  void ExpectShared(unsigned guest_uid) const {
    EXPECT_EQ(In(fmt::format("cat {0}/ro/seen; echo guest >{0}/rw/made; "
                             "stat -c %u {0}/ro/seen {0}/rw/made; id -u",
                             home_.string())),
              fmt::format("from the host\n{0}\n{0}\n{0}\n", guest_uid));
    EXPECT_EQ(ReadText(home_ / "rw/made"), "guest\n");
    struct stat made {};
    ASSERT_EQ(stat((home_ / "rw/made").c_str(), &made), 0);
    EXPECT_EQ(made.st_uid, kFirstUser);
  }
  // Reads a directory's 32 MiB in the guest.
  void Time(const char* name, const char* way) const {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(In(fmt::format("wc -c <{}/much", (home_ / name).string())),
              "33554432\n");
    fmt::print(
        "32 MiB read by {}: {:.1f} s\n", way,
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
            .count());
  }
  // Has a process of the guest's hold the directory.
  void Hold(const std::string& directory) const {
    (void)Said(
        fmt::format("mkdir tree/box/exec/in; echo 'cd {}; exec sleep 1000' | "
                    "dd of=tree/box/exec/in/command oflag=nonblock 2>/dev/null",
                    directory));
  }

  std::unique_ptr<SessionUser> user_;
  stdfs::path home_;
  World before_;
  bool known_ = false;
};

TEST_F(SessionMountsTest, NinePIsServedByQemuOfTheUser) {
  const std::string rw = (home_ / "rw").string();
  const std::string ro = (home_ / "ro").string();
  Begin();
  Make("mountType: 9p", "9p: {msize: 64KiB, cache: none}");
  EXPECT_THAT(Said("cat tree/box/effective.yaml"),
              HasSubstr("\n# mountType: 9p\n"));
  (void)Said("echo start >tree/box/status", 300s);
  EXPECT_EQ(Said("cat tree/box/pending"), "");
  EXPECT_EQ(RunProgram({"pgrep", "-x", "sbxfs-mount"}).out, "");

  const std::string mounts = In("grep ' 9p ' /proc/mounts");
  EXPECT_THAT(mounts, HasSubstr(" " + rw + " 9p rw,"));
  EXPECT_THAT(mounts, HasSubstr(" " + ro + " 9p ro,"));
  EXPECT_THAT(mounts, HasSubstr(",msize=65536,"));
  ExpectShared(1000);
  ExpectReadOnly();

  // Saved, and there again; not while it is in use.
  Hold(rw);
  EXPECT_NE(Sh("echo save >tree/box/status").status, 0);
  EXPECT_THAT(Said("cat tree/box/error"),
              HasSubstr(fmt::format("Cannot save 'box': QEMU saves no guest "
                                    "that has a directory by 9p, and '{}' "
                                    "could not be unmounted",
                                    rw)));
  (void)Said("rmdir tree/box/exec/in");
  (void)Said("echo save >tree/box/status", 120s);
  EXPECT_EQ(Said("cat tree/box/status"), "saved\n");
  (void)Said("echo start >tree/box/status", 120s);
  EXPECT_TRUE(Eventually(
      [&] { return In("cat " + ro + "/seen") == "from the host\n"; }, 60s));

  // QEMU takes none while it runs: sshfs does, and the next start tells.
  (void)Said(
      fmt::format("echo {} >tree/box/mounts/late", (home_ / "late").string()),
      120s);
  EXPECT_THAT(In("cat /proc/mounts"), HasSubstr("/late fuse.sshfs ro,"));
  EXPECT_EQ(Said("cat tree/box/pending"), "mountType\n");
  (void)Said("rm tree/box/mounts/rw", 120s);
  EXPECT_TRUE(Eventually(
      [&] { return In("grep -c '/rw 9p ' /proc/mounts; :") == "0\n"; }));
  EXPECT_EQ(Said("cat tree/box/pending"), "mountType\nmounts\n");
  Time("ro", "9p");
  Time("late", "reverse sshfs");

  // What is not there cannot be served.
  stdfs::remove_all(home_ / "ro");
  EXPECT_NE(
      Sh("echo kill >tree/box/status; echo start >tree/box/status").status, 0);
  EXPECT_THAT(Said("cat tree/box/error"), HasSubstr(ro));
}

TEST_F(SessionMountsTest, VirtiofsIsPluggedInWhereTheHypervisorHasIt) {
  const std::string rw = (home_ / "rw").string();
  const std::string ro = (home_ / "ro").string();
  Begin();
  // Other ids than the user's: a virtiofsd translates them.
  Make("mountType: virtiofs\nuser: {uid: 1234}", "virtiofs: {queueSize: 512}");
  const std::string effective = Said("cat tree/box/effective.yaml");
  unsigned long libvirt = 0;
  ASSERT_EQ(virGetVersion(&libvirt, nullptr, nullptr), 0);
  if (libvirt < 11000000) {
    EXPECT_THAT(
        effective,
        HasSubstr("\n# mountType: reverse-sshfs, since libvirt " +
                  Said("virsh --version | tr -d '\\n'") +
                  " has no read-only virtiofs of a user, 11.0.0 has\n"));
    GTEST_SKIP() << "the rest needs libvirt 11";
  }
  EXPECT_THAT(effective, HasSubstr("\n# mountType: virtiofs\n"));
  (void)Said("echo start >tree/box/status", 300s);
  EXPECT_EQ(Said("cat tree/box/pending"), "");
  EXPECT_EQ(RunProgram({"pgrep", "-x", "sbxfs-mount"}).out, "");
  EXPECT_EQ(RunProgram({"pgrep", "-U", "0", "-x", "virtiofsd"}).out, "");
  const std::string mounts = In("grep ' virtiofs ' /proc/mounts");
  EXPECT_THAT(mounts, HasSubstr(" " + rw + " virtiofs rw,"));
  EXPECT_THAT(mounts, HasSubstr(" " + ro + " virtiofs ro,"));
  ExpectShared(1234);
  ExpectReadOnly();
  // What root makes there is the owner's too.
  EXPECT_EQ(In(fmt::format("sudo sh -c 'echo more >>{0}/made; : >{0}/root'; "
                           "stat -c %u {0}/made {0}/root",
                           rw)),
            "1234\n1234\n");
  EXPECT_EQ(ReadText(home_ / "rw/made"), "guest\nmore\n");
  struct stat root {};
  ASSERT_EQ(stat((home_ / "rw/root").c_str(), &root), 0);
  EXPECT_EQ(root.st_uid, kFirstUser);

  // They come and go with the guest running.
  const std::string plugged =
      "virsh -c qemu:///session dumpxml box | "
      "grep -c '<filesystem'; :";
  (void)Said(
      fmt::format("echo {} >tree/box/mounts/late", (home_ / "late").string()),
      120s);
  EXPECT_THAT(In("cat /proc/mounts"), HasSubstr("/late virtiofs ro,"));
  EXPECT_EQ(Said(plugged), "3\n");
  EXPECT_EQ(Said("cat tree/box/pending"), "");
  Time("late", "virtiofs");
  Hold((home_ / "late").string());
  (void)Said("rm tree/box/mounts/late", 120s);
  EXPECT_TRUE(Eventually([&] { return Said(plugged) == "2\n"; }));
  EXPECT_EQ(In("grep -c '/late virtiofs' /proc/mounts; :"), "0\n");
  EXPECT_EQ(Said("cat tree/box/pending"), "");
  (void)Said("rmdir tree/box/exec/in");

  // Another right to it is another device at the same place.
  (void)Said(fmt::format("echo {} >tree/box/mounts/rw", rw), 120s);
  EXPECT_THAT(In("cat /proc/mounts"), HasSubstr("/rw virtiofs ro,"));
  EXPECT_TRUE(Eventually([&] { return Said(plugged) == "2\n"; }));
  (void)Said(fmt::format("echo {}:w >tree/box/mounts/rw", rw), 120s);

  // Saved with one in use, and there again, with the same file open.
  Hold(rw);
  (void)Said("echo save >tree/box/status", 120s);
  EXPECT_EQ(Said("cat tree/box/status"), "saved\n");
  (void)Said("echo start >tree/box/status", 120s);
  EXPECT_TRUE(Eventually(
      [&] { return In("cat " + ro + "/seen") == "from the host\n"; }, 60s));
  EXPECT_EQ(In("cat " + rw + "/made"), "guest\nmore\n");
  EXPECT_EQ(Said("cat tree/box/pending"), "");
}

}  // namespace
}  // namespace sbxfs
