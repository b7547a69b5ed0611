#ifndef SBXFS_FS_DAEMON_H_
#define SBXFS_FS_DAEMON_H_

#include <string_view>

#include "backend/util/exit_code.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

// How a daemon starts: the process that was started waits in the foreground
// until the one that will serve the mount says how it went, and ends with its
// exit status. For one thread, before any other is started.
class StartUp {
 public:
  // Returns in the serving process alone, which is a child unless
  // `foreground`. The parent passes SIGINT, SIGTERM and SIGHUP on, prints the
  // sentence of a failure on stderr and never returns.
  //
  // The child keeps the caller's session, directory and streams until Ready,
  // so that ssh can ask for a password and relative paths hold.
  // Throws Error with EAGAIN or the like when there can be no child.
  [[nodiscard]] static StartUp Fork(bool foreground);

  // The mount answers: leaves the caller's session, directory and streams and
  // lets the parent exit 0. Does nothing in the foreground, nor a second time.
  // Throws Error(EPIPE) when the parent is gone, and with it whoever wanted
  // the mount.
  void Ready();

  // It failed: prints `sentence`, by way of the parent if there is one, and
  // returns main's exit status. After Ready it is logged instead.
  int Fail(ExitCode status, std::string_view sentence);

  // One that nobody waits for.
  StartUp() = default;

 private:
  UniqueFd to_parent_;  // none in the foreground and after the verdict
  bool ready_ = false;
};

// Gives up the caller's streams. Throws Error.
void LeaveStreams();

}  // namespace sbxfs

#endif  // SBXFS_FS_DAEMON_H_
