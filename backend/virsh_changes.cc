#include "backend/virsh_changes.h"

#include <fmt/format.h>
#include <libxml/tree.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <functional>
#include <map>
#include <new>
#include <set>

#include "backend/disk_names.h"
#include "backend/domain_node.h"
#include "backend/domain_xml.h"
#include "backend/metadata.h"
#include "backend/user_network.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

constexpr char kAgent[] = "org.qemu.guest_agent.0";
// Those of <features> that DomainXml writes.
constexpr std::array<std::string_view, 3> kFeatures = {"acpi", "apic", "tcg"};

template <typename List>
bool Contains(const List& list, std::string_view one) {
  return std::find(list.begin(), list.end(), one) != list.end();
}

const xmlNode* Root(const XmlDoc& doc) {
  const xmlNode* root = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  return root != nullptr && XmlName(root) == "domain" ? root : nullptr;
}

std::string Attributes(const xmlNode* node,
                       std::initializer_list<const char*> names) {
  std::string text;
  for (const char* name : names) text += XmlAttribute(node, name) + '/';
  return text;
}

// An argument of QEMU's command line that makes our network, or the option
// before it.
bool IsOurNetwork(const xmlNode* arg) {
  const auto names_it = [](const xmlNode* node) {
    const std::string value = XmlAttribute(node, "value");
    return value.find(fmt::format("id={},", kNetdev)) != value.npos ||
           value.find(fmt::format("netdev={},", kNetdev)) != value.npos;
  };
  const xmlNode* next = arg->next;
  while (next != nullptr && next->type != XML_ELEMENT_NODE) next = next->next;
  return names_it(arg) || (next != nullptr && names_it(next));
}

// Whether DomainXml makes a device like this, or libvirt by itself.
bool IsOurDevice(const xmlNode* device) {
  const std::string_view name = XmlName(device);
  const xmlNode* target = XmlChild(device, "target");
  if (name == "disk") {
    const std::string dev = XmlAttribute(target, "dev");
    return dev == kRootDisk || dev == kSeedDisk ||
           !DiskOfVolume(XmlAttribute(XmlChild(device, "source"), "volume"))
                .empty();
  }
  if (name == "interface") {
    return XmlAttribute(XmlChild(device, "alias"), "name")
        .starts_with(kNicAlias);
  }
  if (name == "filesystem") return IsTag(XmlAttribute(target, "dir"));
  if (name == "controller") {
    const std::string type = XmlAttribute(device, "type");
    return type == "pci" || type == "usb" ||
           ((type == "virtio-serial" || type == "sata") &&
            XmlAttribute(device, "index") == "0");
  }
  if (name == "serial" || name == "console") {
    const std::string port = XmlAttribute(target, "port");
    return port.empty() || port == "0";
  }
  if (name == "channel") return XmlAttribute(target, "name") == kAgent;
  if (name == "input") return XmlAttribute(device, "bus") == "ps2";
  if (name == "audio") return XmlAttribute(device, "type") == "none";
  return name == "memballoon" || name == "rng";
}

// What AddMemory makes the guest's memory for virtiofs.
bool IsOurMemory(const xmlNode* backing) {
  return XmlAttribute(backing, "type") == "memfd" ||
         XmlAttribute(backing, "mode") == "shared";
}

// --- The note ---

std::string CpuText(const xmlNode* cpu) {
  const std::string mode = XmlAttribute(cpu, "mode");
  const xmlNode* model = XmlChild(cpu, "model");
  // libvirt adds a mode, and a model's attributes.
  std::string text = mode == "custom" ? "" : mode;
  text += '/' + std::string(Trim(XmlContent(model)));
  std::set<std::string> features;
  for (const xmlNode* child : XmlChildren(cpu)) {
    if (XmlName(child) == "feature") {
      features.insert(Attributes(child, {"policy", "name"}));
    }
  }
  for (const auto& feature : features) text += feature;
  return text == "/" ? "" : text;
}

// "pc-q35-7.2", as libvirt has it, and "q35" are one.
std::string MachineText(const xmlNode* type) {
  std::string machine = XmlAttribute(type, "machine");
  if (machine.starts_with("pc-")) machine.erase(0, 3);
  for (auto dash = machine.find('-'); dash != machine.npos;
       dash = machine.find('-', dash + 1)) {
    if (std::isdigit(static_cast<unsigned char>(machine[dash + 1])) != 0) {
      machine.erase(dash);
    }
  }
  return machine;
}

