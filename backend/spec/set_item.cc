// mounts/ and ports/: entries of lists in config.yaml, edited in its text.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "backend/spec/item_editor.h"
#include "backend/spec/keys.h"
#include "backend/spec/scalar.h"
#include "backend/spec/spec.h"
#include "backend/spec/value.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

std::string Word(std::string_view text) {
  return FormatScalar(text, ValueType::kText, /*flow=*/true, '\0');
}

// "8080", "0.0.0.0:8080", "[::1]:5000-5010".
struct HostPorts {
  std::string address = "127.0.0.1";
  int first = 0, last = 0;
};

std::optional<std::pair<int, int>> ParsePorts(std::string_view text) {
  const auto dash = text.find('-');
  const auto first = ParseNumber(text.substr(0, dash));
  const auto last =
      dash == text.npos ? first : ParseNumber(text.substr(dash + 1));
  if (!first || !last || *first < 1 || *last > 65535 || *last < *first) {
    return std::nullopt;
  }
  return std::pair(static_cast<int>(*first), static_cast<int>(*last));
}

std::optional<HostPorts> ParseHostPorts(std::string_view text) {
  HostPorts host;
  if (const auto colon = text.rfind(':'); colon != text.npos) {
    std::string_view address = text.substr(0, colon);
    if (address.starts_with('[') && address.ends_with(']')) {
      address = address.substr(1, address.size() - 2);
    } else if (address.find(':') != address.npos) {
      return std::nullopt;
    }
    if (!IsAddress(address) && address != kOnHypervisor) return std::nullopt;
    host.address = address;
    text.remove_prefix(colon + 1);
  }
  const auto ports = ParsePorts(text);
  if (!ports) return std::nullopt;
  std::tie(host.first, host.last) = *ports;
  return host;
}

using Proto = PortForward::Proto;

struct Guest {
  int first = 0, last = 0;
  Proto proto = Proto::kTcp;
};

std::optional<Guest> ParseGuest(std::string_view name) {
  Guest guest;
  constexpr std::string_view kUdp = ".udp";
  if (name.ends_with(kUdp)) {
    guest.proto = Proto::kUdp;
    name.remove_suffix(kUdp.size());
  }
  const auto ports = ParsePorts(name);
  // Each port has one name: not 080, not 80-80.
  if (!ports || name.starts_with('0') || name.find("-0") != name.npos ||
      (ports->first == ports->second && name.find('-') != name.npos)) {
    return std::nullopt;
  }
  std::tie(guest.first, guest.last) = *ports;
  return guest;
}

// Whether a rule names ports one by one; others are no entries of ports/.
bool IsEntry(const PortForward& rule) {
  return !rule.ignore && !rule.reverse && rule.guest_socket.empty() &&
         rule.host_socket.empty() &&
         (rule.guest_first != 1 || rule.guest_last != 65535);
}

std::string PortsText(int first, int last) {
  return first == last ? fmt::to_string(first)
                       : fmt::format("{}-{}", first, last);
}

std::string HostPortText(const PortForward& rule) {
  const std::string ports = PortsText(rule.host_first, rule.host_last);
  if (rule.host_ip == "127.0.0.1") return ports;
  return rule.host_ip.find(':') == std::string::npos
             ? fmt::format("{}:{}", rule.host_ip, ports)
             : fmt::format("[{}]:{}", rule.host_ip, ports);
}

// Whether an earlier rule decides over all of `rule` for `proto`.
bool IsCovered(const std::vector<PortForward>& rules, std::size_t index,
               Proto proto) {
  const PortForward& rule = rules[index];
  for (std::size_t i = 0; i < index; ++i) {
    const PortForward& other = rules[i];
    const bool ports = other.guest_socket.empty() && !other.reverse;
    const bool same = other.proto == Proto::kAny || other.proto == proto;
    // One with an address of the guest decides over that one alone.
    const bool any = other.guest_ip.empty() ||
                     other.guest_ip == rule.guest_ip ||
                     other.guest_ip == "0.0.0.0";
    if (ports && same && any && other.guest_first <= rule.guest_first &&
        other.guest_last >= rule.guest_last) {
      return true;
    }
  }
  return false;
}

