#ifndef SBXFS_FS_PROCESS_H_
#define SBXFS_FS_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

// What /proc tells of a caller. FUSE's pid is a thread's id, and it may be
// gone, or 0 when it lives in a pid namespace we do not see.

namespace sbxfs {

struct Process {
  bool known = false;
  pid_t tgid = 0;             // its process; the thread itself when unknown
  std::uint64_t pending = 0;  // signals that are pending and not blocked
  std::vector<gid_t> groups;
  std::string command;  // its name; 15 bytes at most
};
[[nodiscard]] Process ReadProcess(pid_t tid);

// When the process began, in the kernel's ticks: with its id the name of a
// process for ever. 0 when unknown.
[[nodiscard]] std::uint64_t StartOf(pid_t pid);

// Whether it is being ended by a signal (PF_SIGNALED).
[[nodiscard]] bool IsKilled(pid_t tid);

// Whether what is pending would end a wait: not a window's resize, a child's
// end, urgent data or a continuation. Unknown processes count as ending.
[[nodiscard]] bool WantsOut(const Process& process);

}  // namespace sbxfs

#endif  // SBXFS_FS_PROCESS_H_
