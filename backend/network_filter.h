#ifndef SBXFS_BACKEND_NETWORK_FILTER_H_
#define SBXFS_BACKEND_NETWORK_FILTER_H_

#include <string>
#include <string_view>

#include "backend/network_xml.h"

// What keeps a sandbox with an egress list from having another way out by its
// libvirt networks: an nwfilter on each of its taps. Pure functions.

namespace sbxfs {

// What names of ours begin with; the rest is the network's.
inline constexpr std::string_view kFilter = "sbxfs-egress-";
[[nodiscard]] std::string FilterName(std::string_view network);

// For virNWFilterDefineXML: lets a guest speak IPv4 with those in the network,
// and of the hypervisor's own services with the network's DHCP alone, and its
// DNS where that asks nobody else. It is a matter of Ethernet frames, so that
// what root in the guest sends, whatever that is, is dropped before the
// hypervisor's kernel looks at it. Throws Error(EINVAL) for a network without
// addresses of the hypervisor: who is in it, and who is behind, is not known.
[[nodiscard]] std::string FilterXml(const NetworkFacts& network,
                                    std::string_view what);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_NETWORK_FILTER_H_
