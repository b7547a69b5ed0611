// The files of a Debian guest that runs, and on its disk: box/fs and
// snapshots/TAG/fs.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "backend/util/text.h"
#include "backend/util/unique_fd.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class FilesTest : public DebianGuests {
 protected:
  FilesTest() : DebianGuests(Boots::kWarmIfItCan) {}
  [[nodiscard]] stdfs::path Fs() const { return Dir() / "box/fs"; }
  // The home of the guest's user, whom kWarmConfig names.
  [[nodiscard]] stdfs::path Home() const { return Fs() / "home/joe"; }
  void Start() {
    Make("box", kWarmConfig);
    Do("box/status", "start");
  }
  // What a script says, in that home, without the newline at the end. $host is
  // a directory of this machine.
  std::string Here(const std::string& script) {
    const Stopwatch watch;
    const Ended ended =
        RunProgram({"bash", "-c",
                    fmt::format("set -e -o pipefail; host={}; cd {}\n{}",
                                host_.string(), Home().string(), script)},
                   300s);
    EXPECT_EQ(ended.status, 0) << script << '\n' << ended.out << ended.err;
    if (watch.Seconds() > 2) {
      fmt::print("{:.1f} s: {}\n", watch.Seconds(), script);
    }
    return std::string(Trim(ended.out));
  }
  static std::string ReadFrom(int fd) {
    std::string bytes(100, '\0');
    const ssize_t got = pread(fd, bytes.data(), bytes.size(), 0);
    EXPECT_GE(got, 0) << errno;
    bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return bytes;
  }
  void SetUp() override {
    DebianGuests::SetUp();
    std::string name = testing::TempDir() + "/sbxfs-files.XXXXXX";
    host_ = mkdtemp(name.data());
  }
  void TearDown() override {
    stdfs::remove_all(host_);
    DebianGuests::TearDown();
  }

  stdfs::path host_;
};

TEST_F(FilesTest, AreReadAndWrittenAsTheGuestsUser) {
  Start();
  EXPECT_EQ(Here("grep ^ID= ../../etc/os-release"), "ID=debian");
  // Shown as whose the sandbox is; and not to be listed.
  EXPECT_EQ(Here("stat -c '%u %a' ../joe ../../etc/hostname"),
            fmt::format("{0} 755\n0 644", getuid()));
  EXPECT_EQ(Here("ls ../../.. | grep -cx fs || true"), "0");
  EXPECT_EQ(
      Here("cat ../../etc/shadow 2>&1 || true").rfind("Permission denied"),
      Here("cat ../../etc/shadow 2>&1 || true").size() - 17);
  EXPECT_EQ(Here("grep -c 'box/fs' ../../../../.host/audit || true"), "0");
  EXPECT_EQ(Here("cat ../../../error"), "");
  EXPECT_NE(Here("cat ../../proc/version").find("Linux"), std::string::npos);
  EXPECT_GT(Here("ls -l ../../usr/bin | wc -l"), "3");

  // As editors do, and as they leave it in the guest.
  EXPECT_EQ(
      Here("echo hello > a; echo more >> a; sed -i s/hello/bye/ a; cat a"),
      "bye\nmore");
  EXPECT_EQ(In("box", "cat a; stat -c '%U %a' a"), "bye\nmore\njoe 644");
  EXPECT_EQ(
      Here("mv a b; chmod 600 b; touch -d @1000000000 b; truncate -s 4 b; "
           "ln b c; rm b; stat -c '%a %s' c; cat c; echo x >> c"),
      "600 4\nbye");
  EXPECT_EQ(In("box",
               "cat c; test ! -e b && touch -d @1000000000 c; echo new > c"
               "; cat c"),
            "bye\nx\nnew");
  std::this_thread::sleep_for(300ms);
  EXPECT_EQ(Here("cat c"), "new");
  // Absolute links lead to the guest's own.
  EXPECT_EQ(Here("ln -s /etc/hostname link; readlink link; cat link"),
            "../../etc/hostname\nlima-box");
  EXPECT_EQ(In("box", "readlink link"), "/etc/hostname");
  EXPECT_EQ(Here("ln -s ../../../../../../etc/hostname out; cat out"),
            "lima-box");
  EXPECT_EQ(Here("mkdir d; rmdir d; mkdir -p e/f; rmdir e 2> /dev/null || "
                 "rm -r e; ls -A e 2> /dev/null || echo gone"),
            "gone");
  EXPECT_EQ(Here("df -k --output=size . | tail -1"),
            In("box", "df -k --output=size . | tail -1"));
  EXPECT_EQ(Here("mkfifo p 2> /dev/null || echo refused"), "refused");
}

