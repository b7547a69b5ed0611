// XML from libvirt: of domains, snapshots and networks, and what sbxfs keeps in
// a domain's metadata. Anyone with virsh can write all of it.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "backend/domain_xml.h"
#include "backend/guest_freeze.h"
#include "backend/kept_facts.h"
#include "backend/layers.h"
#include "backend/metadata.h"
#include "backend/network_xml.h"
#include "backend/packed_text.h"
#include "backend/run_info.h"
#include "backend/snapshot_xml.h"
#include "backend/snapshots.h"
#include "backend/spec/layers.h"
#include "backend/user_network.h"
#include "backend/virsh_changes.h"
#include "backend/warm_xml.h"
#include "backend/xml.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

const Schema& DomainSchema() {
  static const Schema schema("domain");
  return schema;
}

constexpr char kUuid[] = "1b4e28ba-2fa1-4d5c-883f-0016d3cca427";

// What a sandbox has whose definition others have edited.
std::string OurDomain() {
  DomainInput input;
  input.name = "box";
  input.uuid = kUuid;
  input.metadata.pool = "sbxfs";
  input.metadata.disk_volume = input.disk_volume = "box.disk";
  input.metadata.seed_volume = input.seed_volume = "box.seed";
  input.cpus = 2;
  input.memory = 1ULL << 30;
  input.mac = MacFor(kUuid);
  input.forwards = {SshForward(60022)};
  return DomainXml(input);
}

std::string Formatted(const std::optional<Metadata>& metadata) {
  return metadata ? FormatMetadata(*metadata) : "";
}

// What was read can be written, and then reads the same.
void CheckMetadata(std::string_view xml) {
  const auto read = ParseMetadata(xml);
  if (!read) return;
  const std::string once = FormatMetadata(*read);
  const auto again = ParseMetadata(once);
  Check(again.has_value(), "metadata that is written can be read", once);
  CheckSame(FormatMetadata(*again), once, "metadata, written again");
  Check(again->files == read->files && again->created == read->created &&
            again->config == read->config,
        "metadata reads back as it was", once);
  (void)UnpackLayers(read->applied);
  (void)UnpackLayers(read->bases);
  const PackedText<PackedKind::kMetadata> packed(once);
  CheckSame(packed.Text(), once, "a text that was packed");
}

void CheckRun(std::string_view xml) {
  const RunInfo run = ParseRun(xml);
  const std::string once = FormatRun(run);
  CheckSame(FormatRun(ParseRun(once)), once, "a note on a run, written again");
}

void CheckForwards(const std::string& xml) {
  const std::vector<Forward> forwards = {{true, "0.0.0.0", 53, 53},
                                         SshForward(60022)};
  (void)Try([&] {
    const DomainFacts facts = ParseDomain(WithForwards(xml, forwards));
    std::vector<Forward> sorted = forwards;
    std::sort(sorted.begin(), sorted.end());
    // A note of a running guest's counts for more.
    const DomainFacts before = ParseDomain(xml);
    Check(facts.forwards == sorted || facts.forwards == before.forwards,
          "forwards that were put in are there", xml);
  });
  Check(ParseXml(PortsNote(xml, forwards)) != nullptr, "a note on ports", xml);
}

// The changes of a definition lose nothing of what they are not about.
void CheckDefinition(const std::string& xml, const Metadata& metadata) {
  const bool valid = DomainSchema().Passes(xml);
  for (const std::string& changed :
       {DomainOnLayer(xml, metadata), DomainOnFile(xml, "/pool/x <&>")}) {
    if (valid) DomainSchema().MustPass(changed);
    const DomainFacts facts = ParseDomain(changed);
    CheckSame(facts.name, ParseDomain(xml).name, "the name after a change");
  }
  const std::string ours = OurDomain();
  const std::string kept = KeepForeign(ours, xml);
  if (valid) {
    DomainSchema().MustPass(kept);
    CheckSame(KeepForeign(ours, kept), kept, "what is kept stays so");
  }
  CheckSame(ParseDomain(kept).uuid, kUuid, "what is kept changes no uuid");
  Check(ChangedSince(NoteDefinition(xml), xml).empty(),
        "a definition is as its note says", xml);
  (void)RenewNote(NoteDefinition(ours), xml, {"cpus", "memory", "disk"});
  (void)ChangedSince(metadata.defined, xml);
}

