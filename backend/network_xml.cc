#include "backend/network_xml.h"

#include <fmt/format.h>
#include <libxml/tree.h>

#include <algorithm>
#include <set>

#include "backend/domain_xml.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

// Of the hypervisor's own bridges, which tell the two modes with NAT apart.
constexpr std::string_view kBridge = "sbx", kUserBridge = "sbu";
constexpr char kNoResolv[] = "no-resolv";
constexpr char kDnsmasqUri[] = "http://libvirt.org/schemas/network/dnsmasq/1.0";

void AddGuests(xmlNode* network, const NetworkPlan& plan) {
  // The names of guests are nobody's else to know.
  AddXml(network, "domain", {{"name", "internal"}, {"localOnly", "yes"}});
  xmlNode* dns = AddXml(network, "dns");
  AddXml(AddXml(dns, "host", {{"ip", plan.gateway}}), "hostname",
         "host.lima.internal");
  // Nor are names of others asked for by it: the user-mode network's DNS does
  // that, and a guest that may reach a few alone is not to tell the rest by the
  // names that it asks for.
  xmlNode* options = AddXml(network, "options");
  AddXml(options, "option", {{"value", kNoResolv}});
  PutInNamespace(options, network, kDnsmasqUri, "dnsmasq");
  xmlNode* ip = AddXml(network, "ip",
                       {{"address", plan.gateway}, {"netmask", plan.netmask}});
  AddXml(AddXml(ip, "dhcp"), "range",
         {{"start", Ipv4Text(Ipv4Number(plan.gateway) + 1)},
          {"end", plan.dhcp_end}});
}

// libvirt tells that of one that leads nowhere to its dnsmasq itself.
bool AsksOthers(const xmlNode* network) {
  if (XmlChild(network, "forward") == nullptr) return false;
  if (XmlAttribute(XmlChild(network, "dns"), "enable") == "no") return false;
  const auto options = XmlChildren(XmlChild(network, "options"));
  return std::none_of(options.begin(), options.end(), [](const xmlNode* one) {
    return XmlAttribute(one, "value") == kNoResolv;
  });
}

// Lima's word for what libvirt calls a forward's mode.
std::string ModeOf(const xmlNode* network) {
  const xmlNode* forward = XmlChild(network, "forward");
  if (forward == nullptr) return "host";
  const std::string mode = XmlAttribute(forward, "mode");
  if (mode == "bridge") return "bridged";
  if (mode == "route") return "routed";
  if (mode != "nat" && !mode.empty()) return mode;
  return XmlAttribute(XmlChild(network, "bridge"), "name")
                 .starts_with(kUserBridge)
             ? "user-v2"
             : "shared";
}

// Of an <ip>, which has a netmask or a prefix, or neither.
std::string NetmaskOf(const xmlNode* ip) {
  const std::string netmask = XmlAttribute(ip, "netmask");
  const auto prefix = ParseNumber(XmlAttribute(ip, "prefix"));
  if (!netmask.empty() || !prefix || *prefix < 1 || *prefix > 32) {
    return netmask;
  }
  return Ipv4Text(~uint32_t{0} << (32 - *prefix));
}

}  // namespace

std::string NetworkUuid(std::string_view name) {
  return fmt::format("5b7f5000-0000-4000-8000-{:08x}{:04x}", Hash32(name),
                     Hash32(fmt::format("{}\n", name)) & 0xffff);
}

std::string NetworkXml(std::string_view name, const NetworkPlan& plan,
                       bool is_bridge) {
  const XmlDoc doc = NewXml("network");
  xmlNode* network = xmlDocGetRootElement(doc.get());
  AddXml(network, "name", name);
  AddXml(network, "uuid", NetworkUuid(name));
  if (plan.mode == "bridged") {
    xmlNode* forward = AddXml(network, "forward", {{"mode", "bridge"}});
    if (is_bridge) {
      AddXml(network, "bridge", {{"name", plan.interface}});
    } else {
      AddXml(forward, "interface", {{"dev", plan.interface}});
    }
    return FormatXml(network);
  }
  if (plan.mode == "routed") {
    AddXml(network, "forward", {{"mode", "route"}});
  } else if (plan.mode != "host") {
    AddXml(network, "forward", {{"mode", "nat"}});
  }
  // An interface's name has 15 bytes.
  AddXml(network, "bridge",
         {{"name", fmt::format("{}{:08x}",
                               plan.mode == "user-v2" ? kUserBridge : kBridge,
                               Hash32(name))},
          {"stp", "off"},
          {"delay", "0"}});
  AddGuests(network, plan);
  return FormatXml(network);
}

