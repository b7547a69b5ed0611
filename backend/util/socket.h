#ifndef SBXFS_BACKEND_UTIL_SOCKET_H_
#define SBXFS_BACKEND_UTIL_SOCKET_H_

#include <sys/un.h>

#include <string>
#include <string_view>

namespace sbxfs {

// Blocks until the socket has taken all of it; false when its other end is
// gone, which raises no signal.
[[nodiscard]] bool SendAll(int fd, std::string_view data);

// The address of a socket in the file system. A path of more bytes than it
// holds is cut: who makes one looks before.
[[nodiscard]] sockaddr_un UnixAddress(const std::string& path);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_SOCKET_H_
