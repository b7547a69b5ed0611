#ifndef SBXFS_TESTS_SUPPORT_OWN_SSHD_H_
#define SBXFS_TESTS_SUPPORT_OWN_SSHD_H_

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <string>

#include "backend/guest/ssh_client.h"

namespace sbxfs {

// An sshd of the test's own, which lets this user in by one key, and has the
// files of this machine.
class OwnSshd : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  [[nodiscard]] SshTarget Target() const;
  [[nodiscard]] static std::string MyName();
  // Ends it and who is logged in, or lets them stand still and go on.
  void Signal(int signal) const;

  static constexpr char kSshd[] = "/usr/sbin/sshd";
  std::filesystem::path dir_;
  std::string sftp_ = "internal-sftp";  // what serves files, before SetUp
  KeyPair host_key_, identity_;
  int port_ = 0;
  pid_t sshd_ = 0;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_OWN_SSHD_H_
