// config.yaml: read, shown, and made into all that a sandbox is made from.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "backend/domain_xml.h"
#include "backend/forwards.h"
#include "backend/guest/boot.h"
#include "backend/guest/seed.h"
#include "backend/mount/host_directory.h"
#include "backend/mount/sshfs.h"
#include "backend/network_xml.h"
#include "backend/spec/layers.h"
#include "backend/spec/spec.h"
#include "backend/util/utf8.h"
#include "backend/virsh_changes.h"
#include "backend/xml.h"
#include "tests/fuzz/config_words.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

constexpr char kUuid[] = "1b4e28ba-2fa1-4d5c-883f-0016d3cca427";
constexpr char kConfig[] = "config.yaml";

const Schema& DomainSchema() {
  static const Schema schema("domain");
  return schema;
}

// For people: on one line, whatever the text had in it.
void CheckRefusal(const Error& error) {
  Check(error.Errno() == EINVAL, "a refusal of settings is EINVAL",
        error.Sentence());
  Check(IsPlainLine(error.Sentence()), "a refusal is a plain line",
        error.Sentence());
  Check(error.Sentence().size() < 4000, "a refusal can be read",
        error.Sentence());
}

DomainInput InputFor(const Spec& spec, const Spec& expanded, bool kvm) {
  DomainInput input;
  input.name = "box";
  input.uuid = kUuid;
  input.description = spec.description;
  input.metadata.uid = input.metadata.gid = 1000;
  input.metadata.user = spec.user;
  input.metadata.ssh_port = 60022;
  input.metadata.pool = "sbxfs";
  input.metadata.disk_volume = input.disk_volume = "box.disk";
  input.metadata.seed_volume = input.seed_volume = "box.seed";
  input.arch = spec.arch.empty() ? "x86_64" : spec.arch;
  input.kvm = kvm && input.arch == "x86_64";
  input.cpu_type = spec.cpu_type;
  input.cpus = spec.cpus;
  input.memory = spec.memory;
  input.max_cpus = spec.max_cpus;
  input.max_memory = spec.max_memory;
  input.uefi = !spec.legacy_bios.value_or(true);
  for (const auto& disk : spec.additional_disks) {
    input.extra_disks.push_back(disk.name);
  }
  input.disk_place.pool = "sbxfs";
  input.disk_place.format = "qcow2";
  if (spec.mount_type == MountType::k9p) {
    input.directories = DirectoriesOf(expanded);
  }
  input.shared_memory = spec.mount_type == MountType::kVirtiofs;
  input.console_path = "/var/lib/sbxfs/box.log";
  input.mac = MacFor(kUuid);
  for (size_t i = 0; i < spec.networks.size() && !spec.plain; ++i) {
    const NetworkSpec& network = spec.networks[i];
    const std::string interface = network.interface.empty()
                                      ? fmt::format("lima{}", i)
                                      : network.interface;
    input.nics.push_back({interface, network.name,
                          network.mac_address.empty()
                              ? MacForInterface(kUuid, interface)
                              : network.mac_address});
  }
  input.isolated = spec.isolated || !spec.egress.empty();
  return input;
}

void CheckDomain(const Spec& spec, const Spec& expanded, bool kvm) {
  DomainInput input = InputFor(spec, expanded, kvm);
  // Ports that collide are told of here.
  if (!Try([&] { input.forwards = ForwardsOf(spec, 60022); })) return;
  (void)Try([&] { (void)TunnelsOf(expanded); });
  const std::string xml = DomainXml(input);
  DomainSchema().MustPass(xml);
  const DomainFacts facts = ParseDomain(xml);
  Check(facts.cpus == input.cpus && SameMemory(facts.memory, input.memory),
        "a domain reads back as it was written", xml);
  CheckSame(facts.description, input.description, "a description in XML");
  std::vector<Forward> forwards = input.forwards;
  std::sort(forwards.begin(), forwards.end());
  Check(facts.forwards == forwards, "forwards read back", xml);
  Check(facts.nics.size() == input.nics.size(), "networks read back", xml);
  Check(ChangedSince(NoteDefinition(xml), xml).empty(),
        "a definition is as its note says", xml);
  for (const NetworkNic& nic : input.nics) {
    Check(ParseXml(NicXml(nic)) != nullptr, "a NIC's XML", nic.interface);
  }
  for (const MountSpec& mount : expanded.mounts) {
    Check(ParseXml(VirtiofsXml(mount, IdMap())) != nullptr, "a mount's XML",
          mount.location);
    (void)GuestCommand(mount);
    (void)DirectoryMountScript(mount, TagOf(mount));
  }
}

