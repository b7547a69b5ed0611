#include "backend/domain_xml.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "backend/user_network.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

constexpr char kUuid[] = "1b4e28ba-2fa1-4d5c-883f-0016d3cca427";

const std::filesystem::path& GoldenDir() {
  static const std::filesystem::path dir =
      std::filesystem::path(SBXFS_SOURCE_DIR) / "tests/unit/golden";
  return dir;
}

DomainInput SomeDomain() {
  DomainInput input;
  input.name = "sbx-box";
  input.uuid = kUuid;
  input.metadata.uid = 1000;
  input.metadata.gid = 1000;
  input.metadata.user = "debian";
  input.metadata.ssh_port = 60022;
  input.forwards = {{false, "127.0.0.1", 60022, 22}};
  input.metadata.pool = "sbxfs";
  input.metadata.disk_volume = "box.qcow2";
  input.metadata.seed_volume = "box.iso";
  input.cpus = 2;
  input.memory = 1ULL << 30;
  input.disk_volume = "box.qcow2";
  input.seed_volume = "box.iso";
  input.console_path = "/var/lib/sbxfs/box.log";
  input.mac = MacFor(kUuid);
  return input;
}

std::vector<Forward> Sorted(std::vector<Forward> forwards) {
  std::sort(forwards.begin(), forwards.end());
  return forwards;
}

struct XmlCase {
  const char* file;
  DomainInput input;
};

void AddCephDisk(DomainInput& input) {
  input.extra_disks = {"data"};
  input.disk_place.pool = "ceph";
  input.disk_place.format = "raw";
  input.disk_place.rbd = "sandboxes";
  input.disk_place.hosts = {{"mon1", "6789"}, {"mon2", ""}};
  input.disk_place.user = "libvirt";
  input.disk_place.secret_uuid = "2a5b08e4-3dca-4ff9-9a1d-40389758d081";
}

std::vector<XmlCase> Cases() {
  std::vector<XmlCase> cases;
  const auto add = [&](const char* file, auto change) {
    DomainInput input = SomeDomain();
    change(input);
    cases.push_back({file, std::move(input)});
  };
  add("tcg-bios.xml", [](DomainInput&) {});
  add("tcg-uefi.xml", [](DomainInput& in) {
    in.uefi = true;
    in.nvram_path = "/var/lib/libvirt/sbxfs/x.nvram";
  });
  add("kvm-bios.xml", [](DomainInput& in) { in.kvm = true; });
  add("kvm-uefi.xml", [](DomainInput& in) { in.kvm = in.uefi = true; });
  add("kvm-model.xml", [](DomainInput& in) {
    in.kvm = true;
    in.cpu_type = "Nehalem,+aes,-vmx,avx=off,popcnt=on";
  });
  add("live.xml", [](DomainInput& in) {
    in.max_cpus = 4;
    in.max_memory = 3ULL << 30;
  });
  add("tcg-max.xml", [](DomainInput& in) { in.cpu_type = "max"; });
  add("blank.xml", [](DomainInput& in) {
    in.disk_volume = in.seed_volume = in.console_path = "";
    in.metadata.ssh_port = 0;
    in.forwards.clear();
  });
  add("forwards.xml", [](DomainInput& in) {
    in.forwards.push_back({false, "0.0.0.0", 8080, 3000});
    in.forwards.push_back({true, "127.0.0.1", 5353, 53});
  });
  add("aarch64.xml", [](DomainInput& in) {
    in.arch = "aarch64";
    in.uefi = true;
  });
  add("armv7l.xml", [](DomainInput& in) { in.arch = "armv7l"; });
  add("riscv64.xml", [](DomainInput& in) { in.arch = "riscv64"; });
  add("test.xml", [](DomainInput& in) { in.test = true; });
  add("ceph-disk.xml", AddCephDisk);
  add("escaped.xml", [](DomainInput& in) {
    in.description = "a <b> & \"c\" 'd' ]]> \xe2\x82\xac\n&amp; two";
    in.metadata.config = "cpus: 2\r\n# \x1b]]>\n";
    in.console_path = "/srv/a & b/<box>.log";
  });
  return cases;
}

