#ifndef SBXFS_FS_CONNECT_H_
#define SBXFS_FS_CONNECT_H_

#include <string>

namespace sbxfs {

// `sbxfs --connect DIR/NAME`, ssh's ProxyCommand: starts the sandbox unless it
// runs, waits until it is ready, and passes standard input and output on to
// the ssh port that is current. Returns the exit status: 255, as ssh's own
// failures, with a sentence on standard error.
[[nodiscard]] int Connect(const std::string& sandbox_dir);

}  // namespace sbxfs

#endif  // SBXFS_FS_CONNECT_H_
