#ifndef SBXFS_BACKEND_FORWARDS_H_
#define SBXFS_BACKEND_FORWARDS_H_

#include <compare>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/spec.h"

namespace sbxfs {

// A port of the host that QEMU's user-mode network leads into the guest.
struct Forward {
  bool udp = false;
  std::string host_ip = "127.0.0.1";  // IPv4
  int host_port = 0;
  int guest_port = 0;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it.
  auto operator<=>(const Forward&) const = default;
};

// The one that ssh goes through.
[[nodiscard]] Forward SshForward(int host_port);
// What QEMU's network does not reach, and an ssh of ours carries: a socket, an
// address of the guest's own, IPv6 on the host.
struct Tunnel {
  bool reverse = false;  // the guest's side listens
  // A path, or ADDRESS:PORT; IPv6 in brackets.
  std::string host;
  std::string guest;
  // The host's side is our proxy, which allows these (egress/rules.h).
  std::vector<std::string> egress = {};
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it.
  auto operator<=>(const Tunnel&) const = default;
};
[[nodiscard]] bool IsSocket(std::string_view side);
// ssh's words for it: "-L", "HOST:GUEST".
[[nodiscard]] std::vector<std::string> SshWords(const Tunnel& tunnel);

// QEMU's way to say it: "tcp:127.0.0.1:8080-:3000".
[[nodiscard]] std::string FormatHostfwd(const Forward& forward);
[[nodiscard]] std::optional<Forward> ParseHostfwd(std::string_view text);
// "127.0.0.1:8080", with "/udp" behind it for one: for sentences.
[[nodiscard]] std::string HostSide(const Forward& forward);
// Whether both cannot listen at once.
[[nodiscard]] bool Collide(const Forward& a, const Forward& b);

// The forwards in what the monitor answers to `info usernet`, of that netdev.
[[nodiscard]] std::vector<Forward> ParseUsernet(std::string_view text,
                                                std::string_view netdev);

// How many TCP connections, to the guest and from it, the same text has.
[[nodiscard]] int CountConnections(std::string_view text,
                                   std::string_view netdev);

// More listening sockets than this make a QEMU run into its limit of open
// files; each is opened whether anything in the guest listens or not.
inline constexpr int kMostForwards = 512;

// What a spec's portForwards come to, and ssh's own: for each guest port the
// first rule that fits decides, as in Lima. Rules for every port there is
// (1-65535, as in Lima's fallback) open none. Both sorted. Throws
// Error(EINVAL).
[[nodiscard]] std::vector<Forward> ForwardsOf(const Spec& spec, int ssh_port);
[[nodiscard]] std::vector<Tunnel> TunnelsOf(const Spec& spec);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FORWARDS_H_