void CheckWarm(const std::string& xml, const Metadata& metadata) {
  if (const auto note = ParseWarmNote(xml)) {
    const auto again = ParseWarmNote(WithWarmNote(xml, *note));
    Check(again && again->image == note->image &&
              again->hypervisor == note->hypervisor &&
              again->memory_stamp == note->memory_stamp,
          "a template's note, written again", xml);
  }
  (void)WhyNoFork(xml);
  (void)WarmMac(xml);
  WarmInput input;
  input.name = "box";
  input.uuid = kUuid;
  input.metadata = metadata;
  input.console_path = "/pool/box.console";
  input.mac = MacFor(kUuid);
  input.memory_path = "/pool/memory";
  input.memory = 1ULL << 30;
  input.forwards = {SshForward(60022)};
  (void)Try([&] {
    const std::string warm = WarmDomainXml(xml, input);
    CheckSame(ParseDomain(warm).name, "box", "a warm guest's name");
    const std::string own = WithOwnMemory(warm);
    Check(own.find("memory-backend-file,id=") == own.npos ||
              xml.find("memory-backend-file") != xml.npos,
          "a guest with its own memory needs no file", own);
  });
  (void)Try([&] { (void)ParseDomain(SavedDomain(xml, "other")); });
}

void CheckDomain(const std::string& xml) {
  DomainFacts facts;
  if (!Try([&] { facts = ParseDomain(xml); })) return;
  for (const auto& tag : facts.tags) {
    Check(ParseXml(FilesystemXml(xml, tag)) != nullptr, "a mount's XML", xml);
  }
  const PackedText<PackedKind::kDomainXml> packed(xml);
  CheckSame(packed.Text(), xml, "a domain that was packed");
  const DomainFacts kept = KeptFacts(facts).Whole();
  CheckSame(Formatted(kept.metadata), Formatted(facts.metadata),
            "metadata that was kept");
  Check(kept.name == facts.name && kept.forwards == facts.forwards,
        "facts that were kept", xml);
  const Metadata metadata = facts.metadata.value_or(Metadata());
  CheckForwards(xml);
  CheckDefinition(xml, metadata);
  CheckWarm(xml, metadata);
}

void CheckSnapshot(const std::string& xml) {
  SnapshotFacts facts;
  if (!Try([&] { facts = ParseSnapshot(xml); })) return;
  SnapshotFacts child = facts;
  child.parent = facts.name;
  child.name = "~undo.1";
  SnapshotFacts circle = facts;
  circle.parent = child.name;
  const std::vector<SnapshotFacts> all = {facts, child, circle};
  for (const auto& [tag, shown] : DescribeSnapshots(all)) {
    CheckSame(tag, shown.tag, "a snapshot is found by its tag");
    Check(FindTag(all, tag) != nullptr, "a tag that is shown", tag);
  }
  (void)ShownTag(all, "~undo.1");
  SnapshotEdit edit;
  edit.name = "new <&> name";
  edit.parent = "other";
  edit.description = "a & b";
  edit.quiesced = edit.unlinked = true;
  const SnapshotFacts edited = ParseSnapshot(EditSnapshot(xml, edit));
  CheckSame(edited.name, *edit.name, "a snapshot's new name");
  CheckSame(edited.parent, *edit.parent, "a snapshot's new parent");
  CheckSame(edited.description, *edit.description, "a snapshot's new text");
  CheckSame(Formatted(edited.metadata), Formatted(facts.metadata),
            "a snapshot's metadata");
}

void CheckNetwork(const std::string& xml) {
  NetworkFacts facts;
  if (!Try([&] { facts = ParseNetwork(xml); })) return;
  const std::string address = AddressFor(facts, "52:54:00:00:00:01");
  if (!address.empty()) {
    (void)Try([&] { (void)LeaseXml("52:54:00:00:00:01", address, "box"); });
  }
  (void)NetworkText(facts.plan);
  (void)facts.Ours();
}

// A blank line is between them.
constexpr std::string_view kElements = R"(
<metadata/>

<sbxfs:sandbox xmlns:sbxfs='https://sbxfs.org/xmlns/sandbox/1'>
<sbxfs:uid>1000</sbxfs:uid>
<sbxfs:config encoding='base64'>Y3B1czogMgo=</sbxfs:config>
<sbxfs:files>status 0640 - 1000 </sbxfs:files></sbxfs:sandbox>

<metadata><sandbox xmlns='https://sbxfs.org/xmlns/sandbox/1'/></metadata>

<r:run xmlns:r='https://sbxfs.org/xmlns/run/1' started='1' ready='2.5'
secrets='A B' disk='1'/>

<p:ports xmlns:p='https://sbxfs.org/xmlns/ports/1' run='1 a'>
<p:forward>tcp:127.0.0.1:1-:2</p:forward></p:ports>

<w:template xmlns:w='https://sbxfs.org/xmlns/warm/1' image='a'/>

<uid>4294967294</uid>

<mode>0750</mode>

<created>-9223372036854775808</created>

<used>9223372036854775807</used>

<files>a 0700 1 2</files>

<rejected encoding='base64'>/w==</rejected>

<sshPort>65535</sshPort>

<trashedName>a</trashedName>

<records encoding='base64'>MyAqYQphYmM=</records>