TEST_F(FilesTest, ManyAndLargeOnesComeThroughWhole) {
  Start();
  Here("head -c 20M /dev/urandom > $host/big; cp $host/big big");
  EXPECT_EQ(In("box", "sha256sum < big"), Here("sha256sum < $host/big"));
  Here("cmp big $host/big");
  Here("cat big > /dev/null");
  // In odd pieces, and mapped.
  EXPECT_EQ(Here("dd if=big bs=77777 skip=100 count=20 status=none | md5sum"),
            Here("dd if=$host/big bs=77777 skip=100 count=20 status=none "
                 "| md5sum"));
  {
    const UniqueFd fd(open((Home() / "big").c_str(), O_RDONLY));
    void* const at = mmap(nullptr, 1 << 20, PROT_READ, MAP_SHARED, fd.Get(), 0);
    ASSERT_NE(at, MAP_FAILED);
    std::string head(1 << 20, '\0');
    const UniqueFd source(open((host_ / "big").c_str(), O_RDONLY));
    ASSERT_EQ(pread(source.Get(), head.data(), head.size(), 0),
              static_cast<ssize_t>(head.size()));
    EXPECT_EQ(memcmp(at, head.data(), head.size()), 0);
    munmap(at, 1 << 20);
  }
  Here("rm big");
  Here(
      "cp -r ../../etc/apt $host/apt; cp -r $host/apt .; diff -r $host/apt "
      "apt; "
      "rsync -a apt/ copy/; diff -r apt copy; echo x > copy/new; "
      "rsync -a --delete apt/ copy/; diff -r apt copy; rm -r apt copy");
  EXPECT_EQ(Here("git init -q repo; cd repo; git config user.name me; "
                 "git config user.email me@example.org; echo x > f; git add f; "
                 "git commit -qm one; git status --short; git log --format=%s; "
                 "git fsck --strict 2>&1; cd ..; rm -rf repo"),
            "one");
  In("box", "mkdir many; cd many; seq 1500 | xargs touch");
  EXPECT_EQ(Here("ls -f many | wc -l; find many -type f | wc -l"),
            "1502\n1500");
}

