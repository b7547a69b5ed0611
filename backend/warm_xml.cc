#include "backend/warm_xml.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "backend/memory_stream.h"
#include "backend/snapshot_xml.h"
#include "backend/user_network.h"
#include "backend/util/error.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

const xmlChar* Bytes(const std::string& text) {
  return reinterpret_cast<const xmlChar*>(text.c_str());
}

// Where each part of a note is.
constexpr std::array<std::pair<const char*, std::string WarmNote::*>, 10>
    kParts{{{"image", &WarmNote::image},
            {"hypervisor", &WarmNote::hypervisor},
            {"documents", &WarmNote::documents},
            {"scripts", &WarmNote::scripts},
            {"networks", &WarmNote::networks},
            {"image-stamp", &WarmNote::image_stamp},
            {"disk", &WarmNote::disk},
            {"disk-stamp", &WarmNote::disk_stamp},
            {"memory", &WarmNote::memory},
            {"memory-stamp", &WarmNote::memory_stamp}}};

// What QEMU is told beside what libvirt tells it.
std::string WithCommandLine(const std::string& xml, const WarmInput& input) {
  const XmlDoc doc = ParseXmlOf(xml, "domain");
  xmlNode* domain = xmlDocGetRootElement(doc.get());
  RemoveChild(domain, "commandline");
  AddUserNetwork(domain, input.mac, input.isolated, input.forwards);
  xmlNode* line = XmlChild(domain, "commandline");
  // QEMU merges it with libvirt's own -machine. What the guest writes goes to
  // pages of its own.
  const std::string object =
      fmt::format("memory-backend-file,id={},size={},mem-path={},share=off{}",
                  kWarmMemory, input.memory, input.memory_path,
                  input.read_only ? ",readonly=on,rom=off" : "");
  const std::string machine = fmt::format("memory-backend={}", kWarmMemory);
  for (const std::string_view arg :
       {std::string_view("-object"), std::string_view(object),
        std::string_view("-machine"), std::string_view(machine)}) {
    xmlNode* node = AddXml(line, "arg", {{"value", arg}});
    xmlSetNs(node, line->ns);
  }
  return FormatXml(domain);
}

}  // namespace

std::string WithWarmNote(std::string_view xml, const WarmNote& note) {
  const XmlDoc doc = ParseXmlOf(xml, "domain");
  xmlNode* domain = xmlDocGetRootElement(doc.get());
  RemoveChild(domain, "metadata");
  xmlNode* node = AddXml(AddXml(domain, "metadata"), "template");
  for (const auto& [name, part] : kParts) {
    SetXml(node, name, note.*part);
  }
  PutInNamespace(node, node, kWarmUri, kWarmPrefix);
  return FormatXml(domain);
}

std::optional<WarmNote> ParseWarmNote(std::string_view xml) {
  const XmlDoc doc = ParseXml(xml);
  const xmlNode* domain = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  const xmlNode* node =
      domain == nullptr ? nullptr
                        : XmlChild(XmlChild(domain, "metadata"), "template");
  if (node == nullptr) return std::nullopt;
  WarmNote note;
  for (const auto& [name, part] : kParts) {
    note.*part = XmlAttribute(node, name);
  }
  return note;
}

std::string WarmDomainXml(std::string_view xml, const WarmInput& input) {
  const XmlDoc doc = ParseXmlOf(DomainOnLayer(xml, input.metadata), "domain");
  xmlNode* domain = xmlDocGetRootElement(doc.get());
  ReplaceChild(domain, "name", input.name);
  ReplaceChild(domain, "uuid", input.uuid);
  ReplaceChild(domain, "description", input.description);
  // libvirt gives the guest new ones.
  RemoveChild(domain, "seclabel");
  if (XmlChild(domain, "genid") != nullptr) {
    xmlNodeSetContent(XmlChild(domain, "genid"), nullptr);
  }
  // The template's note stays: with it Become finds what there is to do.
  AdoptXml(XmlChild(domain, "metadata"), FormatRun(input.run), kRunUri,
           kRunPrefix);
  for (xmlNode* device : XmlChildren(XmlChild(domain, "devices"))) {
    if (XmlName(device) == "channel") RemoveChild(device, "source");
    if (XmlName(device) != "serial" && XmlName(device) != "console") continue;
    RemoveChild(device, "log");
    AddXml(device, "log", {{"file", input.console_path}, {"append", "off"}});
  }
  return WithCommandLine(FormatXml(domain), input);
}

std::string WithOwnMemory(std::string_view xml) {
  const std::string mapped =
      fmt::format("memory-backend-file,id={},", kWarmMemory);
  if (xml.find(mapped) == std::string_view::npos) return std::string(xml);
  const XmlDoc doc = ParseXml(xml);
  xmlNode* root = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  // In a snapshot's or a save image's the domain is one part of more.
  const xmlNode* domain = root != nullptr && XmlName(root) != "domain"
                              ? XmlChild(root, "domain")
                              : root;
  for (xmlNode* arg : XmlChildren(XmlChild(domain, "commandline"))) {
    const std::string value = XmlAttribute(arg, "value");
    if (!value.starts_with(mapped)) continue;
    std::string own = fmt::format("memory-backend-ram,id={}", kWarmMemory);
    for (const std::string_view part : Split(value, ',')) {
      if (part.starts_with("size=")) own.append(",").append(part);
    }
    xmlSetProp(arg, reinterpret_cast<const xmlChar*>("value"), Bytes(own));
  }
  return root == nullptr ? std::string(xml) : FormatXml(root);
}

std::string WhyNoFork(std::string_view xml) {
  const XmlDoc doc = ParseXmlOf(xml, "domain");
  const xmlNode* domain = xmlDocGetRootElement(doc.get());
  const xmlNode* os = XmlChild(domain, "os");
  if (XmlAttribute(XmlChild(os, "type"), "arch") != "x86_64") {
    return "it is of another architecture than x86_64";
  }
  if (XmlChild(os, "loader") != nullptr ||
      XmlAttribute(os, "firmware") == "efi") {
    return "it has UEFI";
  }
  if (XmlChild(domain, "memoryBacking") != nullptr) {
    return "its memory is shared with the hypervisor";
  }
  int disks = 0;
  for (const xmlNode* device : XmlChildren(XmlChild(domain, "devices"))) {
    const std::string_view name = XmlName(device);
    if (name == "disk" && ++disks > 2) return "it has additional disks";
    if (name == "interface") return "it has networks";
    if (name == "filesystem") return "it has mounts that QEMU serves";
    if (name == "hostdev") return "it has a device of the hypervisor's";
    if (name == "memballoon" && XmlAttribute(device, "model") != "none") {
      return "maxMemory gave it a balloon";
    }
  }
  return "";
}

std::string WarmMac(std::string_view xml) {
  const XmlDoc doc = ParseXmlOf(xml, "domain");
  return UserNetworkMac(xmlDocGetRootElement(doc.get()));
}

}  // namespace sbxfs
