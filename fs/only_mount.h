#ifndef SBXFS_FS_ONLY_MOUNT_H_
#define SBXFS_FS_ONLY_MOUNT_H_

#include <string>

#include "fs/options.h"

namespace sbxfs {

// What a service manager keeps a mount's descriptor as.
inline constexpr char kMountName[] = "sbxfs";

// Mounts at `dir`, absolute, and leaves the serving of it to the next process
// of the unit that this one belongs to. So a daemon without a right to mount
// anything, which may be in a file system namespace of its own, has a mount
// that everybody sees. Nothing is mounted when it throws Error.
void OnlyMount(const Options& options, const std::string& dir);

}  // namespace sbxfs

#endif  // SBXFS_FS_ONLY_MOUNT_H_
