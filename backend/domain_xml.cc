#include "backend/domain_xml.h"

#include <fmt/format.h>
#include <libxml/xpath.h>
#include <libxml/xpathInternals.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>

#include "backend/disk_names.h"
#include "backend/disk_xml.h"
#include "backend/domain_node.h"
#include "backend/user_network.h"
#include "backend/util/error.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

// What differs between the machines of the architectures.
struct Machine {
  std::string_view arch;
  const char* type;
  const char* tcg_cpu;
  std::string_view tcg_features;  // comma-separated
  bool pc;                        // firmware and devices of a PC
};
// qemu64 is what TCG runs quickest; with these it is an x86-64-v2, which many
// programs built today insist on.
constexpr std::array<Machine, 4> kMachines = {{
    {"x86_64", "q35", "qemu64", "cx16,popcnt,sse4.1,sse4.2,ssse3", true},
    {"aarch64", "virt", "cortex-a57", "", false},
    {"armv7l", "virt", "cortex-a15", "", false},
    {"riscv64", "virt", "", "", false},
}};

const Machine& MachineFor(const DomainInput& input) {
  const auto* machine =
      std::find_if(kMachines.begin(), kMachines.end(),
                   [&](const Machine& m) { return m.arch == input.arch; });
  if (machine == kMachines.end()) {
    throw Error(EINVAL,
                fmt::format("Cannot define '{}': there is no machine of "
                            "architecture '{}'; set arch to x86_64, aarch64, "
                            "armv7l or riscv64",
                            input.name, input.arch));
  }
  return *machine;
}

void AddOs(xmlNode* domain, const DomainInput& input, const Machine& machine) {
  xmlNode* os = AddXml(domain, "os");
  AddXml(os, "type", "hvm",
         {{"arch", machine.arch}, {"machine", machine.type}});
  // libvirt picks the firmware's files itself; signed boot would refuse images
  // whose boot loader no one signed.
  if (input.uefi) {
    SetXml(os, "firmware", "efi");
    if (machine.pc) {
      AddXml(AddXml(os, "firmware"), "feature",
             {{"enabled", "no"}, {"name", "secure-boot"}});
    }
    if (!input.nvram_path.empty()) AddXml(os, "nvram", input.nvram_path);
  }
  AddXml(os, "boot", {{"dev", "hd"}});
}

void AddFeatures(xmlNode* domain, const DomainInput& input,
                 const Machine& machine) {
  xmlNode* features = AddXml(domain, "features");
  // Without UEFI there is no ACPI but a PC's.
  if (machine.pc || input.uefi) AddXml(features, "acpi");
  if (machine.pc) AddXml(features, "apic");
  if (!input.kvm) {
    // Left alone QEMU takes up to 1 GiB of translation cache for each guest.
    AddXml(AddXml(features, "tcg"), "tb-cache", "128", {{"unit", "MiB"}});
  }
}

// "+name", "-name", "name=on", "name=off" or "name".
void AddCpuFeature(xmlNode* cpu, std::string_view feature) {
  feature = Trim(feature);
  bool off = feature.starts_with('-');
  if (off || feature.starts_with('+')) feature.remove_prefix(1);
  if (const auto equals = feature.find('='); equals != feature.npos) {
    off = feature.substr(equals + 1) == "off";
    feature = feature.substr(0, equals);
  }
  if (feature.empty()) return;
  AddXml(cpu, "feature",
         {{"policy", off ? "disable" : "require"}, {"name", feature}});
}

// Only a PC's processors can be plugged.
unsigned MaxCpus(const DomainInput& input, const Machine& machine) {
  return machine.pc ? std::max(input.cpus, input.max_cpus) : input.cpus;
}

// With KVM all but the first can be taken away again.
void AddVcpus(xmlNode* domain, const DomainInput& input,
              const Machine* machine) {
  const unsigned most =
      machine == nullptr ? input.cpus : MaxCpus(input, *machine);
  if (most == input.cpus) {
    AddXml(domain, "vcpu", fmt::to_string(most), {{"placement", "static"}});
  } else {
    AddXml(domain, "vcpu", fmt::to_string(most),
           {{"placement", "static"}, {"current", fmt::to_string(input.cpus)}});
  }
  if (machine == nullptr || !machine->pc || !input.kvm || most == 1) return;
  xmlNode* vcpus = AddXml(domain, "vcpus");
  for (unsigned i = 0; i < most; ++i) {
    AddXml(vcpus, "vcpu",
           {{"id", fmt::to_string(i)},
            {"enabled", i < input.cpus ? "yes" : "no"},
            {"hotpluggable", i == 0 ? "no" : "yes"}});
  }
}

