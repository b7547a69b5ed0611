#ifndef SBXFS_TESTS_SUPPORT_SESSION_USER_H_
#define SBXFS_TESTS_SUPPORT_SESSION_USER_H_

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>

#include "tests/support/guest_mount.h"

namespace sbxfs {

// A user without rights who has sbxfs, a place for a mount, `tree`, and a
// libvirt of its own, with nothing set up for it.
class SessionUser {
 public:
  // Makes its home, a directory of that name in the tests' own.
  SessionUser(uid_t uid, const std::string& name);
  // Ends what is that user's, and removes the home.
  ~SessionUser();
  SessionUser(const SessionUser&) = delete;
  SessionUser& operator=(const SessionUser&) = delete;

  [[nodiscard]] const std::filesystem::path& Home() const { return home_; }
  // A directory of that user's in its home, closed to others.
  std::filesystem::path MakeDirectory(const std::string& name) const;
  // A script of that user's, in its home.
  [[nodiscard]] Ended Sh(
      const std::string& script,
      std::chrono::seconds limit = std::chrono::seconds(60)) const;
  // What it says when it succeeds; `told`: a script for a failure's message.
  [[nodiscard]] std::string Said(
      const std::string& script,
      std::chrono::seconds limit = std::chrono::seconds(60),
      const std::string& told = ":") const;
  [[nodiscard]] std::string Processes() const;

 private:
  const std::string uid_;
  const std::filesystem::path home_;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_SESSION_USER_H_
