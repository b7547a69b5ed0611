#ifndef SBXFS_BACKEND_UTIL_EXIT_CODE_H_
#define SBXFS_BACKEND_UTIL_EXIT_CODE_H_

namespace sbxfs {

// Exit statuses of sbxfs and mount.sbxfs, as mount(8) documents them.
enum class ExitCode : int {
  kOk = 0,
  kUsage = 1,    // wrong invocation, or no permission
  kSystem = 2,   // out of memory, cannot fork, no /dev/fuse
  kBug = 4,      // an error in sbxfs
  kSignal = 8,   // ended by the user before the mount was there
  kFailure = 32  // the mount failed
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_EXIT_CODE_H_
