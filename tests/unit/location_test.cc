#include "backend/mount/location.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class LocationTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/sbxfs-location.XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    top_ = name;
    chmod(name, 0755);
  }
  void TearDown() override { stdfs::remove_all(top_); }

  std::string MakeDir(const std::string& name, mode_t mode, uid_t uid,
                      gid_t gid) {
    const stdfs::path path = top_ / name;
    stdfs::create_directory(path);
    EXPECT_EQ(chown(path.c_str(), uid, gid), 0);
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }
  // The errno and sentence that refuse it; 0 when it is opened.
  static std::pair<int, std::string> Open(const std::string& location,
                                          bool writable, const Rights& rights) {
    try {
      const UniqueFd fd = OpenLocation(location, writable, rights, "Cannot X");
      return {fd.Valid() ? 0 : -1, ""};
    } catch (const Error& error) {
      return {error.Errno(), error.Sentence()};
    }
  }
  static Rights Own() { return {geteuid(), getegid(), {}}; }

  stdfs::path top_;
};

TEST_F(LocationTest, WhatIsNoDirectoryIsRefused) {
  using Refusal = std::pair<int, std::string>;
  const std::string top = top_;
  std::ofstream(top_ / "file") << "x";
  EXPECT_EQ(Open(top, true, Own()), Refusal(0, ""));
  EXPECT_EQ(Open("relative", false, Own()),
            Refusal(EINVAL, "Cannot X: 'relative' is no absolute path"));
  EXPECT_EQ(Open(top + "/none", false, Own()),
            Refusal(ENOENT, "Cannot X: '" + top +
                                "/none' does not exist; mkdir it first"));
  EXPECT_EQ(
      Open(top + "/file", false, Own()),
      Refusal(ENOTDIR, "Cannot X: '" + top +
                           "/file' is no directory; name the one it lies in"));
}

TEST_F(LocationTest, TheRightsAreTheUsers) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const Rights user{4242, 4242, {}};
  const Rights member{4242, 4242, {4300}};
  const std::string roots = MakeDir("roots", 0700, 0, 0);
  EXPECT_EQ(Open(roots, false, user).first, EACCES);
  EXPECT_EQ(Open(roots, true, Own()).first, 0);
  const std::string listed = MakeDir("listed", 0755, 0, 0);
  EXPECT_EQ(Open(listed, false, user).first, 0);
  EXPECT_EQ(Open(listed, true, user).second,
            "Cannot X: '" + listed +
                "' cannot be written with your rights; leave ':w' out to have "
                "it read-only");
  // Readable, but not to be entered, and the other way round.
  EXPECT_EQ(Open(MakeDir("r", 0744, 0, 0), false, user).first, EACCES);
  EXPECT_EQ(Open(MakeDir("x", 0711, 0, 0), false, user).first, EACCES);
  const std::string shared = MakeDir("shared", 0770, 0, 4300);
  EXPECT_EQ(Open(shared, false, user).first, EACCES);
  EXPECT_EQ(Open(shared, true, member).first, 0);
  // Behind a directory that is closed to them.
  stdfs::create_directory(roots + "/inner");
  chmod((roots + "/inner").c_str(), 0777);
  EXPECT_EQ(
      Open(roots + "/inner", false, user).second,
      "Cannot X: '" + roots + "/inner' cannot be reached with your rights");
  // No right stays with the process.
  EXPECT_EQ(geteuid(), 0U);
  EXPECT_EQ(Open(roots, true, Own()).first, 0);
}

TEST_F(LocationTest, AnothersRightsNeedRoot) {
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && setuid(4242) != 0) _exit(9);
    const auto refused = Open("/", false, {geteuid() + 1, 0, {}});
    const auto own = Open("/", false, {geteuid(), getegid(), {}});
    _exit(refused.first == EPERM && own.first == 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(LocationTest, RightsAreReadFromProcesses) {
  const Rights own = RightsOfProcess(getpid(), getuid(), getgid());
  std::vector<gid_t> groups(static_cast<size_t>(getgroups(0, nullptr)));
  ASSERT_EQ(getgroups(static_cast<int>(groups.size()), groups.data()),
            static_cast<int>(groups.size()));
  EXPECT_EQ(own, (Rights{getuid(), getgid(), groups}));
  EXPECT_EQ(RightsOfProcess(0, 7, 8), (Rights{7, 8, {}}));
  EXPECT_EQ(RightsOfUser(0).groups.empty(), false);
  EXPECT_EQ(RightsOfUser(3999999), (Rights{3999999, 3999999, {}}));
}

}  // namespace
}  // namespace sbxfs