NetworkFacts ParseNetwork(std::string_view xml) {
  const XmlDoc doc = ParseXmlOf(xml, "network");
  const xmlNode* network = xmlDocGetRootElement(doc.get());
  NetworkFacts facts;
  facts.name = XmlContent(XmlChild(network, "name"));
  facts.uuid = std::string(Trim(XmlContent(XmlChild(network, "uuid"))));
  facts.plan.mode = ModeOf(network);
  if (facts.plan.mode == "bridged") {
    facts.plan.interface = XmlAttribute(XmlChild(network, "bridge"), "name");
    if (facts.plan.interface.empty()) {
      facts.plan.interface = XmlAttribute(
          XmlChild(XmlChild(network, "forward"), "interface"), "dev");
    }
  }
  const xmlNode* ip = XmlChild(network, "ip");
  facts.plan.gateway = XmlAttribute(ip, "address");
  facts.plan.netmask = NetmaskOf(ip);
  for (const xmlNode* node : XmlChildren(XmlChild(ip, "dhcp"))) {
    if (XmlName(node) == "range") {
      facts.first = XmlAttribute(node, "start");
      facts.plan.dhcp_end = XmlAttribute(node, "end");
    } else if (XmlName(node) == "host") {
      facts.hosts[Lower(XmlAttribute(node, "mac"))] = XmlAttribute(node, "ip");
    }
  }
  for (const xmlNode* node : XmlChildren(XmlChild(network, "dns"))) {
    if (XmlName(node) != "host") continue;
    auto& names = facts.names[XmlAttribute(node, "ip")];
    for (const xmlNode* name : XmlChildren(node)) {
      names.push_back(XmlContent(name));
    }
  }
  facts.asks_others = AsksOthers(network);
  return facts;
}

std::string AddressFor(const NetworkFacts& network, const std::string& mac) {
  const auto has = network.hosts.find(Lower(mac));
  if (has != network.hosts.end()) return has->second;
  const uint32_t first = Ipv4Number(network.first);
  const uint32_t last = Ipv4Number(network.plan.dhcp_end);
  if (first == 0 || last < first) return "";
  std::set<std::string> taken{network.plan.gateway};
  for (const auto& [other, address] : network.hosts) taken.insert(address);
  const uint32_t count = last - first + 1;
  const uint32_t begin = Hash32(Lower(mac)) % count;
  for (uint32_t i = 0; i < count; ++i) {
    std::string address = Ipv4Text(first + (begin + i) % count);
    if (taken.count(address) == 0) return address;
  }
  return "";
}

std::string LeaseXml(const std::string& mac, const std::string& address,
                     const std::string& sandbox) {
  const XmlDoc doc = NewXml("network");
  return FormatXml(
      AddXml(xmlDocGetRootElement(doc.get()), "host",
             {{"mac", mac}, {"name", "lima-" + sandbox}, {"ip", address}}));
}

std::string NamesXml(const std::string& address, const std::string& sandbox) {
  const XmlDoc doc = NewXml("network");
  xmlNode* host =
      AddXml(xmlDocGetRootElement(doc.get()), "host", {{"ip", address}});
  AddXml(host, "hostname", fmt::format("lima-{}.internal", sandbox));
  AddXml(host, "hostname", fmt::format("sbx-{}.internal", sandbox));
  return FormatXml(host);
}

std::string MacForInterface(std::string_view uuid, std::string_view interface) {
  return MacFor(fmt::format("{}/{}", uuid, interface));
}

}  // namespace sbxfs
