#include "backend/forwards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

using Proto = PortForward::Proto;

PortForward Rule(int guest, int host, Proto proto = Proto::kTcp) {
  PortForward rule;
  rule.guest_first = rule.guest_last = guest;
  rule.host_first = rule.host_last = host;
  rule.proto = proto;
  return rule;
}

PortForward Range(int first, int last, bool ignore = false) {
  PortForward rule;
  rule.guest_first = rule.host_first = first;
  rule.guest_last = rule.host_last = last;
  rule.ignore = ignore;
  return rule;
}

// "tcp:127.0.0.1:8080-:3000 …" of what the rules come to, ssh on 2222.
std::string Come(std::vector<PortForward> rules) {
  Spec spec;
  spec.port_forwards = std::move(rules);
  std::string text;
  for (const Forward& one : ForwardsOf(spec, 2222)) {
    if (one == SshForward(2222)) continue;
    text += (text.empty() ? "" : " ") + FormatHostfwd(one);
  }
  return text;
}

std::string RefusalOf(std::vector<PortForward> rules) {
  try {
    return "accepted: " + Come(std::move(rules));
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL);
    return error.Sentence();
  }
}

TEST(ForwardsTest, SshIsAlwaysThere) {
  EXPECT_EQ(ForwardsOf(Spec(), 2222), std::vector{SshForward(2222)});
  EXPECT_EQ(ForwardsOf(Spec(), 0), std::vector<Forward>());
  EXPECT_EQ(FormatHostfwd(SshForward(2222)), "tcp:127.0.0.1:2222-:22");
}

TEST(ForwardsTest, RulesMeanWhatLimaMeans) {
  EXPECT_EQ(Come({}), "");
  EXPECT_EQ(Come({Rule(3000, 8080)}), "tcp:127.0.0.1:8080-:3000");
  EXPECT_EQ(Come({Rule(53, 5353, Proto::kUdp)}), "udp:127.0.0.1:5353-:53");
  EXPECT_EQ(Come({Rule(53, 5353, Proto::kAny)}),
            "tcp:127.0.0.1:5353-:53 udp:127.0.0.1:5353-:53");
  PortForward range = Range(4000, 4002);
  range.proto = Proto::kTcp;
  range.host_first = 5000;
  range.host_last = 5002;
  range.host_ip = "0.0.0.0";
  EXPECT_EQ(Come({range}),
            "tcp:0.0.0.0:5000-:4000 tcp:0.0.0.0:5001-:4001 "
            "tcp:0.0.0.0:5002-:4002");
}

TEST(ForwardsTest, TheFirstRuleThatFitsDecides) {
  EXPECT_EQ(Come({Rule(3000, 8080), Rule(3000, 9090)}),
            "tcp:127.0.0.1:8080-:3000");
  PortForward ignore = Range(3001, 3001, true);
  ignore.guest_ip = "0.0.0.0";
  PortForward range = Range(3000, 3002);
  range.proto = Proto::kTcp;
  EXPECT_EQ(Come({ignore, range}),
            "tcp:127.0.0.1:3000-:3000 tcp:127.0.0.1:3002-:3002");
  EXPECT_EQ(Come({range, ignore}),
            "tcp:127.0.0.1:3000-:3000 tcp:127.0.0.1:3001-:3001 "
            "tcp:127.0.0.1:3002-:3002");
  // One for TCP says nothing of UDP.
  ignore.proto = Proto::kTcp;
  range.proto = Proto::kUdp;
  EXPECT_EQ(Come({ignore, Rule(3001, 3001, Proto::kUdp)}),
            "udp:127.0.0.1:3001-:3001");
  // One for the guest's loopback says nothing of servers on every address,
  // which are what QEMU reaches.
  ignore = Range(3001, 3001, true);
  EXPECT_EQ(Come({ignore, Rule(3001, 3001)}), "tcp:127.0.0.1:3001-:3001");
  ignore.guest_ip_must_be_zero = true;
  EXPECT_EQ(Come({ignore, Rule(3001, 3001)}), "");
}