void AddMemory(xmlNode* domain, const DomainInput& input) {
  const auto kib = [](uint64_t bytes) {
    return fmt::to_string((bytes + 1023) / 1024);
  };
  AddXml(domain, "memory", kib(std::max(input.memory, input.max_memory)),
         {{"unit", "KiB"}});
  if (input.max_memory > input.memory) {
    AddXml(domain, "currentMemory", kib(input.memory), {{"unit", "KiB"}});
  }
  if (input.shared_memory) {
    xmlNode* backing = AddXml(domain, "memoryBacking");
    AddXml(backing, "source", {{"type", "memfd"}});
    AddXml(backing, "access", {{"mode", "shared"}});
  }
}

// `type` as QEMU's -cpu takes it: a model, then features.
void AddCpu(xmlNode* domain, const DomainInput& input, const Machine& machine) {
  std::string type = input.cpu_type;
  if (type.empty()) {
    type = input.kvm
               ? "host"
               : fmt::format("{},{}", machine.tcg_cpu, machine.tcg_features);
  }
  const auto parts = Split(type, ',');
  const std::string_view model = Trim(parts[0]);
  const bool host = model == "host" || model == "host-passthrough";
  xmlNode* cpu = nullptr;
  if (host && input.kvm) {
    cpu = AddXml(domain, "cpu",
                 {{"mode", "host-passthrough"}, {"check", "none"}});
  } else if (host || model == "max" || model == "maximum") {
    cpu = AddXml(domain, "cpu", {{"mode", "maximum"}, {"check", "none"}});
  } else if (!model.empty()) {
    cpu = AddXml(domain, "cpu",
                 {{"mode", "custom"}, {"match", "exact"}, {"check", "none"}});
    AddXml(cpu, "model", model, {{"fallback", "forbid"}});
  } else {
    cpu = AddXml(domain, "cpu");
  }
  AddXml(cpu, "topology",
         {{"sockets", "1"},
          {"cores", fmt::to_string(MaxCpus(input, machine))},
          {"threads", "1"}});
  for (std::size_t i = 1; i < parts.size(); ++i) AddCpuFeature(cpu, parts[i]);
}

void AddClock(xmlNode* domain, const DomainInput& input,
              const Machine& machine) {
  xmlNode* clock = AddXml(domain, "clock", {{"offset", "utc"}});
  if (!input.kvm || !machine.pc) return;
  AddXml(clock, "timer", {{"name", "rtc"}, {"tickpolicy", "catchup"}});
  AddXml(clock, "timer", {{"name", "pit"}, {"tickpolicy", "delay"}});
  AddXml(clock, "timer", {{"name", "hpet"}, {"present", "no"}});
}

void AddConsole(xmlNode* devices, const DomainInput& input) {
  xmlNode* serial = AddXml(devices, "serial", {{"type", "pty"}});
  if (!input.console_path.empty()) {
    AddXml(serial, "log", {{"file", input.console_path}, {"append", "off"}});
  }
  xmlNode* console = AddXml(devices, "console", {{"type", "pty"}});
  AddXml(console, "target", {{"type", "serial"}, {"port", "0"}});
}

// libvirt gives each device a port of its own, from the first on.
void AddPorts(xmlNode* devices, unsigned devices_count) {
  AddXml(devices, "controller",
         {{"type", "pci"}, {"index", "0"}, {"model", "pcie-root"}});
  for (unsigned i = 1; i <= devices_count + kSparePorts; ++i) {
    AddXml(devices, "controller",
           {{"type", "pci"},
            {"index", fmt::to_string(i)},
            {"model", "pcie-root-port"}});
  }
}

void AddDirectory(xmlNode* devices, const HostDirectory& directory) {
  // Inode numbers of several file systems below it are told apart.
  xmlNode* node = AddXml(devices, "filesystem",
                         {{"type", "mount"},
                          {"accessmode", directory.accessmode},
                          {"multidevs", "remap"}});
  AddXml(node, "source", {{"dir", directory.location}});
  AddXml(node, "target", {{"dir", directory.tag}});
  if (!directory.writable) AddXml(node, "readonly");
}

