#ifndef SBXFS_TESTS_SUPPORT_MOUNTED_H_
#define SBXFS_TESTS_SUPPORT_MOUNTED_H_

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <string>

#include "tests/support/guest_mount.h"

namespace sbxfs {

// A real mount of test:///default by build/bin/sbxfs in the foreground, for one
// test. Not below /tmp, where vim hides what it does to files.
class Mounted : public testing::Test {
 protected:
  void SetUp() override;
  // Unmounts; the daemon must end with status 0 and have logged no error.
  void TearDown() override;

  // bash, in the mount, with errors in English.
  [[nodiscard]] Ended Sh(const std::string& script) const;
  // Its output, when it must succeed.
  std::string Do(const std::string& script) const;
  // The same for the daemon's end, when a test ends it itself.
  void ExpectEnd();

  [[nodiscard]] virtual std::string Options() const { return "loglevel=info"; }
  [[nodiscard]] const std::filesystem::path& Dir() const { return dir_; }
  [[nodiscard]] pid_t Daemon() const { return pid_; }
  [[nodiscard]] bool IsMounted() const;

 private:
  std::filesystem::path base_;
  std::filesystem::path dir_;
  pid_t pid_ = -1;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_MOUNTED_H_