std::string ReadFile(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// SBXFS_UPDATE_GOLDEN=1 writes the files anew; look at git diff afterwards.
TEST(DomainXmlTest, IsTheGoldenFile) {
  for (const auto& [file, input] : Cases()) {
    if (std::getenv("SBXFS_UPDATE_GOLDEN") != nullptr) {
      std::ofstream(GoldenDir() / file) << DomainXml(input);
    }
    EXPECT_EQ(DomainXml(input), ReadFile(GoldenDir() / file)) << file;
  }
}

TEST(DomainXmlTest, GoldenFilesAreValidToLibvirt) {
  if (std::system("command -v virt-xml-validate >/dev/null") != 0) {
    GTEST_SKIP() << "virt-xml-validate is not installed";
  }
  for (const auto& [file, input] : Cases()) {
    const std::string command =
        fmt::format("virt-xml-validate '{}' domain >/dev/null",
                    (GoldenDir() / file).string());
    EXPECT_EQ(std::system(command.c_str()), 0) << file;
  }
}

TEST(DomainXmlTest, ReadsBack) {
  for (const auto& [file, input] : Cases()) {
    SCOPED_TRACE(file);
    const DomainFacts facts = ParseDomain(DomainXml(input));
    EXPECT_EQ(facts.name, input.name);
    EXPECT_EQ(facts.uuid, input.uuid);
    EXPECT_EQ(facts.type, input.test ? "test" : (input.kvm ? "kvm" : "qemu"));
    EXPECT_EQ(facts.description, input.description);
    EXPECT_EQ(facts.cpus, input.cpus);
    EXPECT_EQ(facts.memory, input.memory);
    EXPECT_EQ(facts.max_memory, std::max(input.memory, input.max_memory));
    EXPECT_EQ(facts.mac, input.test ? "" : input.mac);
    EXPECT_EQ(facts.uefi, input.uefi);
    EXPECT_EQ(facts.forwards,
              input.test ? std::vector<Forward>() : Sorted(input.forwards));
    ASSERT_TRUE(facts.metadata);
    EXPECT_EQ(facts.metadata->config, input.metadata.config);
    EXPECT_EQ(facts.metadata->ssh_port, input.metadata.ssh_port);
  }
}

TEST(DomainXmlTest, AdditionalDisksFollowTheSeed) {
  DomainInput input = SomeDomain();
  input.extra_disks = {"data", "one-with-a-name-that-is-long"};
  input.disk_place.pool = "vg0";
  input.disk_place.format = "raw";
  const std::string xml = DomainXml(input);
  const DomainFacts facts = ParseDomain(xml);
  EXPECT_EQ(facts.disk_targets,
            (std::vector<std::string>{"vda", "vdb", "vdc", "vdd"}));
  EXPECT_EQ(facts.disk_volumes[2], "disk.data");
  EXPECT_EQ(facts.disk_pool, "vg0");
  EXPECT_EQ(XmlText(xml, "//disk[3]/driver/@type"), "raw");
  EXPECT_EQ(XmlText(xml, "//disk[1]/driver/@type"), "qcow2");
  EXPECT_EQ(facts.disk_volumes[3], "disk.one-with-a-name-that-is-long");
  EXPECT_EQ(XmlText(xml, "//disk[3]/serial"), "data");
  EXPECT_EQ(XmlText(xml, "//disk[4]/serial"), "one-with-a--e8546a82");
  EXPECT_EQ(facts.disk, input.disk_volume);
  EXPECT_EQ(facts.seed, input.seed_volume);
}

TEST(DomainXmlTest, ACephDiskIsKnownByCephsNames) {
  DomainInput input = SomeDomain();
  AddCephDisk(input);
  const DomainFacts facts = ParseDomain(DomainXml(input));
  EXPECT_EQ(facts.disk_volumes[2], "disk.data");
  EXPECT_EQ(facts.disk_pool, "rbd:sandboxes");
  EXPECT_EQ(facts.disk_pool, input.disk_place.Name());
}

TEST(DomainXmlTest, ANicThatIsPluggedInIsAsTheDefinitionHasIt) {
  DomainInput input = SomeDomain();
  input.nics = {{"lima0", "shared", "52:55:55:00:00:01"},
                {"inner", "host", "52:55:55:00:00:02"}};
  const std::string xml = DomainXml(input);
  std::string devices = "<domain><devices>";
  for (const NetworkNic& nic : input.nics) devices += NicXml(nic);
  const DomainFacts plugged = ParseDomain(devices + "</devices></domain>");
  const DomainFacts defined = ParseDomain(xml);
  ASSERT_EQ(plugged.nics.size(), 2U);
  ASSERT_EQ(defined.nics.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(plugged.nics[i].interface, input.nics[i].interface);
    EXPECT_EQ(plugged.nics[i].network, defined.nics[i].network);
    EXPECT_EQ(plugged.nics[i].mac, defined.nics[i].mac);
  }
  EXPECT_EQ(XmlText(NicXml(input.nics[0]), "/interface/model/@type"), "virtio");
}

TEST(DomainXmlTest, ForwardsAreReplacedAlone) {
  DomainInput input = SomeDomain();
  const std::string before = DomainXml(input);
  input.forwards = {{false, "0.0.0.0", 8080, 3000},
                    {false, "127.0.0.1", 2222, 22}};
  EXPECT_EQ(WithForwards(before, input.forwards), DomainXml(input));
  EXPECT_THROW((void)WithForwards("<domain/>", {}), Error);
}

TEST(DomainXmlTest, ANoteCountsForItsOwnQemu) {
  const std::vector<Forward> changed = {{false, "127.0.0.1", 8080, 3000}};
  auto live = [](const char* id, const char* genid, const std::string& note) {
    return fmt::format(
        "<domain id='{}'><genid>{}</genid><metadata>{}</metadata>"
        "<commandline><arg value='user,id=sbxnet0,"
        "hostfwd=tcp:127.0.0.1:2222-:22'/></commandline></domain>",
        id, genid, note);
  };
  const std::string note = PortsNote(live("3", "a", ""), changed);
  EXPECT_EQ(ParseDomain(live("3", "a", note)).forwards, changed);
  const std::vector<Forward> started = {SshForward(2222)};
  EXPECT_EQ(ParseDomain(live("3", "b", note)).forwards, started);
  EXPECT_EQ(ParseDomain(live("4", "a", note)).forwards, started);
}

TEST(DomainXmlTest, RefusesWhatXmlCannotHold) {
  for (const char* bad : {"a\x1b", "a\xff", "a\r\nb", "\xed\xa0\x80", "\x7f"}) {
    DomainInput input = SomeDomain();
    input.description = bad;
    try {
      (void)DomainXml(input);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EINVAL);
      EXPECT_EQ(error.Sentence(),
                "Cannot store 'description' in the domain: it has control "
                "characters or is not UTF-8");
    }
  }
}