xmlNode* AddNic(xmlNode* devices, const NetworkNic& nic) {
  xmlNode* node = AddXml(devices, "interface", {{"type", "network"}});
  AddXml(node, "mac", {{"address", nic.mac}});
  AddXml(node, "source", {{"network", nic.network}});
  AddXml(node, "model", {{"type", "virtio"}});
  AddXml(node, "alias",
         {{"name", fmt::format("{}{}", kNicAlias, nic.interface)}});
  if (!nic.filter.empty()) AddXml(node, "filterref", {{"filter", nic.filter}});
  return node;
}

void AddDevices(xmlNode* domain, const DomainInput& input) {
  xmlNode* devices = AddXml(domain, "devices");
  const unsigned disks = (input.disk_volume.empty() ? 0 : 1) +
                         (input.seed_volume.empty() ? 0 : 1) +
                         static_cast<unsigned>(input.extra_disks.size());
  AddDisks(devices, input);
  for (const HostDirectory& directory : input.directories) {
    AddDirectory(devices, directory);
  }
  for (const NetworkNic& nic : input.nics) AddNic(devices, nic);
  // Those of the channel's controller, the balloon and the rng too.
  AddPorts(devices, disks +
                        static_cast<unsigned>(input.directories.size() +
                                              input.nics.size()) +
                        3);
  AddXml(devices, "controller",
         {{"type", "usb"}, {"index", "0"}, {"model", "none"}});
  AddConsole(devices, input);
  AddXml(AddXml(devices, "channel", {{"type", "unix"}}), "target",
         {{"type", "virtio"}, {"name", "org.qemu.guest_agent.0"}});
  // One that its guest fills would make holes in the file that others have
  // their memory from, too; so it is there only where it has a use.
  AddXml(devices, "memballoon",
         {{"model", input.max_memory > input.memory ? "virtio" : "none"}});
  AddXml(AddXml(devices, "rng", {{"model", "virtio"}}), "backend",
         "/dev/urandom", {{"model", "random"}});
}

uint64_t MemoryBytes(const xmlNode* memory) {
  const std::string unit = XmlAttribute(memory, "unit");
  const std::string text = fmt::format(
      "{}{}", Trim(XmlContent(memory)),
      unit.empty() ? "KiB" : (unit == "bytes" ? "b" : std::string_view(unit)));
  return ParseSize(text).value_or(0);
}

std::string CpuType(const xmlNode* cpu) {
  const std::string mode = XmlAttribute(cpu, "mode");
  const xmlNode* model = XmlChild(cpu, "model");
  if (model == nullptr || (!mode.empty() && mode != "custom")) return mode;
  return std::string(Trim(XmlContent(model)));
}

void ReadDevices(const xmlNode* devices, DomainFacts& facts) {
  for (const xmlNode* node : XmlChildren(devices)) {
    const std::string target = XmlAttribute(XmlChild(node, "target"), "dev");
    if (XmlName(node) == "disk") {
      facts.disk_targets.push_back(target);
      const xmlNode* source = XmlChild(node, "source");
      std::string volume = XmlAttribute(source, "volume");
      std::string pool = XmlAttribute(source, "pool");
      if (XmlAttribute(source, "protocol") == "rbd") {
        const std::string name = XmlAttribute(source, "name");
        const auto slash = name.rfind('/');
        if (slash != name.npos) {
          volume = name.substr(slash + 1);
          pool = RbdPlace(name.substr(0, slash));
        }
      }
      facts.disk_volumes.push_back(volume);
      if (!DiskOfVolume(volume).empty()) facts.disk_pool = pool;
      // A snapshot leaves the overlay's path in the definition.
      if (volume.empty()) {
        const std::string file = XmlAttribute(source, "file");
        volume = file.substr(file.rfind('/') + 1);
      }
      if (target == kRootDisk) facts.disk = volume;
      if (target == kSeedDisk) facts.seed = volume;
    } else if (XmlName(node) == "filesystem") {
      std::string tag = XmlAttribute(XmlChild(node, "target"), "dir");
      if (IsTag(tag)) facts.tags.insert(std::move(tag));
    } else if (XmlName(node) == "interface") {
      if (!target.empty()) facts.interface_targets.push_back(target);
      const std::string mac = XmlAttribute(XmlChild(node, "mac"), "address");
      if (facts.mac.empty()) facts.mac = mac;
      const std::string alias = XmlAttribute(XmlChild(node, "alias"), "name");
      if (alias.starts_with(kNicAlias)) {
        facts.nics.push_back(
            {alias.substr(kNicAlias.size()),
             XmlAttribute(XmlChild(node, "source"), "network"), mac,
             XmlAttribute(XmlChild(node, "filterref"), "filter")});
      }
    }
  }
}

}  // namespace