TEST_F(FilesTest, WhatIsOpenOutlivesTheDaemonAndNotTheGuest) {
  Start();
  Here("echo one > a; mkdir dir; echo in > dir/b");
  const UniqueFd file(open((Home() / "a").c_str(), O_RDWR));
  const UniqueFd dir(open((Home() / "dir").c_str(), O_PATH));
  ASSERT_TRUE(file.Valid() && dir.Valid());
  EXPECT_EQ(ReadFrom(file.Get()), "one\n");
  const auto goes_on = [&](const char* text) {
    EXPECT_EQ(pwrite(file.Get(), text, 3, 0), 3) << errno;
    EXPECT_EQ(In("box", "cat a"), text);
    EXPECT_EQ(ReadFrom(file.Get()), std::string(text) + '\n');
    const UniqueFd in(openat(dir.Get(), "b", O_RDONLY));
    EXPECT_TRUE(in.Valid()) << errno;
    EXPECT_EQ(ReadFrom(in.Get()), "in\n");
  };
  mount_->ExpectLoggedErrors();
  pid_t server = mount_->Server();
  mount_->KillServer();
  goes_on("two");
  EXPECT_TRUE(Eventually(
      [&] { return mount_->Server() > 0 && mount_->Server() != server; }));
  server = mount_->Server();
  ASSERT_EQ(kill(mount_->Pid(), SIGUSR2), 0);
  EXPECT_TRUE(Eventually(
      [&] { return mount_->Server() > 0 && mount_->Server() != server; }));
  goes_on("six");
  // Another daemon in the middle of a write: as if there had been one.
  Here("(sleep 0.4; kill -9 $(pgrep -P " + std::to_string(mount_->Pid()) +
       ")) & head -c 8M /dev/urandom > $host/some; cp $host/some some; "
       "wait; cmp some $host/some");

  Do("box/status", "pause");
  EXPECT_EQ(Call([&] { return open((Fs() / "etc").c_str(), O_RDONLY); }).error,
            EHOSTDOWN);
  Do("box/status", "resume");
  EXPECT_EQ(Here("cat dir/b"), "in");
  Do("box/status", "kill");
  char byte;
  EXPECT_EQ(pread(file.Get(), &byte, 1, 0), -1);
  // What is on its disk is there all the same.
  EXPECT_EQ(ReadLine(Fs() / "etc/hostname"), "lima-box");
}

// Without anybody's help: what a guest did, by comparing two states of its
// disk. Its last words before it was killed are in the journal.
TEST_F(FilesTest, OfSnapshotsTellWhatAGuestDid) {
  Make("box", kWarmConfig);
  const auto here = [&](const std::string& script) {
    const Stopwatch watch;
    const Ended ended = RunProgram(
        {"bash", "-c",
         fmt::format("set -o pipefail; cd {}/box; {}", Dir().string(), script)},
        300s);
    fmt::print("{:.1f} s: {}\n", watch.Seconds(), script);
    return std::string(Trim(ended.out + ended.err));
  };
  // Its image's, before it ever ran.
  EXPECT_EQ(here("grep ^ID= fs/etc/os-release; readlink fs/bin"),
            "ID=debian\nusr/bin");
  EXPECT_EQ(here("test -r fs/etc/shadow && echo may"), "may");
  EXPECT_EQ(here("touch fs/new 2>&1 | grep -c 'Read-only\\|denied'"), "1");
  Do("box/status", "start");
  EXPECT_EQ(here("mkdir snapshots/a"), "");
  In("box",
     "mkdir work; cd work; seq 3000 > numbers; ln -s numbers link; "
     "mkfifo pipe; sync");
  EXPECT_EQ(here("mkdir snapshots/b"), "");
  EXPECT_EQ(here("diff -rq --no-dereference snapshots/a/fs/home "
                 "snapshots/b/fs/home | grep work"),
            "Only in snapshots/b/fs/home/joe: work");
  EXPECT_EQ(here("seq 3000 | cmp - snapshots/b/fs/home/joe/work/numbers; "
                 "readlink snapshots/b/fs/home/joe/work/link"),
            "numbers");
  EXPECT_EQ(here("diff -rq --no-dereference snapshots/a/fs/etc "
                 "snapshots/b/fs/etc"),
            "");
  // All of it, of which a pipe is the only thing that is not read.
  EXPECT_EQ(here("tar -cf - -C snapshots/b/fs . 2>&1 > /dev/null | "
                 "grep -v 'socket ignored'"),
            "");
  In("box", "echo last > work/words; sync work/words");
  Do("box/status", "kill");
  EXPECT_EQ(here("cat fs/home/joe/work/words"), "last");
  EXPECT_EQ(here("cat snapshots/b/fs/home/joe/work/words 2>&1 | "
                 "grep -c 'No such'"),
            "1");
  EXPECT_EQ(here("cat error"), "");
}

}  // namespace
}  // namespace sbxfs