TEST(ForwardsTest, WholeRangesOpenNothing) {
  PortForward all = Range(1, 65535, true);
  all.guest_ip = "0.0.0.0";
  EXPECT_EQ(Come({Rule(3000, 3000), all, Rule(3001, 3001)}),
            "tcp:127.0.0.1:3000-:3000");
  EXPECT_EQ(Come({Range(1, 65535)}), "");
  PortForward socket;
  socket.guest_socket = "/run/docker.sock";
  socket.host_socket = "/run/user/1/docker.sock";
  EXPECT_EQ(Come({socket, Rule(3000, 3000)}), "tcp:127.0.0.1:3000-:3000");
  Spec plain;
  plain.plain = true;
  plain.port_forwards = {Rule(3000, 3000)};
  EXPECT_EQ(ForwardsOf(plain, 2222), std::vector{SshForward(2222)});
}

TEST(ForwardsTest, Refusals) {
  EXPECT_EQ(RefusalOf({Range(1000, 1600)}),
            "Cannot accept 'config.yaml': portForwards: more than 512 ports in "
            "all; each is opened whether anything listens in the guest or "
            "not, so name those that are used");
  EXPECT_EQ(RefusalOf({Rule(80, 8080), Rule(81, 8080)}),
            "Cannot accept 'config.yaml': portForwards: guest ports 80 and 81 "
            "both want the host's 127.0.0.1:8080; give one of them another "
            "hostPort");
  EXPECT_EQ(RefusalOf({Rule(80, 2222)}),
            "Cannot accept 'config.yaml': portForwards: guest ports 22 and 80 "
            "both want the host's 127.0.0.1:2222; give one of them another "
            "hostPort");
  PortForward v6 = Rule(53, 5353, Proto::kUdp);
  v6.host_ip = "::1";
  EXPECT_EQ(RefusalOf({v6}),
            "Cannot accept 'config.yaml': portForwards: UDP from hostIP '::1': "
            "it comes by QEMU's user-mode network, which has IPv4 alone");
}

TEST(ForwardsTest, TunnelsAreWhatQemuCannotReach) {
  Spec spec;
  PortForward docker;
  docker.guest_socket = "/run/docker.sock";
  docker.host_socket = "/run/user/1/docker.sock";
  PortForward agent = docker;
  agent.reverse = true;
  agent.guest_socket = "/run/agent:1%.sock";
  PortForward port;
  port.guest_socket = "/run/docker.sock";
  port.host_first = port.host_last = 2375;
  PortForward loopback = Rule(3000, 8080, Proto::kAny);
  loopback.guest_ip = "127.0.0.1";
  PortForward v6 = Rule(3001, 8081);
  v6.host_ip = "::1";
  PortForward off = docker;
  off.ignore = true;
  // The first that fits decides here too.
  PortForward late = Rule(3001, 8082);
  spec.port_forwards = {docker, agent, port, loopback, v6, off, late};
  const std::vector<Tunnel> expected = {
      {false, "/run/user/1/docker.sock", "/run/docker.sock"},
      {false, "127.0.0.1:2375", "/run/docker.sock"},
      {false, "127.0.0.1:8080", "127.0.0.1:3000"},
      {false, "[::1]:8081", "127.0.0.1:3001"},
      {true, "/run/user/1/docker.sock", "/run/agent:1%.sock"}};
  EXPECT_EQ(TunnelsOf(spec), expected);
  // UDP has no other way.
  EXPECT_EQ(ForwardsOf(spec, 0),
            (std::vector<Forward>{{true, "127.0.0.1", 8080, 3000}}));
  using Words = std::vector<std::string>;
  EXPECT_EQ(SshWords(expected[0]),
            (Words{"-L", "/run/user/1/docker.sock:/run/docker.sock"}));
  EXPECT_EQ(SshWords(expected[3]), (Words{"-L", "[::1]:8081:127.0.0.1:3001"}));
  EXPECT_EQ(SshWords(expected[4]),
            (Words{"-R", "/run/agent\\:1%%.sock:/run/user/1/docker.sock"}));
  spec.plain = true;
  EXPECT_TRUE(TunnelsOf(spec).empty());
}