std::string PortField(int first, int last) {
  return first == last ? fmt::to_string(first)
                       : fmt::format("[{}, {}]", first, last);
}

std::vector<Field> NewRule(const Guest& guest, const HostPorts& host) {
  const bool range = guest.first != guest.last;
  std::vector<Field> fields = {{range ? "guestPortRange" : "guestPort",
                                PortField(guest.first, guest.last)}};
  if (host.address != "127.0.0.1") {
    fields.push_back({"hostIP", QuoteScalar(host.address)});
  }
  fields.push_back(
      {range ? "hostPortRange" : "hostPort", PortField(host.first, host.last)});
  if (guest.proto == Proto::kUdp) fields.push_back({"proto", "udp"});
  return fields;
}

// The list `key` of a text, as far as it is one.
const YamlNode* ListOf(const YamlNode& root, std::string_view key) {
  const YamlNode* list = root.Find(key);
  return list != nullptr && list->kind == YamlNode::Kind::kList ? list
                                                                : nullptr;
}

}  // namespace

std::map<std::string, ListEntry> MountEntries(const Spec& spec) {
  std::map<std::string, ListEntry> entries;
  for (const MountSpec& mount : spec.mounts) {
    entries[mount.name] = {mount.location + (mount.writable ? ":w" : ""),
                           mount.origin.layer};
  }
  return entries;
}

std::map<std::string, ListEntry> ForwardEntries(const Spec& spec) {
  std::map<std::string, ListEntry> entries;
  const auto& rules = spec.port_forwards;
  for (std::size_t i = 0; i < rules.size(); ++i) {
    if (!IsEntry(rules[i])) continue;
    const std::string ports =
        PortsText(rules[i].guest_first, rules[i].guest_last);
    for (const Proto proto : {Proto::kTcp, Proto::kUdp}) {
      if (rules[i].proto != proto && rules[i].proto != Proto::kAny) continue;
      if (IsCovered(rules, i, proto)) continue;
      entries.emplace(proto == Proto::kUdp ? ports + ".udp" : ports,
                      ListEntry{HostPortText(rules[i]), rules[i].origin.layer});
    }
  }
  return entries;
}

std::string SetMount(std::string_view text, std::string_view name,
                     std::string_view value) {
  const std::string verb = value.empty() ? fmt::format("unmount '{}'", name)
                                         : fmt::format("mount '{}'", name);
  const auto refuse = [&verb](std::string_view reason) {
    return Error(EINVAL, fmt::format("Cannot {}: {}", verb, reason));
  };
  if (!IsMountName(name)) {
    throw refuse("a mount's name has letters, digits and ._-, 58 at most");
  }
  const YamlNode root = ReadYaml(kEdited, text);
  const Spec spec = ReadKeys(root, /*whole=*/false);
  const auto found =
      std::find_if(spec.mounts.begin(), spec.mounts.end(),
                   [name](const MountSpec& m) { return m.name == name; });
  const auto index = static_cast<std::size_t>(found - spec.mounts.begin());
  if (value.empty()) {
    if (found == spec.mounts.end()) return std::string(text);
    return ItemEditor(text, "mounts", verb).Remove(index);
  }
  constexpr std::string_view kWritable = ":w";
  const bool writable = value.ends_with(kWritable);
  std::string_view location = value;
  if (writable) location.remove_suffix(kWritable.size());
  if (!(location.starts_with('/') || location == "~" ||
        location.starts_with("~/")) ||
      !IsPlainLine(location)) {
    throw refuse(
        fmt::format("'{}' is no absolute path; write LOCATION, or "
                    "LOCATION:w for a writable one",
                    ForSentence(location)));
  }
  const Field location_field = {"location", Word(location)};
  const Field name_field = {"name", Word(name)};
  const bool named = MountNameOf(location) == name;
  if (found == spec.mounts.end()) {
    std::vector<Field> fields = {location_field};
    if (!named) fields.push_back(name_field);
    if (writable) fields.push_back({"writable", "true"});
    return ItemEditor(text, "mounts", verb).Add(fields, /*first=*/false);
  }
  std::string result(text);
  const auto change = [&](const Field& field) {
    const std::string before = std::move(result);
    result = ItemEditor(before, "mounts", verb).Change(index, field);
  };
  if (found->location != location) {
    // The name no longer follows from the location, or never did.
    const YamlNode& item = root.Find("mounts")->items[index];
    if (!named || item.Find("name") != nullptr) change(name_field);
    change(location_field);
  }
  if (found->writable != writable) {
    change({"writable", writable ? "true" : "false"});
  }
  return result;
}

