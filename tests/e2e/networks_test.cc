// Debian guests that find each other in libvirt networks, or reach nobody else.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <thread>

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
    if (RunProgram({"ip", "link", "show", "lan0"}).status == 0) return;
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
  // A member of a network, by a namespace of its own.
  static void JoinAs(const std::string& bridge, const std::string& address) {
    for (const std::string& command :
         {std::string("ip netns add member"),
          std::string("ip link add mem0 type veth peer name mem1 netns member"),
          "ip link set mem0 up master " + bridge,
          "ip -n member addr add " + address + "/24 dev mem1",
          std::string("ip -n member link set mem1 up")}) {
      const Ended ended = RunProgram({"sh", "-c", command});
      ASSERT_EQ(ended.status, 0) << command << '\n' << ended.err;
    }
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

// Tells which of the frames of kFrames come by which interface, "mem0 member",
// up to the last of them.
constexpr char kWatch[] = R"py(
import re, select, socket, sys, time
ears = {}
for name in sys.argv[1:]:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    one.bind((name, 0))
    ears[one] = name
seen = set()
end = time.monotonic() + 60
while (left := end - time.monotonic()) > 0:
    for one in select.select(list(ears), [], [], left)[0]:
        for tag in re.findall(rb'probe-([a-z0-9]+)', one.recv(4096)):
            if tag == b'end':
                end = min(end, time.monotonic() + 1)
            seen.add(ears[one] + ' ' + tag.decode())
print(*sorted(seen), sep='\n')
)py";

// What root in a guest can put on its tap, by itself and past its own kernel.
constexpr char kFrames[] = R"py(
import socket, struct, subprocess, sys, time
member, beyond = sys.argv[1:]
def out(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout
mine = bytes.fromhex(open('/sys/class/net/lima0/address').read().strip().replace(':', ''))
here = out('ip', '-4', '-br', 'addr', 'show', 'lima0').split()[2].split('/')[0]
gate = here.rsplit('.', 1)[0] + '.1'
def mac(address):
    out('ping', '-c', '1', '-W', '1', address)
    near = out('ip', 'neigh', 'show', address, 'dev', 'lima0').split()
    return bytes.fromhex(near[near.index('lladdr') + 1].replace(':', ''))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('lima0', 0))
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
def ipv4(to, tag, source=here, port=9999):
    text = b'probe-' + tag + b'.'
    udp = struct.pack('!HHHH', 5353, port, 8 + len(text), 0) + text
    head = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(to))
    return head[:10] + struct.pack('!H', checksum(head)) + head[12:] + udp
IP, IP6 = b'\x08\x00', b'\x86\xdd'
all = b'\xff' * 6
gate_mac, member_mac = mac(gate), mac(member)
frames = [
    gate_mac + mine + IP + ipv4(beyond, b'beyond'),
    gate_mac + member_mac + IP + ipv4(beyond, b'spoofedmac'),
    gate_mac + mine + IP + ipv4(beyond, b'spoofedip', source=member),
    gate_mac + mine + IP + ipv4(gate, b'host'),
    gate_mac + mine + IP + ipv4('127.0.0.1', b'loopback'),
    all + mine + IP + ipv4('255.255.255.255', b'everybody'),
    all + mine + IP + ipv4(here.rsplit('.', 1)[0] + '.255', b'broadcast'),
    all + mine + IP + ipv4('224.0.0.251', b'multicast'),
    gate_mac + mine + b'\x81\x00\x00\x05' + IP + ipv4(beyond, b'vlan'),
    all + mine + b'\x88\xb5' + b'probe-ethertype.' * 4,
    b'\x33\x33' + bytes(3) + b'\x01' + mine + IP6 + struct.pack(
        '!IHBB16s16s', 6 << 28, 16, 59, 255,
        socket.inet_pton(socket.AF_INET6, 'fe80::1'),
        socket.inet_pton(socket.AF_INET6, 'ff02::1')) + b'probe-ipv6......',
    member_mac + mine + IP + ipv4(member, b'member'),
]
for _ in range(3):
    for frame in frames:
        wire.send(frame)
    time.sleep(0.2)
def ask(name):
    query = struct.pack('!6H', 7, 0x100, 1, 0, 0, 0)
    for label in name.split('.'):
        query += bytes([len(label)]) + label.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(query + b'\0' + struct.pack('!HH', 1, 1), (gate, 53))
        answer = s.recv(512)
        return answer[3] & 15, struct.unpack('!H', answer[6:8])[0]
# "No error" and an address; refused, and none.
print(ask('sbx-box.internal'), ask('probe-dns.tunnel.example'))
wire.send(all + mine + b'\x88\xb5' + b'probe-end.' * 6)
)py";

// From its first script on, where it goes on from the template too.
TEST_F(NetworksTest, AnEgressListIsTheOnlyWayOut) {
  const char* state = std::getenv("SBXFS_INSIDE");
  ASSERT_NE(state, nullptr);
  ASSERT_NO_FATAL_FAILURE(MakeLan(state));
  // Whom a DNS that asked others would ask.
  const std::filesystem::path resolv = std::filesystem::path(state) / "resolv";
  ASSERT_EQ(WriteText(resolv, "nameserver 10.80.0.2\n", O_CREAT), Verdict{});
  ASSERT_EQ(
      RunProgram({"mount", "--bind", resolv.string(),
                  std::filesystem::canonical("/etc/resolv.conf").string()})
          .status,
      0);
  const Answering here;
  Make("box", fmt::format(R"yaml({}egress: ['host.lima.internal:{}']
networks: [{{lima: shared}}]
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

  // On its tap there is the network alone.
  (void)AddressesOf("box", 2);
  const std::string bridge(Trim(RunProgram({"sh", "-c",
                                            "virsh net-dumpxml shared | sed -n "
                                            "\"s/.*bridge name='\\([^']*\\)'.*/"
                                            "\\1/p\""})
                                    .out));
  const std::string tap(Trim(
      RunProgram({"sh", "-c",
                  "virsh domiflist box | awk '$3 == \"shared\" {print $1}'"})
          .out));
  constexpr char kMember[] = "192.168.105.250";
  ASSERT_NO_FATAL_FAILURE(JoinAs(bridge, kMember));
  std::string seen;
  std::thread watch([&] {
    seen =
        RunProgram({"python3", "-c", kWatch, tap, bridge, "mem0", "out0", "lo"},
                   90s)
            .out;
  });
  EXPECT_EQ(Trim(In("box", fmt::format("sudo python3 - {} 10.80.0.2 <<'END'\n"
                                       "{}\nEND\n",
                                       kMember, kFrames))),
            "(0, 1) (5, 0)");
  watch.join();
  std::set<std::string> came, sent;
  for (const std::string_view line : Split(Trim(seen), '\n')) {
    (line.starts_with(tap + ' ') ? sent : came).emplace(line);
  }
  EXPECT_EQ(sent.size(), 14U) << seen;
  EXPECT_EQ(came, (std::set<std::string>{"mem0 member", bridge + " dns"}));
}

}  // namespace
}  // namespace sbxfs
