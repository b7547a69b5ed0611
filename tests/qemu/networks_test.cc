// .host/networks, and blank guests in libvirt's networks.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class NetworksTest : public BlankGuests {
 protected:
  [[nodiscard]] stdfs::path Net(const std::string& name) const {
    return Host() / "networks" / name;
  }
  [[nodiscard]] Verdict Configure(const std::string& name,
                                  const std::string& text) const {
    return WriteText(Net(name) / "config.yaml", text);
  }
  // Has a new sandbox be in networks, a YAML list.
  [[nodiscard]] Verdict MkdirIn(const std::string& name,
                                const std::string& networks) const {
    return WriteText(Dir() / (name + ".yaml"), "networks: " + networks + "\n",
                     O_CREAT);
  }
  [[nodiscard]] Verdict Start(const std::string& name) const {
    return WriteText(Dir() / name / "status", "start\n");
  }
  [[nodiscard]] Verdict Kill(const std::string& name) const {
    return WriteText(Dir() / name / "status", "kill\n");
  }
  [[nodiscard]] Verdict Rmdir(const std::string& name) const {
    return Call([&] { return rmdir(Net(name).c_str()); });
  }
  [[nodiscard]] std::string State(const std::string& name) const {
    return ReadLine(Net(name) / "state");
  }
  [[nodiscard]] std::string Sentence(const std::string& name) const {
    return ReadLine(Dir() / name / "error");
  }
};

