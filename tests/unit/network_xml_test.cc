// libvirt networks: their XML, and who has which address in them.
#include "backend/network_xml.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "backend/domain_xml.h"
#include "backend/guest/seed.h"
#include "backend/network_filter.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr char kMac[] = "52:54:00:AA:bb:01";

TEST(NetworkXmlTest, LimasNetworksNeedNotBeMade) {
  for (const char* name : {"shared", "host", "user-v2"}) {
    const auto plan = BuiltInNetwork(name);
    ASSERT_TRUE(plan) << name;
    const NetworkFacts facts = ParseNetwork(NetworkXml(name, *plan));
    EXPECT_EQ(facts.name, name);
    EXPECT_TRUE(facts.Ours());
    EXPECT_EQ(facts.plan, *plan);
    EXPECT_EQ(facts.names.at(plan->gateway),
              std::vector<std::string>{"host.lima.internal"});
  }
  EXPECT_FALSE(BuiltInNetwork("bridged"));
  EXPECT_FALSE(BuiltInNetwork("default"));
  EXPECT_THAT(NetworkXml("shared", *BuiltInNetwork("shared")),
              HasSubstr("<forward mode=\"nat\"/>"));
  EXPECT_THAT(NetworkXml("host", *BuiltInNetwork("host")),
              Not(HasSubstr("<forward")));
  EXPECT_FALSE(ParseNetwork("<network><name>shared</name><uuid>"
                            "c0ffee00-0000-4000-8000-000000000001</uuid>"
                            "</network>")
                   .Ours());
  EXPECT_NE(NetworkUuid("shared"), NetworkUuid("host"));
}

TEST(NetworkXmlTest, ItsDnsAsksNobody) {
  EXPECT_FALSE(ParseNetwork(NetworkXml("shared", *BuiltInNetwork("shared")))
                   .asks_others);
  const auto asks = [](const char* inside) {
    return ParseNetwork(
               fmt::format("<network><name>n</name>{}</network>", inside))
        .asks_others;
  };
  EXPECT_TRUE(asks("<forward mode='nat'/>"));
  EXPECT_TRUE(
      asks("<forward/><options xmlns='http://libvirt.org/schemas/"
           "network/dnsmasq/1.0'><option value='no-hosts'/></options>"));
  EXPECT_FALSE(asks(""));  // libvirt has it so
  EXPECT_FALSE(asks("<forward mode='nat'/><dns enable='no'/>"));
}

TEST(NetworkFilterTest, LetsNothingOutOfTheNetwork) {
  NetworkPlan plan = *BuiltInNetwork("shared");
  plan.netmask = "255.255.255.192";
  NetworkFacts facts = ParseNetwork(NetworkXml("shared", plan));
  const std::string filter = FilterXml(facts, "Cannot start 'box'");
  EXPECT_THAT(filter, HasSubstr("name=\"sbxfs-egress-shared\""));
  EXPECT_THAT(filter, HasSubstr("dstipaddr=\"192.168.105.0\" "
                                "dstipmask=\"255.255.255.192\""));
  // The last address is everybody's, the hypervisor's own services included.
  EXPECT_THAT(filter, HasSubstr("<ip dstipaddr=\"192.168.105.63\"/>"));
  EXPECT_THAT(filter, HasSubstr("dstportstart=\"53\""));
  const auto last = filter.rfind("<rule");
  EXPECT_THAT(filter.substr(last),
              AllOf(HasSubstr("action=\"drop\" direction=\"inout\""),
                    HasSubstr("/>\n</filter>")));
  // One that asks others for names would be a way to tell them anything.
  facts.asks_others = true;
  EXPECT_THAT(FilterXml(facts, "x"), Not(HasSubstr("dstportstart=\"53\"")));
  facts.plan.gateway.clear();
  EXPECT_THROW((void)FilterXml(facts, "x"), Error);
}

TEST(NetworkXmlTest, ABridgedOneHasTheHypervisorsInterface) {
  const NetworkPlan plan =
      ReadNetworkPlan("mode: bridged\ninterface: br0\n", NetworkPlan());
  EXPECT_THAT(NetworkXml("lan", plan), HasSubstr("<bridge name=\"br0\"/>"));
  EXPECT_THAT(NetworkXml("lan", plan, false),
              HasSubstr("<interface dev=\"br0\"/>"));
  for (const bool bridge : {true, false}) {
    const auto facts = ParseNetwork(NetworkXml("lan", plan, bridge));
    EXPECT_EQ(facts.plan, plan);
    EXPECT_EQ(facts.first, "");
  }
}

TEST(NetworkPlanTest, ATextSaysWhatIsOtherThanBefore) {
  const NetworkPlan made = NewNetwork("lab", {});
  EXPECT_NE(NewNetwork("lab", {made.gateway}).gateway, made.gateway);
  EXPECT_EQ(NewNetwork("host", {}), *BuiltInNetwork("host"));
  EXPECT_EQ(ReadNetworkPlan(NetworkText(made), NetworkPlan()), made);
  NetworkPlan plan = ReadNetworkPlan("mode: host\n", made);
  EXPECT_EQ(plan.mode, "host");
  EXPECT_EQ(plan.gateway, made.gateway);
  plan = ReadNetworkPlan("gateway: 10.1.2.1\nnetmask: 255.255.255.240", made);
  EXPECT_EQ(plan.dhcp_end, "10.1.2.14");
  plan = ReadNetworkPlan(
      "mode: routed\ngateway: 10.9.0.1\n"
      "netmask: 255.255.0.0\ndhcpEnd: 10.9.3.0\n",
      made);
  EXPECT_EQ(ParseNetwork(NetworkXml("lab", plan)).plan, plan);
  EXPECT_EQ(ReadNetworkPlan("", plan), plan);
}

