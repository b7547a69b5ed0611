#include "backend/snapshot_xml.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/disk_names.h"
#include "backend/domain_xml.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

constexpr std::string_view kUndo = "~undo.";
constexpr char kNoOverlay[] = "/none";
// What we note of a snapshot, in its copy of the domain's metadata: libvirt
// has no room for it elsewhere.
constexpr char kSnapshotUri[] = "https://sbxfs.org/xmlns/snapshot/1";
constexpr char kSnapshotPrefix[] = "sbxfs-snapshot";
constexpr char kNote[] = "snapshot";

const xmlChar* Raw(const char* text) {
  return reinterpret_cast<const xmlChar*>(text);
}

xmlNode* NoteIn(const xmlNode* domain) {
  for (xmlNode* node : XmlChildren(XmlChild(domain, "metadata"))) {
    if (XmlName(node) == kNote && node->ns != nullptr &&
        xmlStrEqual(node->ns->href, Raw(kSnapshotUri)) != 0) {
      return node;
    }
  }
  return nullptr;
}

void AddNote(xmlNode* domain) {
  xmlNode* metadata = XmlChild(domain, "metadata");
  if (metadata == nullptr) metadata = AddXml(domain, "metadata");
  if (NoteIn(domain) != nullptr) return;
  xmlNode* note = AddXml(metadata, kNote, {{"quiesced", "yes"}});
  xmlNs* ns = xmlNewNs(note, Raw(kSnapshotUri), Raw(kSnapshotPrefix));
  if (ns == nullptr) throw std::bad_alloc();
  xmlSetNs(note, ns);
}

// The <disk> of that target in a domain's <devices>, or null.
xmlNode* DiskAt(const xmlNode* domain, std::string_view target) {
  for (xmlNode* node : XmlChildren(XmlChild(domain, "devices"))) {
    if (XmlName(node) == "disk" &&
        XmlAttribute(XmlChild(node, "target"), "dev") == target) {
      return node;
    }
  }
  return nullptr;
}

// Null when there is no such disk.
xmlNode* DiskWithoutSource(const xmlNode* domain, std::string_view target) {
  xmlNode* disk = DiskAt(domain, target);
  if (disk == nullptr) return nullptr;
  // What it stands on is told by the new file's header, not by the old text.
  for (const char* old : {"source", "backingStore", "mirror"}) {
    RemoveChild(disk, old);
  }
  return disk;
}

void SetVolume(const xmlNode* domain, std::string_view target,
               const std::string& pool, const std::string& volume) {
  // Metadata that somebody wrote may name no pool.
  if (volume.empty() || pool.empty()) return;
  xmlNode* disk = DiskWithoutSource(domain, target);
  if (disk == nullptr) return;
  xmlSetProp(disk, Raw("type"), Raw("volume"));
  AddXml(disk, "source", {{"pool", pool}, {"volume", volume}});
}

void Unlink(const xmlNode* snapshot) {
  for (const xmlNode* disk : XmlChildren(XmlChild(snapshot, "disks"))) {
    xmlNode* source = XmlChild(disk, "source");
    if (XmlAttribute(source, "file").empty()) continue;
    xmlSetProp(source, Raw("file"), Raw(kNoOverlay));
  }
  xmlNode* domain = XmlChild(snapshot, "domain");
  if (domain == nullptr) return;
  const DomainFacts facts = ParseDomain(FormatXml(domain));
  if (!facts.metadata) return;
  // A guest's that runs has its definition, too, on the same layer.
  for (const char* copy : {"domain", "inactiveDomain"}) {
    SetVolume(XmlChild(snapshot, copy), kRootDisk, facts.metadata->pool,
              facts.disk);
  }
}

}  // namespace

SnapshotFacts ParseSnapshot(std::string_view xml) {
  const XmlDoc doc = ParseXmlOf(xml, "domainsnapshot");
  const xmlNode* root = xmlDocGetRootElement(doc.get());
  SnapshotFacts facts;
  facts.name = XmlContent(XmlChild(root, "name"));
  facts.parent = XmlContent(XmlChild(XmlChild(root, "parent"), "name"));
  facts.description = XmlContent(XmlChild(root, "description"));
  const auto seconds =
      ParseNumber(Trim(XmlContent(XmlChild(root, "creationTime"))));
  // A moment that no clock comes to is none.
  constexpr auto kLast = std::chrono::duration_cast<std::chrono::seconds>(
      Time::max().time_since_epoch());
  if (seconds && *seconds <= static_cast<uint64_t>(kLast.count())) {
    facts.created = Time(std::chrono::seconds(*seconds));
  }
  const std::string memory = XmlAttribute(XmlChild(root, "memory"), "snapshot");
  facts.memory = memory == "internal" || memory == "external";
  facts.internal = memory == "internal";
  if (memory == "external") {
    facts.memory_file = XmlAttribute(XmlChild(root, "memory"), "file");
  }
  for (const xmlNode* disk : XmlChildren(XmlChild(root, "disks"))) {
    if (XmlAttribute(disk, "snapshot") == "internal") facts.internal = true;
  }
  xmlNode* domain = XmlChild(root, "domain");
  if (domain == nullptr) return facts;
  facts.quiesced = XmlAttribute(NoteIn(domain), "quiesced") == "yes";
  DomainFacts then = ParseDomain(FormatXml(domain));
  facts.disk = then.disk;
  if (!facts.internal) facts.layer = then.disk;
  facts.seed = then.seed;
  facts.metadata = std::move(then.metadata);
  return facts;
}