TEST(DomainXmlTest, RefusesAnArchitectureWithoutMachine) {
  DomainInput input = SomeDomain();
  input.arch = "vax";
  try {
    (void)DomainXml(input);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL);
    EXPECT_EQ(error.Sentence(),
              "Cannot define 'sbx-box': there is no machine of architecture "
              "'vax'; set arch to x86_64, aarch64, armv7l or riscv64");
  }
}

TEST(DomainXmlTest, MemoryIsRoundedUpToKibibytes) {
  DomainInput input = SomeDomain();
  input.memory = 1000001;
  EXPECT_EQ(ParseDomain(DomainXml(input)).memory, 977U * 1024);
}

TEST(ParseDomainTest, ReadsWhatOthersWrote) {
  const DomainFacts facts = ParseDomain(R"(
<domain type='kvm' id='3'>
  <name>win</name><uuid> 1b4e28ba-2fa1-4d5c-883f-0016d3cca427 </uuid>
  <memory unit='GiB'>2</memory><currentMemory unit='KiB'>1</currentMemory>
  <vcpu placement='static' current='1'>4</vcpu>
  <os><type>hvm</type><loader readonly='yes' type='pflash'>/f.fd</loader></os>
  <cpu mode='host-passthrough' check='none'/>
  <devices>
    <disk type='file' device='disk'>
      <source file='/a.img'/><target dev='sda' bus='sata'/></disk>
    <disk type='volume' device='disk'>
      <source pool='p' volume='v'/><target dev='vda' bus='virtio'/></disk>
    <interface type='network'><mac address='52:54:00:aa:bb:cc'/>
      <source network='default'/><target dev='vnet0'/></interface>
    <interface type='user'><mac address='52:54:00:aa:bb:cd'/></interface>
  </devices>
</domain>)");
  EXPECT_EQ(facts.name, "win");
  EXPECT_EQ(facts.uuid, kUuid);
  EXPECT_EQ(facts.type, "kvm");
  EXPECT_EQ(facts.cpus, 1U);
  EXPECT_EQ(facts.max_cpus, 4U);
  EXPECT_EQ(facts.memory, 1024U);
  EXPECT_EQ(facts.max_memory, 2ULL << 30);
  EXPECT_EQ(facts.mac, "52:54:00:aa:bb:cc");
  EXPECT_TRUE(facts.uefi);
  EXPECT_EQ(facts.cpu_type, "host-passthrough");
  EXPECT_EQ(facts.disk_targets, (std::vector<std::string>{"sda", "vda"}));
  EXPECT_EQ(facts.disk_volumes, (std::vector<std::string>{"", "v"}));
  EXPECT_EQ(facts.interface_targets, (std::vector<std::string>{"vnet0"}));
  EXPECT_FALSE(facts.metadata);
}

