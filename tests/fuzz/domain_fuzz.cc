// What is written into a domain's definition: values of any kind are refused,
// or come back from the XML as they went in.
#include <algorithm>

#include "backend/domain_xml.h"
#include "backend/metadata.h"
#include "backend/snapshot_xml.h"
#include "backend/util/text.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

constexpr char kUuid[] = "1b4e28ba-2fa1-4d5c-883f-0016d3cca427";

const Schema& DomainSchema() {
  static const Schema schema("domain");
  return schema;
}

Time At(uint64_t nanoseconds) {
  return Time(std::chrono::duration_cast<Time::duration>(
      std::chrono::nanoseconds(static_cast<int64_t>(nanoseconds))));
}

Metadata MetadataFrom(Bytes& bytes) {
  Metadata m;
  m.uid = static_cast<uid_t>(bytes.Number(4));
  m.gid = static_cast<gid_t>(bytes.Number(4));
  m.mode = static_cast<mode_t>(bytes.Number(2)) & 07777;
  m.created = At(bytes.Number(8));
  m.used = At(bytes.Number(8));
  m.ssh_port = static_cast<int>(bytes.Number(2));
  m.booted = bytes.Flag();
  m.seeded = bytes.Flag();
  m.borrowed = bytes.Flag();
  if (bytes.Flag()) m.guest_uid = static_cast<unsigned>(bytes.Number(4));
  for (std::string* text :
       {&m.machine,     &m.config,          &m.rejected,     &m.rejected_reason,
        &m.bases,       &m.defined,         &m.applied,      &m.user,
        &m.host_key,    &m.authorized_keys, &m.guest_keys,   &m.pool,
        &m.disk_volume, &m.seed_volume,     &m.seed_digest,  &m.console_volume,
        &m.image,       &m.origin,          &m.origin_layer, &m.origin_memory,
        &m.records,     &m.keeps,           &m.trashed_name}) {
    *text = bytes.Line();
  }
  return m;
}

// Blanks at the ends of short values are not kept.
std::string Kept(const std::string& text) { return std::string(Trim(text)); }

void CheckMetadata(const Metadata& m) {
  std::string xml;
  if (!Try([&] { xml = FormatMetadata(m); })) return;
  const auto back = ParseMetadata(xml);
  Check(back.has_value(), "metadata that is written can be read", xml);
  CheckSame(back->config, m.config, "a document in metadata");
  CheckSame(back->rejected, m.rejected, "a document in metadata");
  CheckSame(back->applied, m.applied, "a document in metadata");
  CheckSame(back->records, m.records, "a document in metadata");
  CheckSame(back->authorized_keys, m.authorized_keys, "a document in metadata");
  CheckSame(back->machine, Kept(m.machine), "a line in metadata");
  CheckSame(back->user, Kept(m.user), "a user in metadata");
  CheckSame(back->disk_volume, Kept(m.disk_volume), "a volume in metadata");
  CheckSame(back->trashed_name, Kept(m.trashed_name), "a name in metadata");
  Check(back->created == m.created && back->used == m.used &&
            back->ssh_port == m.ssh_port && back->guest_uid == m.guest_uid &&
            back->booted == m.booted && back->mode == m.mode,
        "metadata reads back as it was", xml);
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  using namespace sbxfs::fuzz;
  Bytes bytes(data, size);
  DomainInput input;
  input.metadata = MetadataFrom(bytes);
  CheckMetadata(input.metadata);
  input.metadata.pool = "sbxfs";  // it is the mount's
  input.uuid = kUuid;
  input.mac = MacFor(kUuid);
  input.kvm = bytes.Flag();
  input.uefi = bytes.Flag();
  input.shared_memory = bytes.Flag();
  input.isolated = bytes.Flag();
  input.cpus = 1 + bytes.Byte();
  input.max_cpus = bytes.Byte();
  input.memory = (1ULL << 20) + bytes.Number(5);
  input.max_memory = bytes.Number(5);
  input.name = "box";
  input.disk_volume = bytes.Flag() ? "box.disk" : "";
  input.seed_volume = bytes.Flag() ? "box.seed" : "";
  constexpr const char* kArchs[] = {"x86_64", "aarch64", "armv7l", "riscv64"};
  input.arch = kArchs[bytes.Byte() % 4];
  input.description = bytes.Line();
  input.console_path = "/pool/" + bytes.Line();
  input.nvram_path = "/pool/" + bytes.Line();
  for (size_t i = 0; i < bytes.Byte() % 3U; ++i) {
    input.directories.push_back(
        {"sbxfs-9p-a", "/" + bytes.Line(), "mapped", bytes.Flag()});
  }
  std::string xml;
  if (Try([&] { xml = DomainXml(input); })) {
    const DomainFacts facts = ParseDomain(xml);
    CheckSame(facts.description, input.description, "a description in XML");
    Check(facts.metadata.has_value(), "metadata in a domain", xml);
    DomainSchema().MustPass(xml);
  }
  const std::string name = bytes.Line();
  const std::string text = bytes.Rest();
  (void)Try([&] {
    const SnapshotFacts facts =
        ParseSnapshot(SnapshotXml(name, text, {"vda", "vdb"}, "/o", "/m"));
    CheckSame(facts.name, name, "a snapshot's name in XML");
    CheckSame(facts.description, text, "a snapshot's description in XML");
  });
  (void)Try([&] {
    CheckSame(
        XmlText(VolumeXml(name, "qcow2", 1, 0, text, "raw"), "/volume/name"),
        name, "a volume's name in XML");
    CheckSame(XmlText(PoolXml(name, text), "/pool/target/path"), text,
              "a pool's path in XML");
  });
  return 0;
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  (void)sbxfs::fuzz::DomainSchema();
  return 0;
}
