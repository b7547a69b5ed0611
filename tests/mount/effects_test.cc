#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <vector>

#include "tests/support/mounted.h"

// What calls that succeed do to owners, modes, times, links and numbers, and
// what the kernel makes of a tree behind FUSE. tests/manners has the whole
// list.

namespace sbxfs {
namespace {

using testing::HasSubstr;

class Effects : public Mounted {
 protected:
  std::string Options() const override { return "loglevel=info,allow_other"; }
  std::string Path(const std::string& name) const { return Dir() / name; }
  struct stat StatOf(const std::string& name) const {
    struct stat stat {};
    EXPECT_EQ(lstat(Path(name).c_str(), &stat), 0) << name;
    return stat;
  }
};

bool operator<(const timespec& a, const timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

TEST_F(Effects, WhatIsMadeIsTheMakersLessTheUmask) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to be somebody else";
  std::filesystem::permissions(Dir().parent_path(),
                               std::filesystem::perms(0755));
  Do("umask 0; python3 -c 'import os; os.mkdir(\"open\", 0o777)'");
  EXPECT_EQ(StatOf("open").st_mode, S_IFDIR | 0700u);
  Do("umask 0277; setpriv --reuid 61235 --regid 61236 --clear-groups "
     "mkdir theirs");
  EXPECT_EQ(StatOf("theirs").st_mode, S_IFDIR | 0500u);
  EXPECT_EQ(StatOf("theirs").st_uid, 61235u);
  EXPECT_EQ(StatOf("theirs").st_gid, 61236u);
  EXPECT_EQ(StatOf("theirs/cpus").st_uid, 61235u);
  // There is nothing to execute here, for whoever it may be.
  ASSERT_EQ(chmod(Path("open").c_str(), 07755), 0);
  EXPECT_EQ(StatOf("open").st_mode, S_IFDIR | 0755u);
  // -1 leaves it.
  ASSERT_EQ(chown(Path("open").c_str(), static_cast<uid_t>(-1), 61236), 0);
  EXPECT_EQ(StatOf("open").st_uid, 0u);
  EXPECT_EQ(StatOf("open").st_gid, 61236u);
}

TEST_F(Effects, LinksCountTheDirectories) {
  const nlink_t none = StatOf("").st_nlink;
  EXPECT_EQ(none, 3u);  // dot, its own name, and .host
  Do("mkdir box two");
  EXPECT_EQ(StatOf("").st_nlink, none + 2);
  for (const char* dir : {"", "box", ".host"}) {
    EXPECT_EQ(Do("find ./" + std::string(dir) +
                 " -mindepth 1 -maxdepth 1 -type d | wc -l"),
              std::to_string(StatOf(dir).st_nlink - 2) + "\n")
        << dir;
  }
  const ino_t number = StatOf("box").st_ino;
  Do("mv box case");
  EXPECT_EQ(StatOf("case").st_ino, number);
  EXPECT_EQ(StatOf("").st_nlink, none + 2);
  const nlink_t trash = StatOf(".host/trash").st_nlink;
  Do("rmdir case");
  EXPECT_EQ(StatOf("").st_nlink, none + 1);
  EXPECT_EQ(StatOf(".host/trash").st_nlink, trash + 1);
  EXPECT_EQ(StatOf("two/cpus").st_nlink, 1u);
}

TEST_F(Effects, TimesAreTheTreesOwn) {
  Do("mkdir box; echo 'cpus: 3' > box/config.yaml");
  const timespec stored = StatOf("box/config.yaml").st_mtim;
  // touch(1) succeeds, and says nothing of when a text was accepted.
  Do("touch -d 2001-01-01 box box/config.yaml");
  EXPECT_FALSE(StatOf("box/config.yaml").st_mtim < stored);
  EXPECT_FALSE(stored < StatOf("box/config.yaml").st_mtim);
  EXPECT_NE(Sh("echo 'cpsu: 3' > ../bad; cp ../bad box/config.yaml").status, 0);
  EXPECT_FALSE(stored < StatOf("box/config.yaml").st_mtim);
  Do("echo 'cpus: 4' > box/config.yaml");
  EXPECT_TRUE(stored < StatOf("box/config.yaml").st_mtim);
  const timespec root = StatOf("").st_mtim;
  Do("mkdir two");
  EXPECT_TRUE(root < StatOf("").st_mtim);
}

TEST_F(Effects, WhatIsOpenOutlivesItsName) {
  Do("mkdir box; echo text > box/.cpus.swp");
  const UniqueFd scratch(open(Path("box/.cpus.swp").c_str(), O_RDWR));
  ASSERT_EQ(unlink(Path("box/.cpus.swp").c_str()), 0);
  EXPECT_EQ(pwrite(scratch.Get(), "T", 1, 0), 1);
  char buffer[16];
  EXPECT_EQ(pread(scratch.Get(), buffer, sizeof(buffer), 0), 5);
  EXPECT_EQ(std::string(buffer, 5), "Text\n");
  const UniqueFd cpus(open(Path("box/cpus").c_str(), O_RDONLY));
  EXPECT_EQ(read(cpus.Get(), buffer, 1), 1);
  Do("rmdir box; rmdir .host/trash/box");
  EXPECT_EQ(read(cpus.Get(), buffer, sizeof(buffer)), 1);
  // Another of that name is another.
  Do("mkdir box; echo 3 > box/cpus");
  const ssize_t got = pread(cpus.Get(), buffer, sizeof(buffer), 0);
  EXPECT_NE(std::string(buffer, static_cast<size_t>(std::max<ssize_t>(got, 0))),
            "3\n");
}

TEST_F(Effects, WhatThereIsNotIsNotSupportedRatherThanUnknown) {
  Do("mkdir box");
  const std::string config = Path("box/config.yaml");
  const UniqueFd fd(open(config.c_str(), O_RDWR));
  char buffer[64];
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Call([&] {
                return static_cast<int>(
                    getxattr(config.c_str(), "user.x", buffer, sizeof(buffer)));
              }).error,
              EOPNOTSUPP);
    EXPECT_EQ(Call([&] {
                return setxattr(config.c_str(), "user.x", "y", 1, 0);
              }).error,
              EOPNOTSUPP);
    EXPECT_EQ(Call([&] { return fallocate(fd.Get(), 0, 0, 10); }).error,
              EOPNOTSUPP);
    int flags = 0;
    EXPECT_EQ(
        Call([&] { return ioctl(fd.Get(), _IOR('f', 1, long), &flags); }).error,
        ENOTTY);
    EXPECT_EQ(Call([&] { return fsync(fd.Get()); }).error, 0);
    const UniqueFd dir(open(Path("box").c_str(), O_RDONLY | O_DIRECTORY));
    EXPECT_EQ(Call([&] { return fsync(dir.Get()); }).error, 0);
    EXPECT_EQ(Call([&] { return syncfs(dir.Get()); }).error, 0);
  }
}

