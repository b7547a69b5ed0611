#ifndef SBXFS_BACKEND_EGRESS_PROXY_H_
#define SBXFS_BACKEND_EGRESS_PROXY_H_

#include <string>
#include <vector>

#include "backend/egress/rules.h"
#include "backend/util/unique_fd.h"

// The way out of a guest that has no other: an HTTP proxy on this machine,
// which the guest has as a port of its own loopback, by an ssh's reverse
// forwarding. It allows what `egress` of config.yaml names, whatever root in
// the guest does. A process of its own, as the servers of mounts are: with the
// rights of the sandbox's owner, there without the daemon, and ended with its
// ssh and so with the guest.

namespace sbxfs {

// The name of the process, and how main knows that it is to be one.
inline constexpr char kEgressProxy[] = "sbxfs-egress";
// Where a guest has it.
inline constexpr char kEgressInGuest[] = "127.0.0.1:3128";

// Answers one client's request and carries what follows, until both sides have
// ended. Returns what a log may say of it. Blocks.
std::string ServeEgress(UniqueFd client, const std::vector<EgressRule>& rules);

// Starts the process: it listens on the socket `path`, runs `ssh` and holds the
// lock of `slip`, as StartTunnelProcess has it. `rules` are texts for
// ParseEgressRule. Throws Error.
void StartEgressProxy(const std::string& slip, const std::string& digest,
                      const std::string& path,
                      const std::vector<std::string>& rules,
                      const std::vector<std::string>& ssh);
// That process.
int RunEgressProxy(int argc, char** argv);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_EGRESS_PROXY_H_
