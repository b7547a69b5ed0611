// mounts/ and ports/: entries of lists in config.yaml, edited in its text.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "backend/spec/editor.h"
#include "backend/spec/keys.h"
#include "backend/spec/scalar.h"
#include "backend/spec/spec.h"
#include "backend/spec/value.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

using Kind = YamlNode::Kind;

// A key of an item and its value as YAML.
struct Field {
  std::string key;
  std::string text;
};

std::string Word(std::string_view text) {
  return FormatScalar(text, ValueType::kText, /*flow=*/true, '\0');
}

std::string FlowMap(const std::vector<Field>& fields) {
  std::string text;
  for (const Field& field : fields) {
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", field.key,
                        field.text);
  }
  return fmt::format("{{{}}}", text);
}

// Sets one field of a tree's map.
void SetField(YamlNode& map, const Field& field) {
  YamlNode read = ReadYaml(kEdited, FlowMap({field}));
  for (YamlEntry& entry : map.entries) {
    if (entry.key.value != field.key) continue;
    entry.value = std::move(read.entries[0].value);
    return;
  }
  map.entries.push_back(std::move(read.entries[0]));
}

// Changes one list at the root of a text, an item at a time.
class ItemEditor : public Editor {
 public:
  ItemEditor(std::string_view text, std::string_view list,
             std::string_view verb)
      : Editor(text), list_(list), verb_(verb) {
    for (const YamlEntry& entry : root_.entries) {
      if (entry.key.value == list) entry_ = &entry;
    }
  }

  // A new item. `first`: before all others.
  std::string Add(const std::vector<Field>& fields, bool first) {
    YamlNode wanted = root_;
    wanted.kind = Kind::kMap;
    YamlNode& list = ListIn(wanted);
    list.kind = Kind::kList;
    list.items.insert(first ? list.items.begin() : list.items.end(),
                      ReadYaml(kEdited, FlowMap(fields)));
    ProposeAdding(fields, first);
    return Best(wanted, verb_);
  }

  std::string Remove(std::size_t index) {
    const YamlNode& list = entry_->value;
    if (list.items.size() == 1) return SetKey(text_, list_, "");
    YamlNode wanted = root_;
    auto& items = ListIn(wanted).items;
    items.erase(items.begin() + static_cast<std::ptrdiff_t>(index));
    const YamlNode& item = list.items[index];
    if (list.flow) {
      ProposeFlowRemoval(item.offset, layout_.FlowEnd(item));
    } else if (const auto dash = DashOf(item)) {
      Propose(layout_.LineStart(*dash),
              layout_.NextLine(layout_.ItemEnd(*dash)), "");
    }
    return Best(wanted, verb_);
  }

  std::string Change(std::size_t index, const Field& field) {
    YamlNode wanted = root_;
    SetField(ListIn(wanted).items[index], field);
    if (Says(wanted)) return std::string(text_);
    ProposeChange(entry_->value.items[index], field);
    return Best(wanted, verb_);
  }

 private:
  YamlNode& ListIn(YamlNode& root) const {
    for (YamlEntry& entry : root.entries) {
      if (entry.key.value == list_) return entry.value;
    }
    YamlNode key;
    key.kind = Kind::kScalar;
    key.value = list_;
    root.entries.push_back({std::move(key), {}});
    return root.entries.back().value;
  }

  // The '-' before an item of a block list.
  [[nodiscard]] std::optional<std::size_t> DashOf(const YamlNode& item) const {
    if (item.offset == 0) return std::nullopt;
    const auto dash = text_.find_last_not_of(" \r\n", item.offset - 1);
    if (dash == text_.npos || text_[dash] != '-') return std::nullopt;
    return dash;
  }

  [[nodiscard]] std::string Block(const std::vector<Field>& fields,
                                  std::size_t indent) const {
    std::string lines;
    for (const Field& field : fields) {
      lines +=
          fmt::format("{:{}}{} {}: {}{}", "", indent, lines.empty() ? '-' : ' ',
                      field.key, field.text, layout_.EndOfLine());
    }
    return lines;
  }