TEST(ParseDomainTest, MemoryUnits) {
  const struct {
    const char* memory;
    uint64_t bytes;
  } kCases[] = {{"<memory>1024</memory>", 1U << 20},
                {"<memory unit='bytes'>1048576</memory>", 1U << 20},
                {"<memory unit='b'>1048576</memory>", 1U << 20},
                {"<memory unit='k'>1024</memory>", 1U << 20},
                {"<memory unit='MiB'> 1\n</memory>", 1U << 20},
                {"<memory unit='parsec'>1</memory>", 0},
                {"<memory>-1</memory>", 0},
                {"", 0}};
  for (const auto& [memory, bytes] : kCases) {
    EXPECT_EQ(ParseDomain(fmt::format("<domain>{}</domain>", memory)).memory,
              bytes)
        << memory;
  }
}

TEST(ParseDomainTest, RefusesWhatIsNoDomain) {
  for (const char* bad :
       {"", "text", "<domain>", "<network/>", "<!DOCTYPE domain><domain/>"}) {
    try {
      (void)ParseDomain(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EIO);
      EXPECT_EQ(error.Sentence(),
                "Cannot read the domain's XML: libvirt gave a text that is no "
                "domain; look at it with virsh dumpxml");
    }
  }
}

TEST(MacForTest, IsStableAndInQemusRange) {
  EXPECT_EQ(MacFor(kUuid), MacFor(kUuid));
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string mac = MacFor(fmt::format("{:08x}-2fa1", i));
    EXPECT_TRUE(mac.starts_with("52:54:00:")) << mac;
    EXPECT_EQ(mac.size(), 17U);
    seen.insert(mac);
  }
  EXPECT_GT(seen.size(), 990U);
}

TEST(VolumeXmlTest, Overlay) {
  EXPECT_EQ(VolumeXml("a&b", "qcow2", 1024, 0, "/pool/base <1>", "raw"),
            "<volume>\n"
            "  <name>a&amp;b</name>\n"
            "  <capacity unit=\"bytes\">1024</capacity>\n"
            "  <allocation unit=\"bytes\">0</allocation>\n"
            "  <target>\n"
            "    <format type=\"qcow2\"/>\n"
            "    <compat>1.1</compat>\n"
            "  </target>\n"
            "  <backingStore>\n"
            "    <path>/pool/base &lt;1&gt;</path>\n"
            "    <format type=\"raw\"/>\n"
            "  </backingStore>\n"
            "</volume>\n");
}

TEST(VolumeXmlTest, Raw) {
  EXPECT_EQ(VolumeXml("seed", "raw", 10, 10, "", ""),
            "<volume>\n"
            "  <name>seed</name>\n"
            "  <capacity unit=\"bytes\">10</capacity>\n"
            "  <allocation unit=\"bytes\">10</allocation>\n"
            "  <target>\n"
            "    <format type=\"raw\"/>\n"
            "  </target>\n"
            "</volume>\n");
}

TEST(PoolXmlTest, Dir) {
  EXPECT_EQ(PoolXml("sbxfs", "/srv/a&b"),
            "<pool type=\"dir\">\n"
            "  <name>sbxfs</name>\n"
            "  <target>\n"
            "    <path>/srv/a&amp;b</path>\n"
            "  </target>\n"
            "</pool>\n");
}

TEST(XmlTextTest, FirstMatchOrNothing) {
  constexpr char kXml[] = "<a><b c='d'>1</b><b>2<e>3</e></b></a>";
  EXPECT_EQ(XmlText(kXml, "/a/b"), "1");
  EXPECT_EQ(XmlText(kXml, "/a/b[2]"), "23");
  EXPECT_EQ(XmlText(kXml, "/a/b/@c"), "d");
  EXPECT_EQ(XmlText(kXml, "/a/x"), "");
  EXPECT_EQ(XmlText(kXml, "count(/a/b)"), "");
  EXPECT_EQ(XmlText("<a>", "/a"), "");
  EXPECT_EQ(XmlText(DomainXml(SomeDomain()),
                    "/domain/metadata/sbxfs:sandbox/sbxfs:sshPort"),
            "60022");
}

}  // namespace
}  // namespace sbxfs