std::string NetworkText(const xmlNode* domain) {
  std::string text;
  for (const xmlNode* arg : XmlChildren(XmlChild(domain, "commandline"))) {
    if (XmlName(arg) != "arg" || !IsOurNetwork(arg)) continue;
    const std::string value = XmlAttribute(arg, "value");
    for (const std::string_view part : Split(value, ',')) {
      // Ports come and go by themselves.
      if (!part.starts_with("hostfwd=")) text.append(part).append(1, ',');
    }
  }
  return text;
}

std::string ClockText(const xmlNode* clock) {
  std::string text = XmlAttribute(clock, "offset");
  for (const xmlNode* timer : XmlChildren(clock)) {
    text += Attributes(timer, {"name", "tickpolicy", "present"});
  }
  return text;
}

std::string FeaturesText(const xmlNode* features) {
  std::set<std::string> names;
  for (const xmlNode* child : XmlChildren(features)) {
    if (Contains(kFeatures, XmlName(child))) names.emplace(XmlName(child));
  }
  std::string text;
  for (const auto& name : names) text += name + '/';
  return text;
}

void AddDeviceTexts(const xmlNode* domain,
                    std::map<std::string, std::string>& texts) {
  for (const xmlNode* device : XmlChildren(XmlChild(domain, "devices"))) {
    if (!IsOurDevice(device)) continue;
    const std::string_view name = XmlName(device);
    const xmlNode* target = XmlChild(device, "target");
    if (name == "disk") {
      // Which layer it stands on is another matter, and so are those of
      // additionalDisks, which come and go with their places.
      const std::string dev = XmlAttribute(target, "dev");
      if (dev != kRootDisk && dev != kSeedDisk) continue;
      const bool seed = dev == kSeedDisk;
      texts[seed ? "seed" : "disk"] =
          Attributes(target, {"bus"}) +
          Attributes(XmlChild(device, "driver"), {"type", "cache", "discard"}) +
          (XmlChild(device, "readonly") != nullptr ? "ro" : "rw");
    } else if (name == "serial") {
      texts["console.log"] = Attributes(XmlChild(device, "log"), {"file"});
    } else if (name == "channel") {
      texts["channel"] = XmlAttribute(target, "name");
    } else if (name == "memballoon") {
      texts["memballoon"] = XmlAttribute(device, "model");
    } else if (name == "rng") {
      texts["rng"] = XmlContent(XmlChild(device, "backend"));
    }
  }
}

// By key; what is empty is left to libvirt.
std::map<std::string, std::string> TextsOf(std::string_view xml) {
  std::map<std::string, std::string> texts;
  const XmlDoc doc = ParseXml(xml);
  const xmlNode* domain = Root(doc);
  if (domain == nullptr) return texts;
  const DomainFacts facts = DomainOf(domain);
  const auto mebibytes = [](uint64_t bytes) {
    return fmt::to_string((bytes + (1 << 20) - 1) >> 20);
  };
  texts["cpus"] = fmt::to_string(facts.cpus);
  texts["maxCPUs"] = fmt::to_string(facts.max_cpus);
  texts["memory"] = mebibytes(facts.memory);
  texts["maxMemory"] = mebibytes(facts.max_memory);
  texts["description"] = facts.description;
  texts["type"] = facts.type;
  const xmlNode* os = XmlChild(domain, "os");
  const xmlNode* type = XmlChild(os, "type");
  texts["arch"] = XmlAttribute(type, "arch");
  texts["machine"] = MachineText(type);
  if (type != nullptr) texts["firmware"] = facts.uefi ? "uefi" : "bios";
  texts["boot"] = XmlAttribute(XmlChild(os, "boot"), "dev");
  texts["features"] = FeaturesText(XmlChild(domain, "features"));
  texts["cpuType"] = CpuText(XmlChild(domain, "cpu"));
  texts["clock"] = ClockText(XmlChild(domain, "clock"));
  for (const char* event : {"on_poweroff", "on_reboot", "on_crash"}) {
    texts[event] = XmlContent(XmlChild(domain, event));
  }
  texts["network"] = NetworkText(domain);
  AddDeviceTexts(domain, texts);
  std::erase_if(texts, [](const auto& one) { return one.second.empty(); });
  return texts;
}

using NoteHashes = std::map<std::string, std::string>;  // hashes, by key

std::string Hash(const std::string& text) {
  return fmt::format("{:08x}", Hash32(text));
}

NoteHashes ParseNote(std::string_view text) {
  NoteHashes note;
  for (const std::string_view part : Split(text, ' ')) {
    const auto equals = part.find('=');
    if (equals == part.npos) continue;
    note.emplace(part.substr(0, equals), part.substr(equals + 1));
  }
  return note;
}

