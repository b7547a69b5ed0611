#ifndef SBXFS_FS_MOUNT_POINT_H_
#define SBXFS_FS_MOUNT_POINT_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/util/unique_fd.h"

namespace sbxfs {

// Questions about the directory to mount on, asked before anything is mounted.
// None of them can hang on a mount that does not answer.

// Throws Error(ENODEV) where the kernel offers no FUSE.
void RequireFuse();

// `dir` as the absolute path that the mount table will show. Throws Error when
// it is no directory, or holds an sbxfs mount already, a dead one too.
[[nodiscard]] std::string ResolveMountPoint(const std::string& dir,
                                            std::string_view uri);

// fusermount3 refuses a directory that its user may not write to, but a mount
// point is best read-only, so that nobody fills it while nothing is mounted.
// For as long as an object lives the owner may write to `dir`; a mount made
// meanwhile does not disturb it.
class WritableForMount {
 public:
  explicit WritableForMount(const std::string& dir);
  ~WritableForMount();
  WritableForMount(const WritableForMount&) = delete;
  WritableForMount& operator=(const WritableForMount&) = delete;

 private:
  UniqueFd directory_;
  std::optional<mode_t> mode_;  // to be put back
};

// Takes the mount on `dir` away, though it may be in use. For root by itself,
// else by fusermount3.
void UnmountBusy(const std::string& dir);

// A mount of sbxfs, as the mount table has it.
struct SbxfsMount {
  std::string dir;
  std::string source;        // the URI, or the file of several
  std::optional<uid_t> uid;  // of who mounted it
  bool operator==(const SbxfsMount&) const = default;
};

// Those in the text of /proc/self/mountinfo, in its order, but for those that
// another mount lies on top of.
[[nodiscard]] std::vector<SbxfsMount> SbxfsMounts(std::string_view mountinfo);

// The source of the topmost sbxfs mount on `dir` (absolute), out of the text
// of /proc/self/mountinfo; nullopt when another file system lies on top.
[[nodiscard]] std::optional<std::string> SbxfsMountedOn(
    std::string_view mountinfo, std::string_view dir);

}  // namespace sbxfs

#endif  // SBXFS_FS_MOUNT_POINT_H_
