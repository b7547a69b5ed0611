// Debian guests that find each other in libvirt networks, or reach nobody else.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"
#include "tests/support/reach.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class NetworksTest : public DebianGuests {
 protected:
  NetworksTest() : DebianGuests(Boots::kWarmIfItCan) {}

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
  // Once it has so many.
  std::string AddressesOf(const std::string& name, int count) {
    // The agent of a guest that is busy answers in its own time.
    std::string addresses;
    EXPECT_TRUE(Eventually(
        [&] {
          addresses = ReadText(Dir() / name / "ip");
          return std::count(addresses.begin(), addresses.end(), '\n') >= count;
        },
        60s))
        << addresses;
    return addresses;
  }
  // By its names and by each of its addresses.
  void ExpectReaches(const std::string& from, const std::string& to) {
    for (const char* prefix : {"lima", "sbx"}) {
      EXPECT_EQ(In(from, fmt::format("timeout 20 bash -c 'head -c 3 "
                                     "</dev/tcp/{}-{}.internal/22'",
                                     prefix, to)),
                "SSH");
    }
    const std::string addresses = AddressesOf(to, 4);
    for (const char* net : {"104", "105", "106"}) {
      const std::string begin = fmt::format("192.168.{}.", net);
      ASSERT_THAT(addresses, HasSubstr(begin));
      std::string address = addresses.substr(addresses.find(begin));
      address = address.substr(0, address.find('\n'));
      EXPECT_EQ(In(from, fmt::format("timeout 20 bash -c 'head -c 3 "
                                     "</dev/tcp/{}/22'",
                                     address)),
                "SSH");
    }
    EXPECT_NE(In(from, fmt::format("getent ahostsv4 lima-{}.internal | "
                                   "grep -c .",
                                   to)),
              "0");
  }
  void Reboot(const std::string& name) {
    constexpr char kBootId[] = "cat /proc/sys/kernel/random/boot_id";
    const std::string boot = In(name, kBootId);
    // Left alone a timer may be a minute late.
    (void)In(name,
             "sudo systemd-run -q --on-active=1 "
             "--timer-property=AccuracySec=100ms systemctl reboot");
    ASSERT_TRUE(Eventually(
        [&] { return ReadText(Dir() / name / "ready").starts_with("no"); },
        120s));
    Do(name + "/status", "start");
    EXPECT_NE(In(name, kBootId), boot);
  }
  // All that libvirt's networks gave it, and what config.yaml said of that. A
  // DHCP server of others knows a NIC by what systemd makes of its PCI slot,
  // which is another where it was plugged in.
  std::string NetworksOf(const std::string& name) {
    return In(name,
              "for i in eth0 lima0 lima1 inner; do ip -4 -br address show $i; "
              "cat /sys/class/net/$i/address; done; ls /sys/class/net; "
              "ip route | sed 's/src 10[.]79[.]0[.]../src LEASE/' | sort; ip "
              "link show lan | grep -o 'state UP'");
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
    Make(name, std::string(kWarmConfig) +
                   "networks:\n"
                   "- lima: shared\n"
                   "- lima: user-v2\n"
                   "- {lima: host, interface: inner}\n"
                   "- {lima: lan, interface: lan, metric: 900}\n");
  }
  // They go on from the template where there is one.
  const bool warm = !Volumes(".warm.").empty();
  {
    Writer one(Dir() / "one/status", "start\n");
    if (warm) {
      EXPECT_TRUE(Says("one", "going on from a template"))
          << ReadText(Dir() / "one/progress");
    }
    Do("two/status", "start");
    ASSERT_EQ(one.Ended(400s), Verdict{}) << ReadText(Dir() / "one/error");
  }
  EXPECT_EQ(Volumes(".warm.").empty(), !warm) << "it failed, and was dropped";
  for (const char* network : {"shared", "user-v2", "host"}) {
    EXPECT_TRUE(Runs(network)) << network;
  }
  EXPECT_EQ(ReadText(Dir() / "one/pending"), "");
  ExpectReaches("one", "two");
  ExpectReaches("two", "one");

  // Lima's names of interfaces; `host` leads nowhere else.
  const std::string routes = In("one", "ip route");
  EXPECT_THAT(routes, HasSubstr("default via 192.168.105.1 dev lima0"));
  EXPECT_THAT(routes, HasSubstr("192.168.106.0/24 dev inner"));
  EXPECT_THAT(routes, Not(HasSubstr("default via 192.168.106.1")));
  // A bridged one has its lease from whoever is there.
  EXPECT_THAT(ReadText(std::filesystem::path(state) / "leases"),
              AllOf(HasSubstr(" 10.79.0."), HasSubstr(" lima-one "),
                    Not(HasSubstr("sbxfs-template"))));
  EXPECT_THAT(In("one", "ip -4 addr show dev lan"), HasSubstr("inet 10.79.0."));
  const std::string reach =
      "sudo ip route replace 10.80.0.2 via {0} && "
      "ping -c 2 -W 2 10.80.0.2 >/dev/null && echo yes || echo no; "
      "sudo ip route del 10.80.0.2 via {0}";
  EXPECT_EQ(In("one", fmt::format(fmt::runtime(reach), "192.168.106.1")), "no");
  EXPECT_EQ(In("one", fmt::format(fmt::runtime(reach), "192.168.104.1")),
            "yes");
  EXPECT_EQ(In("one", fmt::format(fmt::runtime(reach), "192.168.105.1")),
            "yes");
  EXPECT_THAT(ReadText(Host() / "networks/shared/leases"),
              HasSubstr(" lima-one "));
  EXPECT_EQ(In("one", "getent hosts nobody.internal || echo none"), "none");
  EXPECT_NE(In("one", "getent ahostsv4 host.lima.internal"), "");

  // A boot makes nothing else of them, by a new QEMU or by the guest.
  const std::string first[] = {NetworksOf("one"), NetworksOf("two")};
  Do("two/status", "kill");
  EXPECT_TRUE(Runs("shared"));
  {
    Writer two(Dir() / "two/status", "start\n");
    if (LongRun()) {
      ASSERT_NO_FATAL_FAILURE(Reboot("one"));
    }
    ASSERT_EQ(two.Ended(650s), Verdict{}) << ReadText(Dir() / "two/error");
  }
  (void)AddressesOf("one", 5);
  (void)AddressesOf("two", 5);
  EXPECT_EQ(NetworksOf("one"), first[0]);
  EXPECT_EQ(NetworksOf("two"), first[1]);
  EXPECT_EQ(ReadText(Dir() / "two/pending"), "");
  ExpectReaches("one", "two");
  ExpectReaches("two", "one");

  // They end with their last member.
  Do("one/status", "kill");
  EXPECT_TRUE(Runs("shared"));
  Do("two/status", "kill");
  for (const char* network : {"shared", "user-v2", "host"}) {
    EXPECT_TRUE(Eventually([&] { return !Runs(network); })) << network;
  }
}

