#ifndef SBXFS_BACKEND_UTIL_SLIP_H_
#define SBXFS_BACKEND_UTIL_SLIP_H_

#include <filesystem>
#include <string>
#include <string_view>

#include "backend/util/unique_fd.h"

namespace sbxfs {

// The slip of a process that is to outlive the daemon: an empty file, locked
// for whoever inherits the lock, with a log beside it. Whether the process
// lives is whether the lock is held; ReadSlip (mount/server.h) reads what it
// writes there.
class SlipLock {
 public:
  // Throws Error, `what` first; EEXIST when one has the lock.
  SlipLock(const std::filesystem::path& slip, std::string_view what);

  [[nodiscard]] int Lock() const { return lock_.Get(); }
  [[nodiscard]] int Log() const { return log_.Get(); }

 private:
  UniqueFd lock_, log_;
};

// In the process that was given the lock as `lock`: goes on in a child,
// nobody's child once this one has written it into the slip and ended. Throws
// Error, `what` first.
void GoOnInSlip(int lock, const std::string& digest, std::string_view what);

// The last line of a slip's log, of 300 bytes at most; empty for none.
[[nodiscard]] std::string LastLogLine(const std::filesystem::path& slip);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_SLIP_H_
