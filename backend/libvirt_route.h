#ifndef SBXFS_BACKEND_LIBVIRT_ROUTE_H_
#define SBXFS_BACKEND_LIBVIRT_ROUTE_H_

#include <string>
#include <vector>

#include "backend/libvirt_uri.h"

namespace sbxfs {

struct RouteOptions {
  std::string ssh_config;     // a file for ssh -F; empty: ssh's own
  bool insecure_tcp = false;  // plain tcp is allowed
  std::string directory;      // of this user's data, where programs may lie
};

// How a URI is reached just now.
struct Route {
  std::string given;  // the URI as people wrote it; empty: libvirt's default
  LibvirtUri uri;     // what libvirt is given
  // The ssh that leads to the hypervisor, its host as the last word; empty for
  // other transports.
  std::vector<std::string> ssh;
  std::string explanation;  // .host/uri.explain
  std::string warning;      // a line of .host/connection; or empty
};

// What `uri` means to libvirt, and to us: lima+ssh://INSTANCE is the ssh of
// that instance of Lima. Hosts, ports, users and keys that a configuration of
// ssh gives are looked up anew. Blocks for an `ssh -G`. Throws Error with the
// cause and what to do for a URI that cannot be used.
[[nodiscard]] Route FindRoute(const std::string& uri,
                              const RouteOptions& options);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_ROUTE_H_
