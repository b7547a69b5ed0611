#ifndef SBXFS_BACKEND_MOUNT_SERVER_H_
#define SBXFS_BACKEND_MOUNT_SERVER_H_

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/mount/location.h"
#include "backend/mount/sftp.h"
#include "backend/util/unique_fd.h"

// A process for each directory that a guest has by reverse sshfs: it starts
// the ssh that runs sshfs in the guest, gives up all rights but its user's, and
// answers what sshfs asks. It outlives the daemon, and ends with the
// connection. While it lives it holds the lock of its slip, a file in the
// sandbox's run directory, which is how any daemon finds it.

namespace sbxfs {

// The name the process goes by; as argv[0] it makes main() call ServeMount.
inline constexpr char kMountServer[] = "sbxfs-mount";

struct MountServer {
  std::string label;   // for people who look at ps
  std::string digest;  // of all that matters: another one is another mount
  UniqueFd root;       // from OpenLocation
  bool writable = false;
  Rights rights;
  uid_t guest_uid = 0;
  gid_t guest_gid = 0;
  std::vector<std::string> ssh;  // the command that runs sshfs in the guest
};

// What stands in a slip whose lock is held.
struct MountSlip {
  pid_t pid = 0;
  std::string digest;
};
// The living server of a slip; nothing when there is none.
[[nodiscard]] std::optional<MountSlip> ReadSlip(
    const std::filesystem::path& slip);

// Starts a server; ssh's own words go to `slip`.log. Throws Error; EEXIST
// when there is one already.
void StartMountServer(const std::filesystem::path& slip, MountServer server);
// Ends it and waits. Throws Error when it does not.
void StopMountServer(const std::filesystem::path& slip);

// The names of the slips in `dir` that begin with `prefix`, of dead ones too.
[[nodiscard]] std::vector<std::string> SlipsIn(const std::filesystem::path& dir,
                                               std::string_view prefix);
// StopMountServer for each of them.
void StopServersIn(const std::filesystem::path& dir, std::string_view prefix);

// main() of the process.
int ServeMount(int argc, char** argv);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOUNT_SERVER_H_