TEST(NetworkPlanTest, RefusesWhatIsNone) {
  const NetworkPlan made = *BuiltInNetwork("shared");
  for (const auto& [text, told] :
       std::vector<std::pair<const char*, const char*>>{
           {"mode: nat", "line 1, column 7: mode is 'nat'"},
           {"gatway: 10.0.0.1", "line 1, column 1: unknown key 'gatway'"},
           {"gateway: 10.0.0", "line 1, column 10: gateway is"},
           {"mode: host\ngateway: 10.0.0.0",
            "line 2, column 10: gateway is '10.0.0.0', which with the netmask "
            "255.255.255.0"},
           {"netmask: 255.0.255.0", "line 1, column 10: netmask is"},
           {"netmask: 255.255.255.254", "line 1, column 10: netmask is"},
           {"dhcpEnd: 10.0.0.9",
            "line 1, column 10: dhcpEnd is '10.0.0.9'; it must be an address "
            "behind the gateway 192.168.105.1, up to 192.168.105.254"},
           {"interface: br0", "line 1, column 12: interface goes with"},
           {"mode: bridged", "needs the hypervisor's interface"},
           {"mode: bridged\ninterface: br0\ngateway: 10.0.0.1",
            "line 3, column 10: gateway goes with another mode"},
           {"- shared", "must be a map"},
       }) {
    try {
      (void)ReadNetworkPlan(text, made);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EINVAL);
      EXPECT_THAT(error.Sentence(), HasSubstr(told)) << text;
    }
  }
}

TEST(NetworkXmlTest, AnAddressFollowsFromTheMacAndIsOneGuestsAlone) {
  NetworkPlan plan = *BuiltInNetwork("shared");
  plan.dhcp_end = "192.168.105.4";
  NetworkFacts facts = ParseNetwork(NetworkXml("shared", plan));
  EXPECT_EQ(facts.first, "192.168.105.2");
  std::set<std::string> addresses;
  for (const char* mac : {kMac, "52:54:00:aa:bb:02", "52:54:00:aa:bb:03"}) {
    const std::string address = AddressFor(facts, mac);
    EXPECT_TRUE(addresses.insert(address).second) << address;
    facts.hosts["other" + address] = address;
  }
  EXPECT_EQ(AddressFor(facts, kMac), "");
  facts.hosts["52:54:00:aa:bb:01"] = "192.168.105.3";
  EXPECT_EQ(AddressFor(facts, kMac), "192.168.105.3");
}

TEST(NetworkXmlTest, AGuestHasALeaseAndTwoNames) {
  EXPECT_EQ(LeaseXml(kMac, "192.168.105.9", "my-box"),
            "<host mac=\"52:54:00:AA:bb:01\" name=\"lima-my-box\" "
            "ip=\"192.168.105.9\"/>\n");
  EXPECT_EQ(NamesXml("192.168.105.9", "my-box"),
            "<host ip=\"192.168.105.9\">\n"
            "  <hostname>lima-my-box.internal</hostname>\n"
            "  <hostname>sbx-my-box.internal</hostname>\n"
            "</host>\n");
}

TEST(NetworkXmlTest, ADomainHasItsNics) {
  DomainInput input;
  input.name = "box";
  input.uuid = "c0ffee00-0000-4000-8000-000000000001";
  input.nics = {{"lima0", "shared", MacForInterface(input.uuid, "lima0")},
                {"lima1", "lab", kMac, "sbxfs-egress-lab"}};
  const std::string xml = DomainXml(input);
  const DomainFacts facts = ParseDomain(xml);
  ASSERT_EQ(facts.nics.size(), 2U);
  EXPECT_EQ(facts.nics[0].interface, "lima0");
  EXPECT_EQ(facts.nics[0].network, "shared");
  EXPECT_EQ(facts.nics[0].mac, input.nics[0].mac);
  EXPECT_EQ(facts.nics[0].filter, "");
  EXPECT_EQ(facts.nics[1].filter, "sbxfs-egress-lab");
  EXPECT_THAT(NicXml(input.nics[1]),
              HasSubstr("<filterref filter=\"sbxfs-egress-lab\"/>"));
  EXPECT_NE(MacForInterface(input.uuid, "lima1"), input.nics[0].mac);
}

TEST(NetworkXmlTest, TheGuestIsToldOfThem) {
  SeedInput input;
  input.mac = "52:54:00:00:00:01";
  auto text = [&](const char* document) {
    for (const auto& [name, content] : SeedDocuments(input)) {
      if (name == document) return content;
    }
    return std::string();
  };
  EXPECT_THAT(text("network-config"), Not(HasSubstr("route-metric")));
  EXPECT_THAT(text("user-data"), Not(HasSubstr("updates")));
  input.nics = {{"lima0", kMac, 150}};
  EXPECT_THAT(text("network-config"), HasSubstr("\"route-metric\": 200"));
  EXPECT_THAT(text("network-config"), HasSubstr("\"route-metric\": 150"));
  EXPECT_THAT(text("network-config"), HasSubstr("\"set-name\": \"lima0\""));
  EXPECT_THAT(text("user-data"), HasSubstr("\"updates\""));
}

}  // namespace
}  // namespace sbxfs