void CheckGuest(const Spec& expanded) {
  SeedInput seed;
  seed.instance_id = kUuid;
  seed.hostname = "lima-box";
  seed.user = expanded.user;
  seed.uid = expanded.uid;
  seed.home = expanded.home;
  seed.shell = expanded.shell;
  seed.comment = expanded.comment;
  seed.mac = MacFor(kUuid);
  for (const NetworkSpec& network : expanded.networks) {
    seed.nics.push_back(
        {network.interface, network.mac_address, network.metric});
  }
  seed.boot =
      BootDocuments({.name = "box",
                     .hostname = seed.hostname,
                     .instance_id = kUuid,
                     .user = seed.user,
                     .spec = expanded,
                     .env = GuestEnv(expanded, [](const char*) -> const char* {
                       return "http://user@127.0.0.1:8080/x";
                     })});
  const auto documents = SeedDocuments(seed);
  Check(documents.size() >= 3, "a seed's documents");
}

// A variable or param that is null is an empty text, which is not shown.
Spec WithoutEmpty(Spec spec) {
  for (auto* texts : {&spec.env, &spec.param}) {
    std::erase_if(*texts, [](const auto& one) { return one.second.empty(); });
  }
  return spec;
}

// What is shown as what holds says the same when it is read.
void CheckEffective(const std::vector<Layer>& layers, const Spec& spec) {
  // Nor is a param that is null there for a template.
  if (WithoutEmpty(spec).param != spec.param) return;
  const std::string text = EffectiveText(layers, {{"sshPort", "60022"}});
  try {
    const Spec again = ParseSpec({{"effective.yaml", text}});
    const auto keys = Differences(WithoutEmpty(spec), WithoutEmpty(again));
    Check(keys.empty(), "effective.yaml says what config.yaml says",
          fmt::format("{}\n{}", fmt::join(keys, " "), text));
  } catch (const Error& error) {
    Fail("effective.yaml can be read", error.Sentence() + "\n" + text);
  }
}

void CheckLayers(const std::string& text) {
  const std::vector<Layer> layers = {{"built-in", BuiltInLayer("me")},
                                     {kConfig, text}};
  const auto back = UnpackLayers(PackLayers(layers));
  Check(back.size() == layers.size() && back[1].text == text &&
            back[1].name == kConfig,
        "layers that are packed are unpacked the same", text);
  Spec spec;
  if (!Try([&] { spec = ParseSpec(layers); }, CheckRefusal)) return;
  Check(Differences(spec, ParseSpec(layers)).empty(), "a text means one thing");
  CheckEffective(layers, spec);
  (void)MountEntries(spec);
  (void)ForwardEntries(spec);
  const std::string skeleton = Skeleton(spec);
  Check(Differences(Spec(), ParseSpec({{kConfig, skeleton}})).empty(),
        "a skeleton sets nothing", skeleton);
  Spec expanded = spec;
  Expand({.name = "box",
          .hostname = "lima-box",
          .dir = "/run/sbxfs/box",
          .uid = "1000",
          .home = "/home/me",
          .host_user = "me",
          .host_uid = "1000",
          .host_home = "/home/me",
          .host_arch = "amd64",
          .ssh_port = "60022"},
         expanded);
  CheckDomain(spec, expanded, text.size() % 2 == 0);
  CheckGuest(expanded);
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  const std::string text(fuzz::Text(data, size));
  fuzz::CheckLayers(text);
  (void)fuzz::Try([&] { CheckLayer("override.yaml", text, false); },
                  fuzz::CheckRefusal);
  // Each template stands on the text itself, or is a text of no keys.
  (void)fuzz::Try(
      [&] {
        (void)TakeBases(text, [&](const std::string& path) {
          return path.size() % 2 == 0 ? std::optional(text)
                                      : std::optional(std::string("cpus: 1"));
        });
      },
      fuzz::CheckRefusal);
  (void)fuzz::Try([&] { (void)SetsKey(text, "ssh.localPort"); },
                  fuzz::CheckRefusal);
  (void)UnpackLayers(text);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t most, unsigned seed) {
  using namespace sbxfs::fuzz;
  return MutateLines(data, size, most, seed, ConfigLines(), ConfigValues());
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  (void)sbxfs::fuzz::DomainSchema();
  return 0;
}