// From its first script on, where it goes on from the template too.
TEST_F(NetworksTest, AnEgressListIsTheOnlyWayOut) {
  const Answering here;
  Make("box", fmt::format(R"yaml({}egress: ['host.lima.internal:{}']
provision:
- script: |
    #!/bin/bash
    exec 3<>/dev/tcp/127.0.0.1/3128 &&
      printf 'CONNECT host.lima.internal:{} HTTP/1.1\r\n\r\n' >&3 &&
      echo "$http_proxy $(tail -c 4 <&3)" >/told
)yaml",
                          kWarmConfig, here.Port(), here.Port()));
  const bool warm = !Volumes(".warm.").empty();
  {
    Writer start(Dir() / "box/status", "start\n");
    if (warm) {
      EXPECT_TRUE(Says("box", "going on from a template"))
          << ReadText(Dir() / "box/progress");
    }
    ASSERT_EQ(start.Ended(650s), Verdict{})
        << ReadText(Dir() / "box/provision.log");
  }
  EXPECT_EQ(Volumes(".warm.").empty(), !warm) << "it failed, and was dropped";
  EXPECT_EQ(In("box", "cat /told"), "http://127.0.0.1:3128 here");
  EXPECT_TRUE(In("box", here.Probe()).starts_with("reached:\n"));
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
}

}  // namespace
}  // namespace sbxfs
