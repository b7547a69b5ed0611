#include "backend/network_filter.h"

#include <fmt/format.h>

#include <cerrno>

#include "backend/util/error.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

// Looked at in their order.
class Rules {
 public:
  explicit Rules(xmlNode* filter) : filter_(filter) {}
  // `direction` is the guest's: out, in or inout.
  void Add(const char* action, const char* direction, const char* protocol,
           XmlAttributes match) {
    xmlNode* rule =
        AddXml(filter_, "rule",
               {{"action", action},
                {"direction", direction},
                {"priority", fmt::to_string(kFirst + 10 * count_++)}});
    if (*protocol != '\0') AddXml(rule, protocol, match);
  }

 private:
  static constexpr int kFirst = -900;  // libvirt's are from -1000 to 1000
  xmlNode* filter_;
  int count_ = 0;
};

}  // namespace

std::string FilterName(std::string_view network) {
  return fmt::format("{}{}", kFilter, network);
}

std::string FilterXml(const NetworkFacts& network, std::string_view what) {
  const std::string& gateway = network.plan.gateway;
  const uint32_t mask = Ipv4Number(network.plan.netmask);
  const uint32_t base = Ipv4Number(gateway) & mask;
  if (base == 0) {
    throw Error(
        EINVAL,
        fmt::format("{}: egress lets the guest reach its list alone, and the "
                    "network '{}' has no address of the hypervisor's, so that "
                    "what is behind it is not known; take one of the two out "
                    "of config.yaml",
                    what, network.name));
  }
  const std::string net = Ipv4Text(base);
  const XmlDoc doc = NewXml("filter");
  xmlNode* filter = xmlDocGetRootElement(doc.get());
  SetXml(filter, "name", FilterName(network.name));
  SetXml(filter, "chain", "root");
  // Defined again it is the same, which libvirt knows by this.
  AddXml(filter, "uuid", NetworkUuid(FilterName(network.name)));
  Rules rules(filter);
  // It is nobody else in the network.
  rules.Add("drop", "out", "mac", {{"match", "no"}, {"srcmacaddr", "$MAC"}});
  rules.Add("drop", "out", "arp", {{"match", "no"}, {"arpsrcmacaddr", "$MAC"}});
  rules.Add("drop", "out", "arp", {{"arpsrcipaddr", gateway}});
  rules.Add("drop", "out", "ip", {{"srcipaddr", gateway}});
  rules.Add("accept", "inout", "arp", {});
  for (const std::string& to : {std::string("255.255.255.255"), gateway}) {
    rules.Add("accept", "out", "ip",
              {{"dstipaddr", to},
               {"protocol", "udp"},
               {"srcportstart", "68"},
               {"dstportstart", "67"}});
  }
  if (!network.asks_others) {
    for (const char* protocol : {"udp", "tcp"}) {
      rules.Add("accept", "out", "ip",
                {{"dstipaddr", gateway},
                 {"protocol", protocol},
                 {"dstportstart", "53"}});
    }
  }
  // Nor whatever else listens there, to all that the network's are sent.
  for (const std::string& to : {gateway, net, Ipv4Text(base | ~mask)}) {
    rules.Add("drop", "out", "ip", {{"dstipaddr", to}});
  }
  rules.Add("accept", "out", "ip",
            {{"srcipaddr", net},
             {"srcipmask", network.plan.netmask},
             {"dstipaddr", net},
             {"dstipmask", network.plan.netmask}});
  rules.Add("accept", "in", "ip",
            {{"srcipaddr", net}, {"srcipmask", network.plan.netmask}});
  rules.Add("drop", "inout", "", {});
  return FormatXml(filter);
}

}  // namespace sbxfs
