// Two Debian guests that find each other in libvirt networks.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

class NetworksTest : public DebianGuests {
 protected:
  // A LAN behind a bridge, with a DHCP server, and 10.80.0.2, which is beyond
  // this machine.
  static void MakeLan(const std::filesystem::path& dir) {
    for (const char* command :
         {"ip link add lan0 type bridge", "ip addr add 10.79.0.1/24 dev lan0",
          "ip link set lan0 up", "ip netns add beyond",
          "ip link add out0 type veth peer name out1 netns beyond",
          "ip addr add 10.80.0.1/24 dev out0", "ip link set out0 up",
          "ip -n beyond addr add 10.80.0.2/24 dev out1",
          "ip -n beyond link set out1 up"}) {
      const Ended ended = RunProgram({"sh", "-c", command});
      ASSERT_EQ(ended.status, 0) << command << '\n' << ended.err;
    }
    const Ended dnsmasq = RunProgram(
        {"dnsmasq", "--conf-file=/dev/null", "--port=0", "--interface=lan0",
         "--bind-interfaces", "--dhcp-range=10.79.0.50,10.79.0.60,1h",
         "--pid-file=" + (dir / "dnsmasq.pid").string(),
         "--dhcp-leasefile=" + (dir / "leases").string()});
    ASSERT_EQ(dnsmasq.status, 0) << dnsmasq.err;
  }
  static bool Runs(const std::string& network) {
    return ("\n" + Virsh({"net-list", "--name"}) + "\n")
               .find("\n" + network + "\n") != std::string::npos;
  }
};

TEST_F(NetworksTest, MembersFindEachOtherByName) {
  const char* state = std::getenv("SBXFS_INSIDE");
  ASSERT_NE(state, nullptr);
  ASSERT_NO_FATAL_FAILURE(MakeLan(state));
  ASSERT_EQ(mkdir((Host() / "networks/lan").c_str(), 0755), 0);
  ASSERT_EQ(WriteText(Host() / "networks/lan/config.yaml",
                      "mode: bridged\ninterface: lan0\n"),
            Verdict{});
  for (const char* name : {"one", "two"}) {
    ASSERT_EQ(WriteText(Dir() / fmt::format("{}.yaml", name),
                        "memory: 512MiB\n"
                        "networks:\n"
                        "- lima: shared\n"
                        "- lima: user-v2\n"
                        "- {lima: host, interface: inner}\n"
                        "- {lima: lan, interface: lan, metric: 900}\n",
                        O_CREAT),
              Verdict{});
  }
  Writer one(Dir() / "one/status", "start\n");
  Do("two/status", "start");
  ASSERT_EQ(one.Ended(400s), Verdict{}) << ReadText(Dir() / "one/error");
  for (const char* network : {"shared", "user-v2", "host"}) {
    EXPECT_TRUE(Runs(network)) << network;
  }
  EXPECT_EQ(ReadText(Dir() / "one/pending"), "");

  for (const auto& [from, to] : {std::pair{"one", "two"}, {"two", "one"}}) {
    for (const char* prefix : {"lima", "sbx"}) {
      EXPECT_EQ(In(from, fmt::format("timeout 20 bash -c 'head -c 3 "
                                     "</dev/tcp/{}-{}.internal/22'",
                                     prefix, to)),
                "SSH");
    }
    // By each of them, since each has its own addresses.
    // The agent of a guest that is busy answers in its own time.
    std::string addresses;
    EXPECT_TRUE(Eventually(
        [&] {
          addresses = ReadText(Dir() / to / "ip");
          return std::count(addresses.begin(), addresses.end(), '\n') >= 4;
        },
        60s))
        << addresses;
    for (const char* net : {"104", "105", "106"}) {
      const std::string begin = fmt::format("192.168.{}.", net);
      ASSERT_THAT(addresses, HasSubstr(begin));
      std::string address = addresses.substr(addresses.find(begin));
      address = address.substr(0, address.find('\n'));
      EXPECT_EQ(In(from, fmt::format("timeout 20 bash -c 'head -c 3 "
                                     "</dev/tcp/{}/22'",
                                     address)),
                "SSH");
      EXPECT_EQ(In(from, fmt::format("getent ahostsv4 lima-{}.internal | "
                                     "grep -c .",
                                     to))
                    .empty(),
                false);
    }
  }
  // Lima's names of interfaces; `host` leads nowhere else.
  const std::string routes = In("one", "ip route");
  EXPECT_THAT(routes, HasSubstr("default via 192.168.105.1 dev lima0"));
  EXPECT_THAT(routes, HasSubstr("192.168.106.0/24 dev inner"));
  EXPECT_THAT(routes, Not(HasSubstr("default via 192.168.106.1")));
  // A bridged one has its lease from whoever is there.
  EXPECT_THAT(ReadText(std::filesystem::path(state) / "leases"),
              HasSubstr(" 10.79.0."));
  EXPECT_THAT(In("one", "ip -4 addr show dev lan"), HasSubstr("inet 10.79.0."));
  const std::string reach =
      "sudo ip route replace 10.80.0.2 via {} && "
      "ping -c 2 -W 2 10.80.0.2 >/dev/null && echo yes || echo no";
  EXPECT_EQ(In("one", fmt::format(fmt::runtime(reach), "192.168.106.1")), "no");
  EXPECT_EQ(In("one", fmt::format(fmt::runtime(reach), "192.168.104.1")),
            "yes");
  EXPECT_EQ(In("one", fmt::format(fmt::runtime(reach), "192.168.105.1")),
            "yes");
  EXPECT_THAT(ReadText(Host() / "networks/shared/leases"),
              HasSubstr(" lima-one "));
  EXPECT_EQ(In("one", "getent hosts nobody.internal || echo none"), "none");
  EXPECT_NE(In("one", "getent ahostsv4 host.lima.internal"), "");

  // They end with their last member.
  Do("one/status", "kill");
  EXPECT_TRUE(Runs("shared"));
  Do("two/status", "kill");
  for (const char* network : {"shared", "user-v2", "host"}) {
    EXPECT_TRUE(Eventually([&] { return !Runs(network); })) << network;
  }
}

}  // namespace
}  // namespace sbxfs
