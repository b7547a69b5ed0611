#ifndef SBXFS_BACKEND_UTIL_SOCKET_H_
#define SBXFS_BACKEND_UTIL_SOCKET_H_

#include <netinet/in.h>
#include <sys/un.h>

#include <optional>
#include <string>
#include <string_view>

namespace sbxfs {

// Blocks until the socket has taken all of it; false when its other end is
// gone, which raises no signal.
[[nodiscard]] bool SendAll(int fd, std::string_view data);

// The address of a socket in the file system. A path of more bytes than it
// holds is cut: who makes one looks before.
[[nodiscard]] sockaddr_un UnixAddress(const std::string& path);

inline constexpr char kLoopback[] = "127.0.0.1";
// That of a port; none where `ip` is not four numbers.
[[nodiscard]] std::optional<sockaddr_in> Ipv4Address(const std::string& ip,
                                                     int port);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_SOCKET_H_
