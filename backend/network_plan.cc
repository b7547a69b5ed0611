#include "backend/network_plan.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <bit>

#include "backend/spec/value.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr char kNetmask[] = "255.255.255.0";
constexpr std::string_view kModes[] = {"shared", "host", "bridged", "user-v2",
                                       "routed"};

// What the text says, with the places of it.
struct Written {
  std::optional<std::string> mode, gateway, netmask, dhcp_end, interface;
};

std::string ReadAddress(const Value& value) {
  constexpr char kAllowed[] = "an IPv4 address, as in '192.168.105.1'";
  std::string address = value.Text(kAllowed);
  if (Ipv4Number(address) == 0) throw value.Wrong(kAllowed);
  return address;
}

constexpr Key<Written> kPlanKeys[] = {
    {"mode", ValueType::kText,
     [](const Value& v, Written& w) { w.mode = v.OneOf(kModes); }},
    {"gateway", ValueType::kText,
     [](const Value& v, Written& w) { w.gateway = ReadAddress(v); }},
    {"netmask", ValueType::kText,
     [](const Value& v, Written& w) {
       w.netmask = ReadAddress(v);
       const uint32_t mask = Ipv4Number(*w.netmask);
       const int ones = std::popcount(mask);
       if (std::countl_one(mask) != ones || ones < 8 || ones > 29) {
         throw v.Wrong("a netmask from 255.0.0.0 to 255.255.255.248");
       }
     }},
    {"dhcpEnd", ValueType::kText,
     [](const Value& v, Written& w) { w.dhcp_end = ReadAddress(v); }},
    {"interface", ValueType::kText,
     [](const Value& v, Written& w) {
       constexpr char kAllowed[] =
           "an interface of the hypervisor, as in 'br0'";
       w.interface = v.Text(kAllowed);
       if (w.interface->empty() || w.interface->size() > 15 ||
           !Consists(*w.interface, "._-")) {
         throw v.Wrong(kAllowed);
       }
     }},
};

// The last address of its network that a guest can have.
std::string LastOf(const std::string& gateway, const std::string& netmask) {
  return Ipv4Text((Ipv4Number(gateway) | ~Ipv4Number(netmask)) - 1);
}

NetworkPlan PlanOf(std::string_view mode, unsigned subnet) {
  const std::string gateway = fmt::format("192.168.{}.1", subnet);
  return {std::string(mode), gateway, kNetmask, LastOf(gateway, kNetmask), ""};
}

[[noreturn]] void Refuse(const YamlNode& document, std::string_view key,
                         std::string_view reason) {
  const YamlNode* node = document.Find(key);
  throw YamlError(node == nullptr ? document : *node,
                  fmt::format("{} {}", key, reason));
}

void CheckAddresses(const YamlNode& document, const NetworkPlan& plan) {
  const uint32_t gateway = Ipv4Number(plan.gateway);
  const uint32_t mask = Ipv4Number(plan.netmask);
  const uint32_t end = Ipv4Number(plan.dhcp_end);
  const auto is_end = [&](uint32_t address) {
    return (address & ~mask) == 0 || (address & ~mask) == ~mask;
  };
  if (is_end(gateway)) {
    Refuse(document, "gateway",
           fmt::format("is '{}', which with the netmask {} is the network's "
                       "own first or last address; take one between",
                       plan.gateway, plan.netmask));
  }
  if ((end & mask) != (gateway & mask) || is_end(end) || end <= gateway) {
    Refuse(document, "dhcpEnd",
           fmt::format("is '{}'; it must be an address behind the gateway {}, "
                       "up to {}",
                       plan.dhcp_end, plan.gateway,
                       LastOf(plan.gateway, plan.netmask)));
  }
}

}  // namespace

uint32_t Ipv4Number(const std::string& address) {
  in_addr parsed{};
  if (address.find('\0') != std::string::npos) return 0;
  if (inet_pton(AF_INET, address.c_str(), &parsed) != 1) return 0;
  return ntohl(parsed.s_addr);
}

std::string Ipv4Text(uint32_t number) {
  in_addr address{htonl(number)};
  char text[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &address, text, sizeof text);
  return text;
}

std::optional<NetworkPlan> BuiltInNetwork(std::string_view name) {
  // Lima's own subnets.
  if (name == "user-v2") return PlanOf(name, 104);
  if (name == "shared") return PlanOf(name, 105);
  if (name == "host") return PlanOf(name, 106);
  return std::nullopt;
}

NetworkPlan NewNetwork(std::string_view name,
                       const std::set<std::string>& gateways) {
  if (const auto plan = BuiltInNetwork(name)) return *plan;
  constexpr unsigned kFirst = 107;
  constexpr unsigned kCount = 200 - kFirst;
  for (unsigned i = 0;; ++i) {
    NetworkPlan plan = PlanOf("shared", kFirst + (Hash32(name) + i) % kCount);
    if (i == kCount || gateways.count(plan.gateway) == 0) return plan;
  }
}

NetworkPlan ReadNetworkPlan(std::string_view text, const NetworkPlan& before) {
  const YamlNode document = ReadYaml("config.yaml", text);
  Written written;
  std::vector<ParamUse> params;
  if (document.kind != YamlNode::Kind::kNull) {
    ReadMap(Value("", document, params), kPlanKeys, written);
  }
  NetworkPlan plan;
  plan.mode = written.mode.value_or(before.mode);
  if (plan.mode == "bridged") {
    for (const auto& [key, value] : {std::pair{"gateway", written.gateway},
                                     {"netmask", written.netmask},
                                     {"dhcpEnd", written.dhcp_end}}) {
      if (value) {
        Refuse(document, key,
               "goes with another mode; addresses in a bridged network are "
               "given by what is behind the interface");
      }
    }
    plan.interface = written.interface.value_or(before.interface);
    if (plan.interface.empty()) {
      Refuse(document, "mode",
             "is 'bridged', which needs the hypervisor's interface; add one, "
             "as in 'interface: br0'");
    }
    return plan;
  }
  if (written.interface) {
    Refuse(document, "interface", "goes with 'mode: bridged' alone");
  }
  plan.gateway = written.gateway.value_or(before.gateway);
  if (plan.gateway.empty()) {
    Refuse(document, "mode",
           fmt::format("is '{}', which needs an address of the hypervisor; add "
                       "one, as in 'gateway: 192.168.120.1'",
                       plan.mode));
  }
  plan.netmask = written.netmask.value_or(
      before.netmask.empty() ? kNetmask : before.netmask);
  // An end that was not written follows the rest.
  const bool moved =
      plan.gateway != before.gateway || plan.netmask != before.netmask;
  plan.dhcp_end = written.dhcp_end.value_or(
      moved ? LastOf(plan.gateway, plan.netmask) : before.dhcp_end);
  CheckAddresses(document, plan);
  return plan;
}

std::string NetworkText(const NetworkPlan& plan) {
  std::string text = fmt::format("mode: {}\n", plan.mode);
  const auto add = [&](std::string_view key, const std::string& value) {
    if (!value.empty()) text += fmt::format("{}: {}\n", key, value);
  };
  add("gateway", plan.gateway);
  add("dhcpEnd", plan.dhcp_end);
  add("netmask", plan.netmask);
  add("interface", plan.interface);
  return text;
}

}  // namespace sbxfs
