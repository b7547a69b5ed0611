#ifndef SBXFS_BACKEND_NETWORK_PLAN_H_
#define SBXFS_BACKEND_NETWORK_PLAN_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

// Networks as Lima's networks.yaml has them. Pure functions.

namespace sbxfs {

// What a network of ours is made from: .host/networks/NAME/config.yaml. IPv4
// in dotted decimals, empty for a bridged one.
struct NetworkPlan {
  std::string mode = "shared";  // or host, user-v2, bridged, routed
  std::string gateway;          // the hypervisor's address in it
  std::string netmask;
  std::string dhcp_end;   // the last address that is given to a guest
  std::string interface;  // bridged: the hypervisor's, a bridge or a card
  bool operator==(const NetworkPlan&) const = default;
};

// Those that need not be made: shared, host, user-v2; nullopt for another name.
[[nodiscard]] std::optional<NetworkPlan> BuiltInNetwork(std::string_view name);
// What `mkdir` makes: a shared network, away from those gateways.
[[nodiscard]] NetworkPlan NewNetwork(std::string_view name,
                                     const std::set<std::string>& gateways);

// What the text leaves out is as `before`, or as the mode has it. Throws
// Error(EINVAL) with line and column for what is no plan.
[[nodiscard]] NetworkPlan ReadNetworkPlan(std::string_view text,
                                          const NetworkPlan& before);
// The text of it.
[[nodiscard]] std::string NetworkText(const NetworkPlan& plan);

// IPv4 in the host's byte order; 0 for what is none.
[[nodiscard]] uint32_t Ipv4Number(const std::string& address);
[[nodiscard]] std::string Ipv4Text(uint32_t number);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_NETWORK_PLAN_H_