TEST_F(NetworksTest, MadeConfiguredAndRemoved) {
  ASSERT_EQ(mkdir(Net("lab").c_str(), 0755), 0);
  EXPECT_THAT(ReadText(Net("lab") / "config.yaml"),
              AllOf(HasSubstr("mode: shared\n"), HasSubstr("gateway: 192.168."),
                    HasSubstr("netmask: 255.255.255.0\n")));
  EXPECT_EQ(mkdir(Net("lab").c_str(), 0755), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(State("lab"), "inactive");
  const std::string text =
      "mode: routed\ngateway: 10.77.0.1\ndhcpEnd: 10.77.0.99\n"
      "netmask: 255.255.255.0\n";
  EXPECT_EQ(Configure("lab", "# comments go\n" + text), Verdict{});
  EXPECT_EQ(ReadText(Net("lab") / "config.yaml"), text);
  EXPECT_THAT(Virsh({"net-dumpxml", "lab"}),
              AllOf(HasSubstr("<forward mode='route'/>"),
                    HasSubstr("end='10.77.0.99'")));
  EXPECT_EQ(Configure("lab", "mode: bridged\n").error, EINVAL);
  EXPECT_THAT(ReadText(Host() / "error"),
              HasSubstr("line 1, column 7: mode is 'bridged', which needs the "
                        "hypervisor's interface"));
  EXPECT_EQ(ReadText(Net("lab") / "config.yaml"), text);
  // The editor's way.
  EXPECT_EQ(RunProgram({"sed", "-i", "s/routed/host/",
                        (Net("lab") / "config.yaml").string()})
                .status,
            0);
  EXPECT_EQ(ReadText(Net("lab") / "config.yaml").substr(0, 11), "mode: host\n");
  EXPECT_EQ(Rmdir("lab"), Verdict{});
  EXPECT_THAT(Virsh({"net-list", "--all", "--name"}),
              testing::Not(HasSubstr("lab")));
}

TEST_F(NetworksTest, BeginWithTheFirstMemberAndEndWithTheLast) {
  ASSERT_EQ(mkdir(Net("lab").c_str(), 0755), 0);
  ASSERT_EQ(MkdirIn("one", "[{lima: lab}, {lima: host, interface: in0}]"),
            Verdict{});
  ASSERT_EQ(MkdirIn("two", "[{lima: lab}]"), Verdict{});
  EXPECT_FALSE(stdfs::exists(Net("host")));
  Boot("one");
  EXPECT_EQ(State("lab"), "active");
  ASSERT_TRUE(Eventually([&] { return stdfs::exists(Net("host") / "state"); }));
  EXPECT_EQ(State("host"), "active");
  Boot("two");
  EXPECT_EQ(ReadText(Net("lab") / "members"), "one\ntwo\n");
  EXPECT_EQ(ReadText(Net("host") / "members"), "one\n");
  EXPECT_EQ(ReadText(Dir() / "one/pending"), "");
  EXPECT_EQ(Rmdir("lab").error, EBUSY);
  EXPECT_THAT(ReadText(Host() / "error"),
              HasSubstr("Cannot remove network 'lab': 'one' has it; take it "
                        "out of networks in its config.yaml"));
  // Each has an address and a name before it asks for them.
  const std::string xml = Virsh({"net-dumpxml", "lab"});
  EXPECT_THAT(xml, AllOf(HasSubstr("name='lima-one'"),
                         HasSubstr("<hostname>sbx-two.internal</hostname>")));

  ASSERT_EQ(Kill("one"), Verdict{});
  EXPECT_TRUE(Eventually([&] { return State("host") == "inactive"; }));
  EXPECT_EQ(State("lab"), "active");
  EXPECT_EQ(ReadText(Net("lab") / "members"), "two\n");
  // The same address again, and the name it has now.
  ASSERT_EQ(Call([&] {
              return rename((Dir() / "one").c_str(), (Dir() / "uno").c_str());
            }),
            Verdict{});
  Boot("uno");
  EXPECT_THAT(
      Virsh({"net-dumpxml", "lab"}),
      AllOf(HasSubstr("name='lima-uno'"), testing::Not(HasSubstr("lima-one"))));
  ASSERT_EQ(Kill("uno"), Verdict{});
  ASSERT_EQ(Kill("two"), Verdict{});
  EXPECT_TRUE(Eventually([&] { return State("lab") == "inactive"; }));
  // Defined with it is reason enough.
  EXPECT_EQ(Rmdir("lab").error, EBUSY);
  Clear(Dir());
  EXPECT_EQ(Rmdir("lab"), Verdict{});
  EXPECT_EQ(Rmdir("host"), Verdict{});
}

TEST_F(NetworksTest, OneOfOthersIsUsedAndNeverChanged) {
  // Made behind our back, and seen at once.
  const std::string file = Host().parent_path().string() + ".net.xml";
  std::ofstream(file) << "<network><name>theirs</name><forward mode='nat'/>"
                         "<bridge name='theirs0'/><ip address='10.78.0.1' "
                         "prefix='24'><dhcp><range start='10.78.0.2' "
                         "end='10.78.0.9'/></dhcp></ip></network>";
  Virsh({"net-define", file});
  unlink(file.c_str());
  ASSERT_TRUE(Eventually([&] { return stdfs::exists(Net("theirs")); }));
  EXPECT_EQ(ReadText(Net("theirs") / "config.yaml"),
            "mode: shared\ngateway: 10.78.0.1\ndhcpEnd: 10.78.0.9\n"
            "netmask: 255.255.255.0\n");
  EXPECT_EQ(Configure("theirs", "mode: host\n").error, EPERM);
  EXPECT_EQ(Rmdir("theirs").error, EPERM);
  EXPECT_THAT(ReadText(Host() / "error"),
              HasSubstr("Cannot remove network 'theirs': others made it; "));

  ASSERT_EQ(MkdirIn("box", "[{lima: theirs}]"), Verdict{});
  EXPECT_EQ(Start("box").error, EHOSTDOWN);
  EXPECT_THAT(Sentence("box"),
              HasSubstr("the network 'theirs', which others made, does not "
                        "run; virsh net-start theirs"));
  Virsh({"net-start", "theirs"});
  const std::string before = Virsh({"net-dumpxml", "theirs"});
  Boot("box");
  EXPECT_EQ(ReadText(Net("theirs") / "members"), "box\n");
  EXPECT_THAT(before, testing::Not(HasSubstr("lima-box")));
  ASSERT_EQ(Kill("box"), Verdict{});
  EXPECT_EQ(Virsh({"net-dumpxml", "theirs"}), before);
  EXPECT_EQ(State("theirs"), "active");
  Virsh({"net-destroy", "theirs"});
  EXPECT_TRUE(Eventually([&] { return State("theirs") == "inactive"; }));
  Virsh({"net-undefine", "theirs"});
  EXPECT_TRUE(Eventually([&] { return !stdfs::exists(Net("theirs")); }));
}

// What it lets through is looked at where there is a guest that sends, in e2e.
TEST_F(NetworksTest, AnEgressListPutsAFilterOnEachTap) {
  const auto filters = [] { return Virsh({"nwfilter-list"}); };
  const std::string config =
      "snapshotMemory: true\negress: ['example.com:443']\n"
      "networks: [{lima: shared}, {lima: host}]\n";
  ASSERT_EQ(WriteText(Dir() / "box.yaml", config, O_CREAT), Verdict{});
  ASSERT_EQ(MkdirIn("free", "[{lima: shared}]"), Verdict{});
  EXPECT_THAT(filters(), testing::Not(HasSubstr("sbxfs-egress")));
  Boot("box");
  Boot("free");
  for (const char* network : {"shared", "host"}) {
    const std::string name = fmt::format("sbxfs-egress-{}", network);
    EXPECT_THAT(filters(), HasSubstr(name));
    EXPECT_THAT(Virsh({"dumpxml", "box"}), HasSubstr(name));
    EXPECT_THAT(Virsh({"dumpxml", "free"}), testing::Not(HasSubstr(name)));
  }
  EXPECT_THAT(Virsh({"nwfilter-binding-list"}), HasSubstr("sbxfs-egress-host"));
  ASSERT_EQ(mkdir((Dir() / "box/snapshots/then").c_str(), 0755), 0);
  EXPECT_TRUE(Eventually([&] {
    return ReadLine(Dir() / "box/snapshots/then/kind") == "disk+memory";
  }));
  // Without a list there is no filter, from the next start on.
  ASSERT_EQ(WriteText(Dir() / "box/config.yaml", "snapshotMemory: true\n"),
            Verdict{});
  EXPECT_THAT(ReadText(Dir() / "box/pending"), HasSubstr("egress"));
  for (const char* name : {"box", "free"}) ASSERT_EQ(Kill(name), Verdict{});
  EXPECT_TRUE(Eventually([&] {
    return filters().find("sbxfs-egress") == std::string::npos;
  })) << filters();
  EXPECT_TRUE(Eventually([&] { return State("host") == "inactive"; }));
  Boot("box");
  EXPECT_THAT(Virsh({"dumpxml", "box"}), testing::Not(HasSubstr("filterref")));
  // A memory from then is of a guest in networks.
  ASSERT_EQ(WriteText(Dir() / "box/snapshot", "then\n"), Verdict{});
  EXPECT_EQ(ReadLine(Dir() / "box/status"), "running");
  EXPECT_THAT(Virsh({"nwfilter-binding-list"}), HasSubstr("sbxfs-egress-host"));
  EXPECT_EQ(ReadText(Net("host") / "members"), "box\n");
  EXPECT_THAT(ReadText(Dir() / "box/pending"),
              AllOf(HasSubstr("egress"), HasSubstr("networks")));

  // Who is behind a bridge is not known.
  ASSERT_EQ(mkdir(Net("lan").c_str(), 0755), 0);
  ASSERT_EQ(Configure("lan", "mode: bridged\ninterface: lo\n"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "far.yaml",
                      "egress: ['example.com:443']\nnetworks: [{lima: lan}]\n",
                      O_CREAT),
            Verdict{});
  EXPECT_EQ(Start("far").error, EINVAL);
  EXPECT_THAT(
      Sentence("far"),
      HasSubstr("the network 'lan' has no address of the hypervisor's"));
  Clear(Dir());
  for (const char* network : {"lan", "shared", "host"}) {
    EXPECT_EQ(Rmdir(network), Verdict{});
  }
}

TEST_F(NetworksTest, WhatCannotBeIsRefused) {
  ASSERT_EQ(MkdirIn("box", "[{lima: nowhere}]"), Verdict{});
  EXPECT_EQ(Start("box").error, ENOENT);
  EXPECT_THAT(Sentence("box"),
              HasSubstr("there is no network 'nowhere'; make it with mkdir "
                        ".host/networks/nowhere"));
  EXPECT_EQ(WriteText(Dir() / "box/config.yaml",
                      "networks: [{lima: shared}]\nnetwork: none\n")
                .error,
            EINVAL);
  EXPECT_THAT(Sentence("box"), HasSubstr("would be another way out"));
  Call([&] { return unlink((Dir() / "box/config.yaml.rejected").c_str()); });
  // A MAC address is one running guest's.
  for (const char* name : {"one", "two"}) {
    ASSERT_EQ(MkdirIn(name, "[{lima: host, macAddress: '52:54:00:0a:0b:0c'}]"),
              Verdict{});
  }
  Boot("one");
  EXPECT_EQ(Start("two").error, EADDRINUSE);
  EXPECT_THAT(Sentence("two"),
              HasSubstr("the macAddress 52:54:00:0a:0b:0c is that of 'one'"));
  // A change of a running one waits, and is told.
  ASSERT_EQ(WriteText(Dir() / "one/config.yaml", "networks: []\n"), Verdict{});
  EXPECT_THAT(ReadText(Dir() / "one/pending"), HasSubstr("networks"));
  ASSERT_EQ(Kill("one"), Verdict{});
  Boot("one");
  EXPECT_EQ(ReadText(Dir() / "one/pending"), "");
  EXPECT_EQ(ReadText(Net("host") / "members"), "");
  Clear(Dir());
  EXPECT_EQ(Rmdir("host"), Verdict{});
}

}  // namespace
}  // namespace sbxfs
