#include "backend/forwards.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <sstream>
#include <utility>

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

std::optional<int> ParsePort(std::string_view text) {
  const auto number = ParseNumber(text);
  if (!number || *number < 1 || *number > kLastPort) return std::nullopt;
  return static_cast<int>(*number);
}

// Whether a rule has a say on what QEMU forwards: that comes to the guest's
// own address, so it reaches servers that listen on every address.
bool IsAboutPorts(const PortForward& rule) {
  return rule.guest_socket.empty() && rule.host_socket.empty() && !rule.reverse;
}

// An ignore rule for the guest's loopback says nothing of the servers that
// listen on every address.
bool IsForLoopbackAlone(const PortForward& rule) {
  return rule.ignore && !rule.guest_ip_must_be_zero &&
         rule.guest_ip != "0.0.0.0" && rule.guest_ip != "::";
}

void Add(std::vector<Forward>& forwards, const Forward& forward) {
  for (const Forward& other : forwards) {
    if (!Collide(other, forward)) continue;
    Refuse(fmt::format(
        "guest ports {} and {} both want the host's {}; give "
        "one of them another hostPort",
        std::min(other.guest_port, forward.guest_port),
        std::max(other.guest_port, forward.guest_port), HostSide(forward)));
  }
  if (forwards.size() >= kMostForwards) {
    Refuse(
        fmt::format("more than {} ports in all; each is opened whether "
                    "anything listens in the guest or not, so name those "
                    "that are used",
                    kMostForwards));
  }
  forwards.push_back(forward);
}

void AddRule(std::vector<Forward>& forwards, const PortForward& rule, bool udp,
             const Decided& decided) {
  in_addr ignored;
  if (inet_pton(AF_INET, rule.host_ip.c_str(), &ignored) != 1) {
    Refuse(
        fmt::format("hostIP '{}' is no IPv4 address; QEMU's user-mode "
                    "network has no other",
                    rule.host_ip));
  }
  for (int port = rule.guest_first; port <= rule.guest_last; ++port) {
    if (decided.Has(port)) continue;
    Add(forwards,
        {udp, rule.host_ip, rule.host_first + port - rule.guest_first, port});
  }
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
  bool ours = false;
  const std::string title = fmt::format("({}):", netdev);
  for (const std::string_view line : Split(text, '\n')) {
    if (line.starts_with("Hub ")) ours = Trim(line).ends_with(title);
    if (!ours) continue;
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

std::vector<Forward> ForwardsOf(const Spec& spec, int ssh_port) {
  std::vector<Forward> forwards;
  if (ssh_port != 0) forwards.push_back(SshForward(ssh_port));
  if (spec.plain) return forwards;
  Decided decided[2];  // tcp, udp
  for (const PortForward& rule : spec.port_forwards) {
    if (!IsAboutPorts(rule) || IsForLoopbackAlone(rule)) continue;
    for (const bool udp : {false, true}) {
      if (rule.proto != PortForward::Proto::kAny &&
          udp != (rule.proto == PortForward::Proto::kUdp)) {
        continue;
      }
      const bool whole = rule.guest_first == 1 && rule.guest_last == kLastPort;
      if (!rule.ignore && !whole) AddRule(forwards, rule, udp, decided[udp]);
      decided[udp].Add(rule.guest_first, rule.guest_last);
    }
  }
  std::sort(forwards.begin(), forwards.end());
  return forwards;
}

}  // namespace sbxfs