TEST_F(Effects, LocksHoldWithinTheMachine) {
  Do("mkdir box");
  EXPECT_EQ(Do("exec 3< box/cpus; flock -x 3; "
               "flock -n -x box/cpus -c true && echo both || echo one"),
            "one\n");
  const UniqueFd held(open(Path("box/cpus").c_str(), O_RDWR | O_CLOEXEC));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  ASSERT_EQ(fcntl(held.Get(), F_SETLK, &lock), 0);
  const pid_t other = fork();
  if (other == 0) {
    const UniqueFd mine(open(Path("box/cpus").c_str(), O_RDWR | O_CLOEXEC));
    _exit(fcntl(mine.Get(), F_SETLK, &lock) == 0 ? 0 : errno);
  }
  int status = 0;
  waitpid(other, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), EAGAIN);
}

TEST_F(Effects, TwoLinesOfAShellAreTwoCommands) {
  Do("mkdir box");
  Do("printf '3\\n4\\n' > box/cpus");
  EXPECT_EQ(Do("cat box/cpus"), "4\n");
  EXPECT_THAT(Sh("printf '5\\nx\\n' > box/cpus").err,
              HasSubstr("Invalid argument"));
  EXPECT_EQ(Do("cat box/cpus"), "5\n");
  EXPECT_THAT(Sh("printf '6\\n7\\n' > ../two; cat ../two > box/cpus").err,
              HasSubstr("Invalid argument"));
  EXPECT_EQ(Do("cat box/cpus; cat < box/cpus | wc -c"), "5\n2\n");
}

// libfuse's pool has ten threads.
TEST_F(Effects, ManyWhoWaitHoldNobodyUp) {
  Do("for i in $(seq 16); do mkdir box$i; done");
  std::vector<Writer> writers;
  for (int i = 1; i <= 16; ++i) {
    writers.emplace_back(Path("box" + std::to_string(i) + "/status"),
                         "wait running\n");
  }
  for (const auto& writer : writers) {
    ASSERT_TRUE(Eventually([&] { return writer.Waits(); }));
  }
  EXPECT_EQ(Do("ls | wc -l; cat box1/status; mkdir more; rmdir more"),
            "16\nstopped\n");
  Do("for i in $(seq 16); do echo start > box$i/status; done");
  for (auto& writer : writers) EXPECT_EQ(writer.Ended()->error, 0);
}

}  // namespace
}  // namespace sbxfs
