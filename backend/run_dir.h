#ifndef SBXFS_BACKEND_RUN_DIR_H_
#define SBXFS_BACKEND_RUN_DIR_H_

#include <filesystem>
#include <string>

namespace sbxfs {

// A sandbox's directory on this machine, `{{.Dir}}`, for what lives no longer
// than its guest and the machine's uptime: sbxfs/UUID below XDG_RUNTIME_DIR,
// else below /run, /run/user/UID, or the data directory, the first that is the
// user's own.
[[nodiscard]] std::filesystem::path RunDirectory(const std::string& uuid);

// Makes it, 0700, and its parents. Throws Error: mkdir's errno, or EPERM for
// one that is another user's.
std::filesystem::path MakeRunDirectory(const std::string& uuid);

// Takes it away with all that is in it; the servers of mounts and sockets that
// are left are ended first, and one that does not end is logged.
void RemoveRunDirectory(const std::string& uuid);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_RUN_DIR_H_