std::string SnapshotXml(std::string_view name, std::string_view description,
                        const std::vector<std::string>& targets,
                        std::string_view overlay_path,
                        std::string_view memory_path) {
  const XmlDoc doc = NewXml("domainsnapshot");
  xmlNode* root = xmlDocGetRootElement(doc.get());
  AddXml(root, "name", name);
  if (!description.empty()) AddXml(root, "description", description);
  if (!memory_path.empty()) {
    AddXml(root, "memory", {{"snapshot", "external"}, {"file", memory_path}});
  }
  xmlNode* disks = AddXml(root, "disks");
  for (const auto& target : targets) {
    if (target != kRootDisk) {
      AddXml(disks, "disk", {{"name", target}, {"snapshot", "no"}});
      continue;
    }
    xmlNode* disk =
        AddXml(disks, "disk", {{"name", target}, {"snapshot", "external"}});
    AddXml(disk, "driver", {{"type", "qcow2"}});
    AddXml(disk, "source", {{"file", overlay_path}});
  }
  return FormatXml(root);
}

std::string EditSnapshot(std::string_view xml, const SnapshotEdit& edit) {
  const XmlDoc doc = ParseXmlOf(xml, "domainsnapshot");
  xmlNode* root = xmlDocGetRootElement(doc.get());
  if (edit.name) ReplaceChild(root, "name", *edit.name);
  if (edit.description) ReplaceChild(root, "description", *edit.description);
  if (edit.parent) {
    RemoveChild(root, "parent");
    if (!edit.parent->empty()) {
      AddXml(AddXml(root, "parent"), "name", *edit.parent);
    }
  }
  if (edit.quiesced) {
    xmlNode* domain = XmlChild(root, "domain");
    if (domain != nullptr) AddNote(domain);
  }
  if (edit.unlinked) Unlink(root);
  return FormatXml(root);
}

std::string DomainOnLayer(std::string_view xml, const Metadata& metadata) {
  const XmlDoc doc = ParseXmlOf(xml, "domain");
  xmlNode* domain = xmlDocGetRootElement(doc.get());
  SetVolume(domain, kRootDisk, metadata.pool, metadata.disk_volume);
  SetVolume(domain, kSeedDisk, metadata.pool, metadata.seed_volume);
  ReplaceMetadata(domain, metadata);
  return FormatXml(domain);
}

std::string DomainOnFile(std::string_view xml, std::string_view path) {
  const XmlDoc doc = ParseXmlOf(xml, "domain");
  xmlNode* domain = xmlDocGetRootElement(doc.get());
  if (xmlNode* disk = DiskWithoutSource(domain, kRootDisk)) {
    xmlSetProp(disk, Raw("type"), Raw("file"));
    AddXml(disk, "source", {{"file", path}});
  }
  return FormatXml(domain);
}

std::string SavedDomain(std::string_view xml, std::string_view name) {
  // In it the domain may be one part of more.
  const XmlDoc doc = ParseXml(xml);
  xmlNode* root = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  xmlNode* domain = root;
  if (root != nullptr && XmlName(root) != "domain") {
    domain = XmlChild(root, "domain");
  }
  if (domain == nullptr) {
    throw Error(EIO, "Cannot read the XML of a save image: it has no domain");
  }
  ReplaceChild(domain, "name", name);
  RemoveChild(domain, "metadata");
  return FormatXml(root);
}

std::optional<uint64_t> UndoNumber(std::string_view name) {
  if (!name.starts_with(kUndo)) return std::nullopt;
  return ParseNumber(name.substr(kUndo.size()));
}

std::string TagOf(std::string_view name) {
  if (UndoNumber(name)) return ".undo";
  return name.starts_with('~') ? "" : std::string(name);
}

const SnapshotFacts* FindTag(const std::vector<SnapshotFacts>& snapshots,
                             std::string_view tag) {
  const SnapshotFacts* found = nullptr;
  for (const auto& one : snapshots) {
    if (tag.empty() || TagOf(one.name) != tag) continue;
    if (found == nullptr || UndoNumber(one.name) > UndoNumber(found->name)) {
      found = &one;
    }
  }
  return found;
}

std::string ShownTag(const std::vector<SnapshotFacts>& snapshots,
                     const std::string& name) {
  std::string at = name;
  // A tree has no circle, but anyone may have written this one.
  for (size_t i = 0; i <= snapshots.size() && !at.empty(); ++i) {
    const auto found =
        std::find_if(snapshots.begin(), snapshots.end(),
                     [&](const SnapshotFacts& one) { return one.name == at; });
    if (found == snapshots.end()) return "";
    const std::string tag = TagOf(at);
    if (FindTag(snapshots, tag) == &*found) return tag;
    at = found->parent;
  }
  return "";
}

std::map<std::string, Snapshot> DescribeSnapshots(
    const std::vector<SnapshotFacts>& snapshots) {
  std::map<std::string, Snapshot> described;
  for (const auto& facts : snapshots) {
    Snapshot one;
    one.tag = TagOf(facts.name);
    if (FindTag(snapshots, one.tag) != &facts) continue;
    one.kind = facts.internal ? "internal" : "disk";
    if (facts.quiesced) one.kind += " quiesced";
    if (facts.memory && !facts.internal) one.kind += "+memory";
    // Under way, it has a mark of whoever works on it.
    if (!UndoNumber(facts.name)) one.description = facts.description;
    one.created = facts.created;
    one.layer = facts.layer;
    if (facts.metadata) one.config = facts.metadata->config;
    one.parent = ShownTag(snapshots, facts.parent);
    described.emplace(one.tag, std::move(one));
  }
  return described;
}

}  // namespace sbxfs
