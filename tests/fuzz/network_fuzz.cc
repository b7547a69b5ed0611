// .host/networks/NAME/config.yaml, and what libvirt is given for it.
#include "backend/network_plan.h"
#include "backend/network_xml.h"
#include "backend/util/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

const Schema& NetworkSchema() {
  static const Schema schema("network");
  return schema;
}

void CheckPlan(std::string_view text, const NetworkPlan& before) {
  NetworkPlan plan;
  const bool good = Try([&] { plan = ReadNetworkPlan(text, before); },
                        [](const Error& error) {
                          Check(IsPlainLine(error.Sentence()),
                                "a refusal is a plain line", error.Sentence());
                        });
  if (!good) return;
  Check(ReadNetworkPlan(NetworkText(plan), {}) == plan,
        "a plan reads back as it is shown", NetworkText(plan));
  for (const bool is_bridge : {false, true}) {
    const std::string xml = NetworkXml("net", plan, is_bridge);
    NetworkSchema().MustPass(xml);
    const NetworkFacts facts = ParseNetwork(xml);
    Check(facts.Ours(), "a network of ours", xml);
    Check(facts.plan == plan, "a network reads back as it was planned", xml);
    if (plan.gateway.empty()) continue;
    const std::string address = AddressFor(facts, "52:54:00:00:00:01");
    const uint32_t mask = Ipv4Number(plan.netmask);
    Check((Ipv4Number(address) & mask) == (Ipv4Number(plan.gateway) & mask) &&
              address != plan.gateway,
          "a guest's address is in its network", xml);
  }
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  const std::string_view text = fuzz::Text(data, size);
  fuzz::CheckPlan(text, NewNetwork("net", {}));
  fuzz::CheckPlan(text, {.mode = "bridged", .interface = "br0"});
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t most, unsigned seed) {
  return sbxfs::fuzz::MutateLines(
      data, size, most, seed,
      {"mode: shared", "mode: host", "mode: bridged", "mode: user-v2",
       "mode: routed", "gateway: 10.1.2.3", "netmask: 255.0.0.0",
       "netmask: 255.255.255.248", "dhcpEnd: 10.1.2.9", "interface: br0"},
      {"0.0.0.1", "255.255.255.254", "10.0.0.1", "10.255.255.254",
       "\"1.2.3.4\"", "010.1.1.1", "1.2.3", "::1", "255.255.255.252",
       "255.0.255.0", "lo", "~", "0", "a b"});
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  (void)sbxfs::fuzz::NetworkSchema();
  return 0;
}
