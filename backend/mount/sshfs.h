#ifndef SBXFS_BACKEND_MOUNT_SSHFS_H_
#define SBXFS_BACKEND_MOUNT_SSHFS_H_

#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/spec.h"

// The words that have a guest mount a directory by reverse sshfs. Pure.

namespace sbxfs {

// A short text for all of a mount but its name.
[[nodiscard]] std::string DigestOf(const MountSpec& mount);

// Begins a script in a guest: what $s precedes is done as root.
inline constexpr char kAsRoot[] = "s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; ";
// A path as /proc/mounts writes it.
[[nodiscard]] std::string Unescape(std::string_view text);

// What the guest's user runs: sshfs, as root, on stdin and stdout. A mount
// left by a connection that broke is in the way, and looks like nothing at all.
[[nodiscard]] std::string GuestCommand(const MountSpec& mount);

struct GuestLogin {
  int port = 0;  // on 127.0.0.1
  std::string user;
  std::string host_key;  // checked, never waved through
  std::string identity_file;
};
// ssh's arguments, its own name first. No configuration has a say in them.
[[nodiscard]] std::vector<std::string> SshWords(const GuestLogin& login,
                                                const std::string& command);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOUNT_SSHFS_H_