std::string NicXml(const NetworkNic& nic) {
  const XmlDoc doc = NewXml("devices");
  return FormatXml(AddNic(xmlDocGetRootElement(doc.get()), nic));
}

std::string DomainXml(const DomainInput& input) {
  const XmlDoc doc = NewXml("domain");
  xmlNode* domain = xmlDocGetRootElement(doc.get());
  const char* type = input.test ? "test" : (input.kvm ? "kvm" : "qemu");
  SetXml(domain, "type", type);
  AddXml(domain, "name", input.name);
  AddXml(domain, "uuid", input.uuid);
  const Machine* machine = input.test ? nullptr : &MachineFor(input);
  if (machine != nullptr && machine->pc) AddXml(domain, "genid");
  if (!input.description.empty()) {
    AddXml(domain, "description", input.description);
  }
  if (!input.is_template) ReplaceMetadata(domain, input.metadata);
  AddMemory(domain, input);
  AddVcpus(domain, input, machine);
  if (machine == nullptr) {
    AddXml(AddXml(domain, "os"), "type", "hvm");
    return FormatXml(domain);
  }
  AddOs(domain, input, *machine);
  AddFeatures(domain, input, *machine);
  AddCpu(domain, input, *machine);
  AddClock(domain, input, *machine);
  AddXml(domain, "on_poweroff", "destroy");
  AddXml(domain, "on_reboot", "restart");
  AddXml(domain, "on_crash", "destroy");
  AddDevices(domain, input);
  AddUserNetwork(domain, input.mac, input.isolated, input.forwards);
  return FormatXml(domain);
}

DomainFacts ParseDomain(std::string_view xml) {
  const XmlDoc doc = ParseXml(xml);
  const xmlNode* domain = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  if (domain == nullptr || XmlName(domain) != "domain") {
    throw Error(EIO,
                "Cannot read the domain's XML: libvirt gave a text that is no "
                "domain; look at it with virsh dumpxml");
  }
  return DomainOf(domain);
}

DomainFacts DomainOf(const xmlNode* domain) {
  DomainFacts facts;
  facts.name = XmlContent(XmlChild(domain, "name"));
  facts.uuid = std::string(Trim(XmlContent(XmlChild(domain, "uuid"))));
  facts.type = XmlAttribute(domain, "type");
  facts.description = XmlContent(XmlChild(domain, "description"));
  const auto count = [](std::string_view text) {
    return static_cast<unsigned>(
        std::min<uint64_t>(ParseNumber(Trim(text)).value_or(0), UINT16_MAX));
  };
  const xmlNode* vcpu = XmlChild(domain, "vcpu");
  facts.max_cpus = count(XmlContent(vcpu));
  const std::string current = XmlAttribute(vcpu, "current");
  facts.cpus = current.empty() ? facts.max_cpus : count(current);
  facts.max_memory = MemoryBytes(XmlChild(domain, "memory"));
  const xmlNode* memory = XmlChild(domain, "currentMemory");
  facts.memory = memory == nullptr ? facts.max_memory : MemoryBytes(memory);
  facts.shared_memory =
      XmlAttribute(XmlChild(XmlChild(domain, "memoryBacking"), "access"),
                   "mode") == "shared";
  const xmlNode* os = XmlChild(domain, "os");
  facts.uefi = XmlAttribute(os, "firmware") == "efi" ||
               XmlAttribute(XmlChild(os, "loader"), "type") == "pflash";
  facts.cpu_type = CpuType(XmlChild(domain, "cpu"));
  facts.mac = UserNetworkMac(domain);
  facts.forwards = ReadForwards(domain);
  ReadDevices(XmlChild(domain, "devices"), facts);
  facts.metadata = MetadataOf(domain);
  return facts;
}