  void ProposeAdding(const std::vector<Field>& fields, bool first) {
    if (entry_ == nullptr) {
      ProposeList(fields);
      return;
    }
    const auto& [key, value] = *entry_;
    if (value.kind == Kind::kList && !value.items.empty()) {
      value.flow ? AddToFlow(value, fields, first)
                 : AddToBlock(value, fields, first);
      return;
    }
    if (root_.flow) {
      Propose(layout_.ColonEnd(key), layout_.ValueEnd(key, value),
              fmt::format(" [{}]", FlowMap(fields)));
      return;
    }
    // Nothing is there yet, or `null`, or `[]`.
    const std::size_t indent = layout_.Indent(key.offset);
    std::string lines = Block(fields, indent);
    lines.erase(lines.find_last_not_of("\r\n") + 1);
    Propose(layout_.ColonEnd(key), layout_.ValueEnd(key, value),
            fmt::format("{}{}", layout_.EndOfLine(), lines));
    Propose(layout_.NextLine(key.offset), layout_.NextLine(key.offset),
            lines + std::string(layout_.EndOfLine()));
  }

  // The list with its key, at the root.
  void ProposeList(const std::vector<Field>& fields) {
    if (root_.flow) {
      const std::string inside =
          fmt::format("{}: [{}]", list_, FlowMap(fields));
      if (root_.entries.empty()) {
        Propose(root_.offset, layout_.FlowEnd(root_),
                fmt::format("{{{}}}", inside));
        return;
      }
      const auto& [key, value] = root_.entries.back();
      const std::size_t end = layout_.ValueEnd(key, value);
      Propose(end, end, ", " + inside);
      return;
    }
    const std::size_t indent =
        root_.kind == Kind::kNull ? 0 : layout_.Indent(root_.offset);
    const std::string lines =
        fmt::format("{:{}}{}:{}{}", "", indent, list_, layout_.EndOfLine(),
                    Block(fields, indent));
    if (const auto at =
            layout_.AfterCommented(list_, 0, text_.size(), indent)) {
      ProposeLines(*at, lines);
    }
    ProposeLines(text_.size(), lines);
    const auto mark = text_.rfind("\n...");
    if (mark != text_.npos) ProposeLines(mark + 1, lines);
  }

  void AddToFlow(const YamlNode& list, const std::vector<Field>& fields,
                 bool first) {
    const std::string map = FlowMap(fields);
    if (first) {
      const std::size_t at = list.items.front().offset;
      Propose(at, at, map + ", ");
      return;
    }
    const std::size_t at = layout_.FlowEnd(list.items.back());
    Propose(at, at, ", " + map);
  }

  void AddToBlock(const YamlNode& list, const std::vector<Field>& fields,
                  bool first) {
    const auto dash = DashOf(first ? list.items.front() : list.items.back());
    if (!dash) return;
    const std::size_t indent = *dash - layout_.LineStart(*dash);
    const std::string lines = Block(fields, indent);
    if (first) {
      // Before the comments of the one that was the first.
      ProposeLines(layout_.NextLine(entry_->key.offset), lines);
    } else {
      ProposeLines(layout_.NextLine(layout_.ItemEnd(*dash)), lines);
    }
  }

  void ProposeChange(const YamlNode& item, const Field& field) {
    for (const auto& [key, value] : item.entries) {
      if (key.value != field.key) continue;
      if (value.kind == Kind::kScalar) {
        Propose(value.offset, layout_.ScalarEnd(value), field.text);
      }
      Propose(layout_.ColonEnd(key), layout_.ValueEnd(key, value),
              " " + field.text);
      return;
    }
    if (item.entries.empty()) return;
    const auto& [key, value] = item.entries.front();
    const std::size_t end = layout_.ValueEnd(key, value);
    if (item.flow) {
      Propose(end, end, fmt::format(", {}: {}", field.key, field.text));
      return;
    }
    const std::size_t column = item.offset - layout_.LineStart(item.offset);
    ProposeLines(layout_.NextLine(end),
                 fmt::format("{:{}}{}: {}{}", "", column, field.key, field.text,
                             layout_.EndOfLine()));
  }

  const std::string_view list_;
  const std::string_view verb_;
  const YamlEntry* entry_ = nullptr;
};

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
    if (!IsAddress(address)) return std::nullopt;
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

std::string HostText(const PortForward& rule) {
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
  return list != nullptr && list->kind == Kind::kList ? list : nullptr;
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
                      ListEntry{HostText(rules[i]), rules[i].origin.layer});
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

}  // namespace sbxfs
