#include "backend/forwards.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <sstream>
#include <utility>

#include "backend/egress/proxy.h"
#include "backend/util/error.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr int kLastPort = 65535;

// What rules before have decided on, for one protocol.
class Decided {
 public:
  void Add(int first, int last) { ranges_.emplace_back(first, last); }
  [[nodiscard]] bool Has(int port) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [port](const auto& r) {
      return r.first <= port && port <= r.second;
    });
  }

 private:
  std::vector<std::pair<int, int>> ranges_;
};

[[noreturn]] void Refuse(const std::string& why) {
  throw Error(EINVAL, "Cannot accept 'config.yaml': portForwards: " + why);
}

bool HasSocket(const PortForward& rule) {
  return !rule.guest_socket.empty() || !rule.host_socket.empty();
}

bool IsIpv4(const std::string& address) {
  in_addr ignored;
  return inet_pton(AF_INET, address.c_str(), &ignored) == 1;
}

// What QEMU forwards comes to the guest's own address: it reaches servers that
// listen on every address there. UDP knows no other way.
bool IsForQemu(const PortForward& rule, bool udp) {
  if (!IsIpv4(rule.host_ip) && rule.host_ip != kOnHypervisor) return false;
  for (const char* address : {"", "0.0.0.0", "::", "192.168.5.15"}) {
    if (rule.guest_ip == address) return true;
  }
  return udp;
}

std::string Side(const std::string& ip, int port) {
  return ip.find(':') == std::string::npos ? fmt::format("{}:{}", ip, port)
                                           : fmt::format("[{}]:{}", ip, port);
}

// An ignore rule for the guest's loopback says nothing of the servers that
// listen on every address.
bool IsForLoopbackAlone(const PortForward& rule) {
  return rule.ignore && !rule.guest_ip_must_be_zero &&
         rule.guest_ip != "0.0.0.0" && rule.guest_ip != "::";
}

struct Plan {
  std::vector<Forward> forwards;
  std::vector<Tunnel> tunnels;
};

void Add(std::vector<Forward>& forwards, const Forward& forward) {
  for (const Forward& other : forwards) {
    if (!Collide(other, forward)) continue;
    Refuse(fmt::format(
        "guest ports {} and {} both want the host's {}; give one of them "
        "another hostPort",
        std::min(other.guest_port, forward.guest_port),
        std::max(other.guest_port, forward.guest_port), HostSide(forward)));
  }
  forwards.push_back(forward);
}

[[noreturn]] void RefuseOnHypervisor() {
  Refuse(
      fmt::format("hostIP '{}': from the hypervisor only QEMU leads into the "
                  "guest, to its own address; leave guestIP, guestSocket "
                  "and reverse out",
                  kOnHypervisor));
}

void AddPort(Plan& plan, const PortForward& rule, bool udp, int port) {
  const int host_port = rule.host_first + port - rule.guest_first;
  if (IsForQemu(rule, udp)) {
    Add(plan.forwards,
        {udp, rule.host_ip == kOnHypervisor ? "0.0.0.0" : rule.host_ip,
         host_port, port});
  } else if (rule.host_ip == kOnHypervisor) {
    RefuseOnHypervisor();
  } else if (!udp) {
    const std::string guest_ip =
        rule.guest_ip.empty() ? "127.0.0.1" : rule.guest_ip;
    plan.tunnels.push_back(
        {false, Side(rule.host_ip, host_port), Side(guest_ip, port)});
  } else if (rule.proto == PortForward::Proto::kUdp) {
    Refuse(
        fmt::format("UDP from hostIP '{}': it comes by QEMU's user-mode "
                    "network, which has IPv4 alone",
                    rule.host_ip));
  }
  if (plan.forwards.size() + plan.tunnels.size() > kMostForwards) {
    Refuse(
        fmt::format("more than {} ports in all; each is opened whether "
                    "anything listens in the guest or not, so name those "
                    "that are used",
                    kMostForwards));
  }
}

void AddPorts(Plan& plan, const PortForward& rule, bool udp, Decided& decided) {
  const bool whole = rule.guest_first == 1 && rule.guest_last == kLastPort;
  for (int port = rule.guest_first;
       port <= rule.guest_last && !rule.ignore && !whole; ++port) {
    if (!decided.Has(port)) AddPort(plan, rule, udp, port);
  }
  decided.Add(rule.guest_first, rule.guest_last);
}

void AddSocket(Plan& plan, const PortForward& rule) {
  if (rule.ignore) return;
  if (rule.host_ip == kOnHypervisor && rule.host_socket.empty()) {
    RefuseOnHypervisor();
  }
  const std::string guest_ip =
      rule.guest_ip.empty() ? "127.0.0.1" : rule.guest_ip;
  plan.tunnels.push_back(
      {rule.reverse,
       rule.host_socket.empty() ? Side(rule.host_ip, rule.host_first)
                                : rule.host_socket,
       rule.guest_socket.empty() ? Side(guest_ip, rule.guest_first)
                                 : rule.guest_socket});
}

