#ifndef SBXFS_FS_MOUNT_POINT_H_
#define SBXFS_FS_MOUNT_POINT_H_

#include <optional>
#include <string>
#include <string_view>

namespace sbxfs {

// Questions about the directory to mount on, asked before anything is mounted.
// None of them can hang on a mount that does not answer.

// `dir` as the absolute path that the mount table will show. Throws Error when
// it is no directory, or holds an sbxfs mount already, a dead one too.
[[nodiscard]] std::string ResolveMountPoint(const std::string& dir,
                                            std::string_view uri);

// The source of the topmost sbxfs mount on `dir` (absolute), out of the text
// of /proc/self/mountinfo; nullopt when another file system lies on top.
[[nodiscard]] std::optional<std::string> SbxfsMountedOn(
    std::string_view mountinfo, std::string_view dir);

}  // namespace sbxfs

#endif  // SBXFS_FS_MOUNT_POINT_H_