TEST(ForwardsTest, CollideAsListenersDo) {
  const Forward one{false, "127.0.0.1", 80, 80};
  EXPECT_TRUE(Collide(one, {false, "127.0.0.1", 80, 81}));
  EXPECT_TRUE(Collide(one, {false, "0.0.0.0", 80, 80}));
  EXPECT_FALSE(Collide(one, {false, "127.0.0.2", 80, 80}));
  EXPECT_FALSE(Collide(one, {true, "127.0.0.1", 80, 80}));
  EXPECT_FALSE(Collide(one, {false, "127.0.0.1", 81, 80}));
}

TEST(ForwardsTest, HostfwdReadsBack) {
  for (const Forward& one : {Forward{false, "127.0.0.1", 1, 65535},
                             Forward{true, "0.0.0.0", 53, 1}}) {
    EXPECT_EQ(ParseHostfwd(FormatHostfwd(one)), one);
  }
  for (const char* bad : {"", "tcp", "tcp:127.0.0.1:1:2", "udp:127.0.0.1:x-:2",
                          "tcp:127.0.0.1:0-:2", "tcp:127.0.0.1:1-:65536",
                          "sctp:127.0.0.1:1-:2", "tcp:127.0.0.1:1-:2:3"}) {
    EXPECT_FALSE(ParseHostfwd(bad)) << bad;
  }
}

TEST(ForwardsTest, ReadsUsernet) {
  constexpr char kText[] =
      "Hub -1 (other):\r\n"
      "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port\r\n"
      "  TCP[HOST_FORWARD]  11       127.0.0.1  1111    192.168.5.15    11\r\n"
      "Hub -1 (sbxnet0):\r\n"
      "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port "
      "RecvQ SendQ\r\n"
      "  TCP[ESTABLISHED]   24       127.0.0.1  2222    192.168.5.15    22     "
      "0     0\r\n"
      "  TCP[HOST_FORWARD]  12               *  8080    192.168.5.15  3000     "
      "0     0\r\n"
      "  TCP[HOST_FORWARD]  13       127.0.0.1  2222    192.168.5.15    22     "
      "0     0\r\n"
      "  UDP[HOST_FORWARD]  14       127.0.0.1  5353    192.168.5.15    53     "
      "0     0\r\n"
      "  ICMP[10 sec]       20    192.168.5.15     -         8.8.8.8     -     "
      "0     0\r\n";
  const std::vector<Forward> expected = {{false, "0.0.0.0", 8080, 3000},
                                         SshForward(2222),
                                         {true, "127.0.0.1", 5353, 53}};
  EXPECT_EQ(ParseUsernet(kText, "sbxnet0"), expected);
  EXPECT_EQ(ParseUsernet("", "sbxnet0"), std::vector<Forward>());
  EXPECT_EQ(CountConnections(kText, "sbxnet0"), 1);
  EXPECT_EQ(CountConnections(kText, "other"), 0);
}

TEST(ForwardsTest, OnTheHypervisorQemuIsTheOneWay) {
  const auto spec = [](const std::string& rule) {
    return ParseSpec(
        {{"config.yaml", "portForwards:\n- {hostIP: '@hv', " + rule + "}\n"}});
  };
  EXPECT_THAT(ForwardsOf(spec("guestPort: 80, hostPort: 8080, proto: any"), 0),
              testing::IsSupersetOf({Forward{false, "0.0.0.0", 8080, 80},
                                     Forward{true, "0.0.0.0", 8080, 80}}));
  for (const char* rule : {"guestPort: 80, guestIP: 127.0.0.1",
                           "guestSocket: /run/a, hostPort: 8080"}) {
    EXPECT_THROW((void)ForwardsOf(spec(rule), 0), Error) << rule;
  }
  EXPECT_EQ(
      ForwardEntries(spec("guestPort: 80, hostPort: 8080")).at("80").value,
      "@hv:8080");
  EXPECT_EQ(ParseSpec({{"config.yaml", SetForward("", "80", "@hv:8080")}})
                .port_forwards.at(0)
                .host_ip,
            kOnHypervisor);
}

}  // namespace
}  // namespace sbxfs
