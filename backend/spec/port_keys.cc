// The rules of portForwards, with Lima's meaning.
#include <fmt/format.h>

#include "backend/spec/readers.h"
#include "backend/spec/value.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

using enum ValueType;

// What is written in a rule; Lima's defaults are filled in afterwards.
struct PortRule {
  PortForward forward;
  int guest_port = 0, host_port = 0;
  bool guest_range = false, host_range = false;
};

constexpr char kPort[] = "a port from 1 to 65535";

int ReadPort(const Value& value) {
  // Lima takes 0 for one that is not given.
  return static_cast<int>(value.Number(0, 65535, kPort));
}

void ReadPortRange(const Value& value, int& first, int& last) {
  constexpr char kAllowed[] = "two ports, as in [4000, 4010]";
  const std::vector<Value> items = value.Items(kAllowed);
  if (items.size() != 2) throw value.Wrong(kAllowed);
  first = static_cast<int>(items[0].Number(1, 65535, kPort));
  last = static_cast<int>(items[1].Number(1, 65535, kPort));
  if (last < first) {
    throw value.Fault(
        fmt::format("is {} to {}; the first must not be the "
                    "greater",
                    first, last));
  }
}

std::string ReadAddress(const Value& value) {
  constexpr char kAllowed[] = "an IP address";
  std::string address = value.Text(kAllowed);
  if (!IsAddress(address)) throw value.Wrong(kAllowed);
  return address;
}

std::string ReadSocket(const Value& value, TemplateSide side) {
  constexpr char kAllowed[] = "the path of a socket";
  std::string path = value.Template(kAllowed, side);
  if (path.empty() || !IsPlainLine(path) || HasDots(path) ||
      (side == TemplateSide::kGuest && !IsAbsolute(path))) {
    throw value.Wrong(side == TemplateSide::kGuest ? "an absolute path in the "
                                                     "guest"
                                                   : kAllowed);
  }
  return path;
}

constexpr Key<PortRule> kRuleKeys[] = {
    {"guestIP", kText,
     [](const Value& v, PortRule& rule) {
       rule.forward.guest_ip = ReadAddress(v);
     }},
    {"guestIPMustBeZero", kPlain,
     [](const Value& v, PortRule& rule) {
       rule.forward.guest_ip_must_be_zero = v.Bool();
     }},
    {"guestPort", kPlain,
     [](const Value& v, PortRule& rule) { rule.guest_port = ReadPort(v); }},
    {"guestPortRange", kText,
     [](const Value& v, PortRule& rule) {
       rule.guest_range = true;
       ReadPortRange(v, rule.forward.guest_first, rule.forward.guest_last);
     }},
    {"guestSocket", kText,
     [](const Value& v, PortRule& rule) {
       rule.forward.guest_socket = ReadSocket(v, TemplateSide::kGuest);
     }},
    {"hostIP", kText,
     [](const Value& v, PortRule& rule) {
       rule.forward.host_ip = v.Text() == kOnHypervisor
                                  ? std::string(kOnHypervisor)
                                  : ReadAddress(v);
     }},
    {"hostPort", kPlain,
     [](const Value& v, PortRule& rule) { rule.host_port = ReadPort(v); }},
    {"hostPortRange", kText,
     [](const Value& v, PortRule& rule) {
       rule.host_range = true;
       ReadPortRange(v, rule.forward.host_first, rule.forward.host_last);
     }},
    {"hostSocket", kText,
     [](const Value& v, PortRule& rule) {
       rule.forward.host_socket = ReadSocket(v, TemplateSide::kHost);
     }},
    {"ignore", kPlain,
     [](const Value& v, PortRule& rule) { rule.forward.ignore = v.Bool(); }},
    {"proto", kText,
     [](const Value& v, PortRule& rule) {
       constexpr std::string_view kProtos[] = {"tcp", "udp", "any"};
       const std::string proto = v.OneOf(kProtos);
       using Proto = PortForward::Proto;
       rule.forward.proto = proto == "tcp"   ? Proto::kTcp
                            : proto == "udp" ? Proto::kUdp
                                             : Proto::kAny;
     }},
    {"reverse", kPlain,
     [](const Value& v, PortRule& rule) { rule.forward.reverse = v.Bool(); }},
    {"static", kPlain, [](const Value& v, PortRule&) { (void)v.Bool(); }},
};

// Lima's defaults: a port is its own range, all ports where none is given, and
// the host's are the guest's.
void FillPorts(PortRule& rule) {
  PortForward& forward = rule.forward;
  if (rule.guest_port != 0) {
    forward.guest_first = forward.guest_last = rule.guest_port;
  }
  if (rule.host_port != 0) {
    forward.host_first = forward.host_last = rule.host_port;
  } else if (!rule.host_range) {
    forward.host_first = forward.guest_first;
    forward.host_last = forward.guest_last;
  }
}

void CheckRule(const Value& value, const PortRule& rule) {
  const PortForward& forward = rule.forward;
  const int guest_count = forward.guest_last - forward.guest_first;
  const int host_count = forward.host_last - forward.host_first;
  const bool guest_socket = !forward.guest_socket.empty();
  const bool host_socket = !forward.host_socket.empty();
  const auto refuse = [&](bool wrong, const char* reason) {
    if (wrong) throw value.Fault(reason);
  };
  refuse(rule.guest_port != 0 && rule.guest_range,
         "has both guestPort and guestPortRange; leave one");
  refuse(rule.host_port != 0 && rule.host_range,
         "has both hostPort and hostPortRange; leave one");
  refuse(guest_socket && (rule.guest_port != 0 || rule.guest_range),
         "has both a guestSocket and a guest port; leave one");
  refuse(host_socket && (rule.host_port != 0 || rule.host_range),
         "has both a hostSocket and a host port; leave one");
  refuse(guest_socket && !host_socket &&
             (rule.host_port == 0 && (!rule.host_range || host_count > 0)),
         "has a guestSocket, which needs a hostSocket or one hostPort");
  refuse(host_socket && !guest_socket && guest_count > 0,
         "has a hostSocket, which needs a guestSocket or one guestPort");
  refuse(!guest_socket && !host_socket && guest_count != host_count,
         "has not as many host ports as guest ports");
  refuse(forward.reverse && !(guest_socket && host_socket),
         "is reverse, which needs guestSocket and hostSocket");
  refuse(forward.guest_ip_must_be_zero && forward.guest_ip != "0.0.0.0",
         "has guestIPMustBeZero, which needs guestIP to be 0.0.0.0");
}

PortForward ReadRule(const Value& value) {
  PortRule rule;
  // Lima's default; `any` is what has to be asked for.
  rule.forward.proto = PortForward::Proto::kTcp;
  rule.forward.origin.layer = value.Node().document;
  ReadMap(value, kRuleKeys, rule);
  if (rule.forward.guest_ip_must_be_zero && rule.forward.guest_ip.empty()) {
    rule.forward.guest_ip = "0.0.0.0";
  }
  FillPorts(rule);
  CheckRule(value, rule);
  return rule.forward;
}

}  // namespace

void ReadPortForwards(const Value& value, Spec& spec) {
  spec.port_forwards.clear();
  for (const Value& item :
       value.Items("a list of rules, as in '- guestPort: 80'")) {
    spec.port_forwards.push_back(ReadRule(item));
  }
}

}  // namespace sbxfs