std::string FilesystemXml(std::string_view xml, std::string_view tag) {
  const XmlDoc doc = ParseXml(xml);
  const xmlNode* domain = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  for (xmlNode* node : XmlChildren(XmlChild(domain, "devices"))) {
    if (XmlName(node) == "filesystem" &&
        XmlAttribute(XmlChild(node, "target"), "dir") == tag) {
      return FormatXml(node);
    }
  }
  return "";
}

void ReplaceMetadata(xmlNode* domain, const Metadata& metadata) {
  xmlNode* parent = XmlChild(domain, "metadata");
  if (parent == nullptr) parent = AddXml(domain, "metadata");
  for (xmlNode *node = parent->children, *next = nullptr; node != nullptr;
       node = next) {
    next = node->next;
    if (node->ns == nullptr ||
        xmlStrEqual(node->ns->href,
                    reinterpret_cast<const xmlChar*>(kMetadataUri)) == 0) {
      continue;
    }
    xmlUnlinkNode(node);
    xmlFreeNode(node);
  }
  AdoptXml(parent, FormatMetadata(metadata), kMetadataUri, kMetadataPrefix);
}

std::string MacFor(std::string_view uuid) {
  uint32_t hash = Hash32(uuid);
  hash ^= hash >> 24;
  return fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", hash >> 16 & 0xff,
                     hash >> 8 & 0xff, hash & 0xff);
}

std::string VolumeXml(std::string_view name, std::string_view format,
                      uint64_t capacity, uint64_t allocation,
                      std::string_view backing_path,
                      std::string_view backing_format,
                      std::optional<uid_t> owner) {
  const XmlDoc doc = NewXml("volume");
  xmlNode* volume = xmlDocGetRootElement(doc.get());
  AddXml(volume, "name", name);
  AddXml(volume, "capacity", fmt::to_string(capacity), {{"unit", "bytes"}});
  AddXml(volume, "allocation", fmt::to_string(allocation), {{"unit", "bytes"}});
  xmlNode* target = AddXml(volume, "target");
  AddXml(target, "format", {{"type", format}});
  // libvirt's own default is the format of QEMU before 1.1.
  if (format == "qcow2") AddXml(target, "compat", "1.1");
  if (owner) {
    xmlNode* permissions = AddXml(target, "permissions");
    AddXml(permissions, "mode", "0600");
    AddXml(permissions, "owner", fmt::to_string(*owner));
  }
  if (!backing_path.empty()) {
    xmlNode* backing = AddXml(volume, "backingStore");
    AddXml(backing, "path", backing_path);
    AddXml(backing, "format", {{"type", backing_format}});
  }
  return FormatXml(volume);
}

std::string PoolXml(std::string_view name, std::string_view path) {
  const XmlDoc doc = NewXml("pool");
  xmlNode* pool = xmlDocGetRootElement(doc.get());
  SetXml(pool, "type", "dir");
  AddXml(pool, "name", name);
  AddXml(AddXml(pool, "target"), "path", path);
  return FormatXml(pool);
}

std::string XmlText(std::string_view xml, const char* xpath) {
  const XmlDoc doc = ParseXml(xml);
  if (!doc) return "";
  const std::unique_ptr<xmlXPathContext, decltype(&xmlXPathFreeContext)>
      context(xmlXPathNewContext(doc.get()), &xmlXPathFreeContext);
  if (!context) throw std::bad_alloc();
  for (const auto& [prefix, uri] : {std::pair(kMetadataPrefix, kMetadataUri),
                                    std::pair("qemu", kQemuUri)}) {
    xmlXPathRegisterNs(context.get(), reinterpret_cast<const xmlChar*>(prefix),
                       reinterpret_cast<const xmlChar*>(uri));
  }
  const std::unique_ptr<xmlXPathObject, decltype(&xmlXPathFreeObject)> found(
      xmlXPathEvalExpression(reinterpret_cast<const xmlChar*>(xpath),
                             context.get()),
      &xmlXPathFreeObject);
  if (!found || found->nodesetval == nullptr ||
      found->nodesetval->nodeNr == 0) {
    return "";
  }
  return XmlContent(found->nodesetval->nodeTab[0]);
}

}  // namespace sbxfs