Plan PlanOf(const Spec& spec, int ssh_port) {
  Plan plan;
  if (ssh_port != 0) plan.forwards.push_back(SshForward(ssh_port));
  if (spec.plain) return plan;
  Decided decided[2];  // tcp, udp
  for (const PortForward& rule : spec.port_forwards) {
    if (HasSocket(rule)) {
      AddSocket(plan, rule);
      continue;
    }
    if (IsForLoopbackAlone(rule)) continue;
    for (const bool udp : {false, true}) {
      if (rule.proto == PortForward::Proto::kAny ||
          udp == (rule.proto == PortForward::Proto::kUdp)) {
        AddPorts(plan, rule, udp, decided[udp]);
      }
    }
  }
  std::sort(plan.forwards.begin(), plan.forwards.end());
  std::sort(plan.tunnels.begin(), plan.tunnels.end());
  return plan;
}

// Those that the monitor has of that netdev.
std::vector<std::string_view> UsernetLines(std::string_view text,
                                           std::string_view netdev) {
  std::vector<std::string_view> lines;
  bool ours = false;
  const std::string title = fmt::format("({}):", netdev);
  for (const std::string_view line : Split(text, '\n')) {
    if (line.starts_with("Hub ")) ours = Trim(line).ends_with(title);
    if (ours) lines.push_back(line);
  }
  return lines;
}

}  // namespace

Forward SshForward(int host_port) {
  return {false, "127.0.0.1", host_port, 22};
}

std::string FormatHostfwd(const Forward& forward) {
  return fmt::format("{}:{}:{}-:{}", forward.udp ? "udp" : "tcp",
                     forward.host_ip, forward.host_port, forward.guest_port);
}

std::optional<Forward> ParseHostfwd(std::string_view text) {
  const auto parts = Split(text, ':');
  if (parts.size() != 4 || (parts[0] != "tcp" && parts[0] != "udp") ||
      !parts[2].ends_with('-')) {
    return std::nullopt;
  }
  const auto host = ParsePort(parts[2].substr(0, parts[2].size() - 1));
  const auto guest = ParsePort(parts[3]);
  if (!host || !guest) return std::nullopt;
  return Forward{parts[0] == "udp", std::string(parts[1]), *host, *guest};
}

std::string HostSide(const Forward& forward) {
  return fmt::format("{}:{}{}", forward.host_ip, forward.host_port,
                     forward.udp ? "/udp" : "");
}

bool Collide(const Forward& a, const Forward& b) {
  constexpr std::string_view kAny = "0.0.0.0";
  return a.udp == b.udp && a.host_port == b.host_port &&
         (a.host_ip == b.host_ip || a.host_ip == kAny || b.host_ip == kAny);
}

std::vector<Forward> ParseUsernet(std::string_view text,
                                  std::string_view netdev) {
  std::vector<Forward> forwards;
  for (const std::string_view line : UsernetLines(text, netdev)) {
    std::istringstream words{std::string(line)};
    std::string kind, fd, host_ip, host_port, guest_ip, guest_port;
    words >> kind >> fd >> host_ip >> host_port >> guest_ip >> guest_port;
    if (!kind.ends_with("[HOST_FORWARD]")) continue;
    const auto host = ParsePort(host_port);
    const auto guest = ParsePort(guest_port);
    if (!host || !guest) continue;
    forwards.push_back({kind.starts_with("UDP"),
                        host_ip == "*" ? "0.0.0.0" : host_ip, *host, *guest});
  }
  std::sort(forwards.begin(), forwards.end());
  return forwards;
}

int CountConnections(std::string_view text, std::string_view netdev) {
  int count = 0;
  for (const std::string_view line : UsernetLines(text, netdev)) {
    if (Trim(line).starts_with("TCP[ESTABLISHED]")) ++count;
  }
  return count;
}

std::vector<Forward> ForwardsOf(const Spec& spec, int ssh_port) {
  return PlanOf(spec, ssh_port).forwards;
}

std::vector<Tunnel> TunnelsOf(const Spec& spec) {
  auto tunnels = PlanOf(spec, 0).tunnels;
  if (!spec.egress.empty()) {
    tunnels.push_back({true, spec.egress_socket, kEgressInGuest, spec.egress});
  }
  return tunnels;
}

bool IsSocket(std::string_view side) { return side.starts_with('/'); }

std::vector<std::string> SshWords(const Tunnel& tunnel) {
  // ssh splits at colons, and takes % and \ for more than they are.
  auto word = [](const std::string& side) {
    if (!IsSocket(side)) return side;
    std::string text;
    for (const char c : side) {
      if (c == ':' || c == '\\') text += '\\';
      if (c == '%') text += '%';
      text += c;
    }
    return text;
  };
  const std::string host = word(tunnel.host);
  const std::string guest = word(tunnel.guest);
  if (tunnel.reverse) return {"-R", guest + ':' + host};
  return {"-L", host + ':' + guest};
}

}  // namespace sbxfs