std::string FormatNote(const NoteHashes& note) {
  std::string text;
  for (const auto& [key, hash] : note) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", key, hash);
  }
  return text;
}

// --- What is kept ---

void Copy(const xmlNode* node, xmlNode* to) {
  xmlNode* copy =
      xmlDocCopyNode(const_cast<xmlNode*>(node), to->doc, /*recursive=*/1);
  if (copy == nullptr) throw std::bad_alloc();
  xmlAddChild(to, copy);
  xmlReconciliateNs(to->doc, copy);
}

// The children of old's element `name` that are not `ours`, into fresh's.
void KeepIn(const xmlNode* old, xmlNode* fresh, const char* name,
            const std::function<bool(const xmlNode*)>& ours) {
  for (const xmlNode* child : XmlChildren(XmlChild(old, name))) {
    if (ours(child)) continue;
    xmlNode* to = XmlChild(fresh, name);
    Copy(child, to != nullptr ? to : AddXml(fresh, name));
  }
}

bool IsOurMetadata(const xmlNode* element) {
  return element->ns != nullptr && element->ns->href != nullptr &&
         std::string_view(reinterpret_cast<const char*>(element->ns->href))
             .starts_with(kXmlNamespaces);
}

}  // namespace

std::string NoteDefinition(std::string_view xml) {
  NoteHashes note;
  for (const auto& [key, text] : TextsOf(xml)) note.emplace(key, Hash(text));
  return FormatNote(note);
}

std::string RenewNote(std::string_view note, std::string_view xml,
                      const std::vector<std::string>& keys) {
  NoteHashes renewed = ParseNote(note);
  const auto texts = TextsOf(xml);
  for (const auto& key : keys) {
    const auto found = texts.find(key);
    if (found == texts.end()) {
      renewed.erase(key);
    } else if (!note.empty()) {
      renewed[key] = Hash(found->second);
    }
  }
  return FormatNote(renewed);
}

std::vector<std::string> ChangedSince(std::string_view note,
                                      std::string_view xml) {
  std::vector<std::string> changed;
  if (note.empty()) return changed;
  const auto texts = TextsOf(xml);
  for (const auto& [key, hash] : ParseNote(note)) {
    const auto found = texts.find(key);
    if (found == texts.end() || Hash(found->second) != hash) {
      changed.push_back(key);
    }
  }
  return changed;
}

std::string KeepForeign(const std::string& fresh, std::string_view old) {
  const XmlDoc old_doc = ParseXml(old);
  const XmlDoc doc = ParseXml(fresh);
  const xmlNode* before = Root(old_doc);
  xmlNode* domain = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  if (before == nullptr || domain == nullptr) return fresh;
  // What fits one architecture is a riddle to another.
  const auto arch = [](const xmlNode* one) {
    return XmlAttribute(XmlChild(XmlChild(one, "os"), "type"), "arch");
  };
  if (arch(before) != arch(domain)) return fresh;
  static const std::set<std::string_view> kOurs = {
      "name",     "uuid",    "genid",       "description",  "metadata",
      "memory",   "vcpu",    "vcpus",       "os",           "currentMemory",
      "features", "cpu",     "clock",       "on_poweroff",  "on_reboot",
      "on_crash", "devices", "commandline", "memoryBacking"};
  for (const xmlNode* child : XmlChildren(before)) {
    if (kOurs.count(XmlName(child)) == 0) Copy(child, domain);
  }
  KeepIn(before, domain, "metadata", IsOurMetadata);
  KeepIn(before, domain, "features", [](const xmlNode* child) {
    return Contains(kFeatures, XmlName(child));
  });
  const xmlNode* backing = XmlChild(domain, "memoryBacking");
  KeepIn(before, domain, "memoryBacking", [backing](const xmlNode* child) {
    return IsOurMemory(child) || XmlChild(backing, XmlName(child)) != nullptr;
  });
  std::set<std::string> targets;
  for (const xmlNode* device : XmlChildren(XmlChild(domain, "devices"))) {
    targets.insert(XmlAttribute(XmlChild(device, "target"), "dev"));
  }
  KeepIn(before, domain, "devices", [&targets](const xmlNode* device) {
    // A disk of ours may need the place of another.
    const std::string dev = XmlAttribute(XmlChild(device, "target"), "dev");
    return IsOurDevice(device) || (!dev.empty() && targets.count(dev) != 0);
  });
  KeepIn(before, domain, "commandline", IsOurNetwork);
  return FormatXml(domain);
}

}  // namespace sbxfs