<disk type='volume' device='disk'><source pool='p' volume='v'/>
<target dev='vda' bus='virtio'/></disk>

<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='/a/b'/><backingStore/><target dev='vdz' bus='virtio'/></disk>

<interface type='network'><source network='n'/>
<mac address='52:54:00:00:00:09'/><alias name='ua-sbxfs-lima0'/></interface>

<filesystem type='mount'><source dir='/s'/><target dir='sbxfs-9p-a-1'/>
</filesystem>

<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/>
<product id='0xbeef'/></source></hostdev>

<memoryBacking><hugepages/></memoryBacking>

<memoryBacking><access mode='shared'/></memoryBacking>

<seclabel type='none'/>

<genid>2d1b4e28-2fa1-4d5c-883f-0016d3cca427</genid>

<cputune><shares>2048</shares></cputune>

<numatune><memory mode='strict' nodeset='0'/></numatune>

<title>A title</title>

<sysinfo type='smbios'><bios><entry name='vendor'>v</entry></bios></sysinfo>

<features><hyperv mode='passthrough'/><pae/></features>

<pae/>

<iothreads>2</iothreads>

<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>
<q:arg value='-foo'/><q:env name='A' value='b'/></q:commandline>

<arg value='user,id=sbxnet0,hostfwd=tcp:127.0.0.1:1-:2'/>

<arg value='virtio-net-pci,netdev=sbxnet0,mac=52:54:00:00:00:01'/>

<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/>
</channel>

<watchdog model='i6300esb' action='reset'/>

<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>

<parent><name>~undo.2</name></parent>

<memory snapshot='external' file='/m'/>

<creationTime>18446744073709551615</creationTime>

<snapshot xmlns='https://sbxfs.org/xmlns/snapshot/1' quiesced='yes'/>

<disks><disk name='vda' snapshot='external'><source file='/o'/></disk></disks>

<ip address='192.168.1.1' prefix='24'><dhcp>
<range start='192.168.1.2' end='192.168.1.254'/>
<host mac='52:54:00:00:00:01' ip='192.168.1.7'/></dhcp></ip>

<forward mode='bridge'><interface dev='eth0'/></forward>

<dns><host ip='1.2.3.4'><hostname>a</hostname></host></dns>
)";

const std::vector<std::string_view>& Elements() {
  static const std::vector<std::string_view> elements = Paragraphs(kElements);
  return elements;
}

const std::vector<std::string_view>& Values() {
  static const std::vector<std::string_view> values = {
      "",
      "0",
      "1",
      "-1",
      "yes",
      "no",
      "255",
      "65536",
      "4294967295",
      "9223372036854775807",
      "-9223372036854775808",
      "18446744073709551615",
      "18446744073709551616",
      "1e999",
      "nan",
      "0x10",
      "07777",
      "010000",
      "KiB",
      "PiB",
      "EiB",
      "vda",
      "vdb",
      "vdc",
      "external",
      "internal",
      "shared",
      "memfd",
      "volume",
      "file",
      "x86_64",
      "aarch64",
      "host-passthrough",
      "custom",
      "pc-q35-7.2",
      "disk.data",
      ".",
      "..",
      "a/b",
      "../../etc/passwd",
      "a b",
      "a\nb",
      "a\tb",
      "~undo.1",
      "~undo.18446744073709551615",
      "~x",
      ".undo",
      "<&>\"']]>",
      "\xc3\xa4\xe2\x82\xac",
      "\xc2\xa0",
      "\x7f",
      "\xc2\x85",
      "ssh-ed25519 AAAA",
      "base64",
      "Y3B1czogMgo=",
      "Y3B1czog!",
      "tcp:127.0.0.1:8080-:3000",
      "udp::65535-:65535",
      "sbxnet0",
      "user,id=sbxnet0,,hostfwd=",
      "org.qemu.guest_agent.0",
      "ua-sbxfs-",
      "0.0.0.1",
      "255.255.255.255",
      "192.168.1.1",
      "fd00::1",
      "3 *a\nabc",
      "cpus=1f2e3d4c memory=00000000",
      "nat",
      "route",
      "bridge",
      "33",
      "32",
  };
  return values;
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  const std::string text(fuzz::Text(data, size));
  fuzz::CheckMetadata(text);
  fuzz::CheckRun(text);
  fuzz::CheckDomain(text);
  fuzz::CheckSnapshot(text);
  fuzz::CheckNetwork(text);
  (void)XmlText(text, "/volume/target/format/@type");
  (void)WithOwnMemory(text);
  (void)FrozenSince(text);
  (void)HasAgent(text);
  (void)VolumesIn(text);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t most, unsigned seed) {
  using namespace sbxfs::fuzz;
  return MutateXml(data, size, most, seed, Elements(), Values());
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  (void)sbxfs::fuzz::DomainSchema();
  return 0;
}
