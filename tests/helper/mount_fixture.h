#ifndef SBXFS_TESTS_HELPER_MOUNT_FIXTURE_H_
#define SBXFS_TESTS_HELPER_MOUNT_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace sbxfs {

// How a program ended, and what it said.
struct Ran {
  int status = -1;  // exit status; minus the signal that ended it
  std::string out;
  std::string err;
};

// The real mount(8) with our helper in /sbin, our fstab and our users, all in a
// mount namespace of the test program's own: nothing of it is seen outside.
class MountTest : public testing::Test {
 protected:
  static constexpr uid_t kUser = 61234;  // "sbxfstest", with a home

  static constexpr const char* kDaemon = SBXFS_DAEMON;

  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  void TearDown() override;

  // Runs a program, without a shell, as root or as a user, for 60 s at most.
  static Ran Run(const std::vector<std::string>& command, uid_t uid = 0);
  static Ran Mount(std::vector<std::string> words, uid_t uid = 0);
  static Ran Umount(const std::string& dir, uid_t uid = 0);

  static void WriteFstab(const std::string& text);

  // The lines of the mount table for the directory.
  [[nodiscard]] static std::vector<std::string> MountsOn(
      const std::string& dir);
  // The processes that hold the mounts of this test, by their command line.
  [[nodiscard]] static std::vector<pid_t> Daemons();
  // Whether they are all gone, within a few seconds.
  [[nodiscard]] static bool DaemonsEnd();

  static std::filesystem::path root_;  // all that the tests make
  std::string dir_;                    // made for the test, kUser's own
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_HELPER_MOUNT_FIXTURE_H_
