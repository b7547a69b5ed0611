#include "backend/user_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/util/error.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

// The argument that makes our netdev, or null.
xmlNode* FindNetdev(const xmlNode* domain) {
  const xmlNode* line = XmlChild(domain, "commandline");
  if (line == nullptr) return nullptr;
  const std::string begin = fmt::format("user,id={},", kNetdev);
  for (xmlNode* arg = line->children; arg != nullptr; arg = arg->next) {
    if (XmlAttribute(arg, "value").starts_with(begin)) return arg;
  }
  return nullptr;
}

// Which QEMU a live XML is of: ids begin anew with each libvirtd, a genid is
// new for each QEMU but only PCs have one.
std::string RunOf(const xmlNode* domain) {
  const std::string id = XmlAttribute(domain, "id");
  if (id.empty()) return "";
  return fmt::format("{} {}", id, XmlContent(XmlChild(domain, "genid")));
}

void SortForwards(std::vector<Forward>& forwards) {
  std::sort(forwards.begin(), forwards.end());
}

std::string HostfwdOptions(const std::vector<Forward>& forwards) {
  std::string options;
  for (const Forward& forward : forwards) {
    options += ",hostfwd=" + FormatHostfwd(forward);
  }
  return options;
}

}  // namespace

void AddUserNetwork(xmlNode* domain, const std::string& mac, bool isolated,
                    const std::vector<Forward>& forwards) {
  xmlNode* line = AddXml(domain, "commandline");
  std::string netdev = fmt::format(
      "user,id={},net=192.168.5.0/24,dhcpstart=192.168.5.15,host=192.168.5.2,"
      "dns=192.168.5.3",
      kNetdev);
  if (isolated) netdev += ",restrict=on";
  netdev += HostfwdOptions(forwards);
  // libvirt does not know of this device: slot 0x10 is far above those it
  // fills from below. Without a boot ROM the guest starts sooner.
  const std::string device = fmt::format(
      "virtio-net-pci,netdev={},mac={},bus=pcie.0,addr=0x10,romfile=", kNetdev,
      mac);
  for (const std::string_view arg :
       {std::string_view("-netdev"), std::string_view(netdev),
        std::string_view("-device"), std::string_view(device)}) {
    AddXml(line, "arg", {{"value", arg}});
  }
  PutInNamespace(line, domain, kQemuUri, "qemu");
}

std::vector<Forward> ReadForwards(const xmlNode* domain) {
  std::vector<Forward> forwards;
  const std::string run = RunOf(domain);
  const xmlNode* metadata = XmlChild(domain, "metadata");
  for (const xmlNode* note = metadata == nullptr ? nullptr : metadata->children;
       note != nullptr && !run.empty(); note = note->next) {
    if (XmlName(note) != "ports" || XmlAttribute(note, "run") != run) continue;
    for (const xmlNode* one = note->children; one != nullptr; one = one->next) {
      const auto forward = ParseHostfwd(XmlContent(one));
      if (XmlName(one) == "forward" && forward) forwards.push_back(*forward);
    }
    SortForwards(forwards);
    return forwards;
  }
  const xmlNode* netdev = FindNetdev(domain);
  if (netdev == nullptr) return forwards;
  constexpr std::string_view kOption = "hostfwd=";
  const std::string value = XmlAttribute(netdev, "value");
  for (const std::string_view part : Split(value, ',')) {
    if (!part.starts_with(kOption)) continue;
    const auto forward = ParseHostfwd(part.substr(kOption.size()));
    if (forward) forwards.push_back(*forward);
  }
  SortForwards(forwards);
  return forwards;
}

std::string UserNetworkMac(const xmlNode* domain) {
  const xmlNode* line = XmlChild(domain, "commandline");
  if (line == nullptr) return "";
  const std::string ours = fmt::format("netdev={}", kNetdev);
  for (const xmlNode* arg = line->children; arg != nullptr; arg = arg->next) {
    const std::string value = XmlAttribute(arg, "value");
    const auto parts = Split(value, ',');
    if (std::find(parts.begin(), parts.end(), ours) == parts.end()) continue;
    for (const std::string_view part : parts) {
      if (part.starts_with("mac=")) return std::string(part.substr(4));
    }
  }
  return "";
}

std::string WithForwards(std::string_view xml,
                         const std::vector<Forward>& forwards) {
  const XmlDoc doc = ParseXml(xml);
  xmlNode* domain = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  xmlNode* netdev = domain == nullptr ? nullptr : FindNetdev(domain);
  if (netdev == nullptr) {
    throw Error(EIO,
                "Cannot change the forwarded ports: the domain has lost its "
                "user-mode network; save config.yaml while it is stopped, "
                "which makes the definition anew");
  }
  const std::string old = XmlAttribute(netdev, "value");
  std::string value;
  for (const std::string_view part : Split(old, ',')) {
    if (part.starts_with("hostfwd=")) continue;
    if (!value.empty()) value += ',';
    value += part;
  }
  value += HostfwdOptions(forwards);
  xmlSetProp(netdev, reinterpret_cast<const xmlChar*>("value"),
             reinterpret_cast<const xmlChar*>(value.c_str()));
  return FormatXml(domain);
}

std::string PortsNote(std::string_view xml,
                      const std::vector<Forward>& forwards) {
  const XmlDoc live = ParseXml(xml);
  const xmlNode* domain = live ? xmlDocGetRootElement(live.get()) : nullptr;
  const XmlDoc doc = NewXml("ports");
  xmlNode* ports = xmlDocGetRootElement(doc.get());
  SetXml(ports, "run", RunOf(domain));
  for (const Forward& forward : forwards) {
    AddXml(ports, "forward", FormatHostfwd(forward));
  }
  return FormatXml(ports);
}

}  // namespace sbxfs
