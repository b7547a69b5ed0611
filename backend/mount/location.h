#ifndef SBXFS_BACKEND_MOUNT_LOCATION_H_
#define SBXFS_BACKEND_MOUNT_LOCATION_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "backend/util/unique_fd.h"

namespace sbxfs {

// With whose rights a host directory is reached.
struct Rights {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary ones
  bool operator==(const Rights&) const = default;
};

// Those of a process, which may be a thread's id; nothing but uid and gid when
// /proc does not tell.
[[nodiscard]] Rights RightsOfProcess(pid_t pid, uid_t uid, gid_t gid);
// Those of this one.
[[nodiscard]] Rights OwnRights();
// Those that a login of the user's would have.
[[nodiscard]] Rights RightsOfUser(uid_t uid);

// Opens the directory `location` as `rights` would, for reading alone: a
// thread of its own gives up all others first. Throws Error, whose sentence
// begins with `what`: ENOENT, ENOTDIR, EINVAL (not absolute, or inside an
// sbxfs mount), EACCES (these rights cannot read it, or, with `writable`,
// write it), EPERM (the rights are another user's and we are not root),
// EOPNOTSUPP (this kernel cannot keep a guest inside a directory).
[[nodiscard]] UniqueFd OpenLocation(const std::string& location, bool writable,
                                    const Rights& rights,
                                    std::string_view what);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOUNT_LOCATION_H_
