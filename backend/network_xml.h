#ifndef SBXFS_BACKEND_NETWORK_XML_H_
#define SBXFS_BACKEND_NETWORK_XML_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "backend/network_plan.h"

// libvirt networks out of plans, and what their XML says. Pure functions.

namespace sbxfs {

// For virNetworkDefineXML. Its uuid follows from its name, and tells that it
// is ours: libvirt 9.0 keeps no metadata of a network. `is_bridge`: what a
// bridged one's interface is.
[[nodiscard]] std::string NetworkXml(std::string_view name,
                                     const NetworkPlan& plan,
                                     bool is_bridge = true);
[[nodiscard]] std::string NetworkUuid(std::string_view name);

// What a network's XML (from libvirt, written by anyone) says.
struct NetworkFacts {
  std::string name;
  std::string uuid;
  // Of one of others as near as there are words for it.
  NetworkPlan plan;
  std::string first;  // the first address that is given; empty: none is
  std::map<std::string, std::string> hosts;  // MAC addresses to their IPs
  std::map<std::string, std::vector<std::string>> names;  // IPs to DNS names
  // Whether its DNS asks other servers for names that it does not know.
  bool asks_others = false;

  [[nodiscard]] bool Ours() const { return uuid == NetworkUuid(name); }
};
// Throws Error(EIO) for text that is no network.
[[nodiscard]] NetworkFacts ParseNetwork(std::string_view xml);

// The address that a guest's NIC is to have: what it has; else one that
// follows from the MAC, or the next that nobody has. Empty: all are taken.
[[nodiscard]] std::string AddressFor(const NetworkFacts& network,
                                     const std::string& mac);

// For virNetworkUpdate: a guest's lease, and what others call it.
[[nodiscard]] std::string LeaseXml(const std::string& mac,
                                   const std::string& address,
                                   const std::string& sandbox);
[[nodiscard]] std::string NamesXml(const std::string& address,
                                   const std::string& sandbox);

// The MAC address of a sandbox's NIC of that name in the guest.
[[nodiscard]] std::string MacForInterface(std::string_view uuid,
                                          std::string_view interface);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_NETWORK_XML_H_