std::string SetForward(std::string_view text, std::string_view guest,
                       std::string_view value) {
  const std::string verb = value.empty()
                               ? fmt::format("close port '{}'", guest)
                               : fmt::format("forward port '{}'", guest);
  const auto refuse = [&verb](std::string_view reason) {
    return Error(EINVAL, fmt::format("Cannot {}: {}", verb, reason));
  };
  const auto ports = ParseGuest(guest);
  if (!ports) {
    throw refuse(
        "a guest's port is named as in '3000', '53.udp' or "
        "'4000-4010'");
  }
  HostPorts host;
  if (!value.empty()) {
    const auto parsed = ParseHostPorts(value);
    if (!parsed) {
      throw refuse(
          fmt::format("'{}' is no port of the host; write "
                      "[ADDRESS:]PORT, as in '8080' or "
                      "'0.0.0.0:8080'",
                      ForSentence(value)));
    }
    host = *parsed;
    if (host.last - host.first != ports->last - ports->first) {
      throw refuse(fmt::format("'{}' has not as many ports as '{}'",
                               ForSentence(value), guest));
    }
  }
  const YamlNode root = ReadYaml(kEdited, text);
  const Spec spec = ReadKeys(root, /*whole=*/false);
  const auto fits = [&](const PortForward& rule) {
    return IsEntry(rule) && rule.guest_first == ports->first &&
           rule.guest_last == ports->last &&
           (rule.proto == ports->proto || rule.proto == Proto::kAny);
  };
  const auto& rules = spec.port_forwards;
  const auto found = std::find_if(rules.begin(), rules.end(), fits);
  const auto index = static_cast<std::size_t>(found - rules.begin());
  constexpr char kList[] = "portForwards";
  if (found == rules.end()) {
    if (value.empty()) return std::string(text);
    return ItemEditor(text, kList, verb)
        .Add(NewRule(*ports, host), /*first=*/true);
  }
  if (found->proto == Proto::kAny) {
    // It goes on for the other protocol.
    const Field other = {"proto", ports->proto == Proto::kUdp ? "tcp" : "udp"};
    const std::string rest = ItemEditor(text, kList, verb).Change(index, other);
    return value.empty() ? rest : SetForward(rest, guest, value);
  }
  if (value.empty()) return ItemEditor(text, kList, verb).Remove(index);
  if (IsCovered(rules, index, ports->proto)) {
    // Where it stands it decides nothing.
    const std::string rest = ItemEditor(text, kList, verb).Remove(index);
    return SetForward(rest, guest, value);
  }
  std::string result(text);
  const auto change = [&](const Field& field) {
    const std::string before = std::move(result);
    result = ItemEditor(before, kList, verb).Change(index, field);
  };
  const YamlNode& item = ListOf(root, kList)->items[index];
  const bool range =
      item.Find("hostPortRange") != nullptr ||
      (item.Find("hostPort") == nullptr && ports->first != ports->last);
  change({range ? "hostPortRange" : "hostPort",
          range ? fmt::format("[{}, {}]", host.first, host.last)
                : fmt::to_string(host.first)});
  if (found->host_ip != host.address) {
    change({"hostIP", QuoteScalar(host.address)});
  }
  return result;
}

std::string RenewMacs(std::string_view text,
                      const std::function<std::string(std::size_t)>& fresh) {
  std::string result(text);
  const YamlNode root = ReadYaml(kEdited, text);
  const YamlNode* list = ListOf(root, "networks");
  if (list == nullptr) return result;
  for (std::size_t i = 0; i < list->items.size(); ++i) {
    if (list->items[i].Find("macAddress") == nullptr) continue;
    const std::string before = std::move(result);
    result = ItemEditor(before, "networks", "set macAddress")
                 .Change(i, {"macAddress", QuoteScalar(fresh(i))});
  }
  return result;
}

}  // namespace sbxfs
