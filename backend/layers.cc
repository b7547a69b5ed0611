#include "backend/layers.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <map>

#include "backend/libvirt_error.h"
#include "backend/snapshot_records.h"
#include "backend/snapshot_xml.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kPattern = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.";

// A header, and what the file system needs for it.
constexpr uint64_t kRoomForALayer = 1 << 20;

bool IsNumbered(std::string_view volume, std::string_view uuid,
                std::string_view kind) {
  if (!volume.starts_with(uuid)) return false;
  volume.remove_prefix(uuid.size());
  if (!volume.starts_with(kind)) return false;
  volume.remove_prefix(kind.size());
  if (volume.empty()) return true;
  return volume.size() > 1 && volume[0] == '.' && ParseNumber(volume.substr(1));
}

// A domain's XML without the <backingStore> that libvirt writes into it while
// the guest runs.
std::string WithoutChains(const std::string& xml) {
  const XmlDoc doc = ParseXml(xml);
  xmlNode* root = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  if (root == nullptr) return xml;
  for (const xmlNode* device : XmlChildren(XmlChild(root, "devices"))) {
    while (xmlNode* chain = XmlChild(device, "backingStore")) {
      xmlUnlinkNode(chain);
      xmlFreeNode(chain);
    }
  }
  return FormatXml(root);
}

// What a domain's definitions name; nothing for one that is gone since. A
// failure is not to be taken for that: what is not named is deleted.
// `ends`, where there is one: without what libvirt found disks to stand on.
void AddNamedBy(const ListedDomain& domain, std::set<std::string>& named,
                std::set<std::string>* ends) {
  for (const unsigned flags : {0U, unsigned{VIR_DOMAIN_XML_INACTIVE}}) {
    // One that is off has one definition.
    if (flags != 0 && domain.summary) break;
    const std::string text =
        TakeString(virDomainGetXMLDesc(domain.domain.get(), flags));
    if (text.empty() && !LastLibvirtErrorIs(VIR_ERR_NO_DOMAIN)) {
      ThrowLibvirt("Cannot look at what the domains use");
    }
    named.merge(VolumesIn(text));
    if (ends != nullptr) ends->merge(VolumesIn(WithoutChains(text)));
    if (text.find("originMemory") == text.npos) continue;
    const auto meta = ParseMetadata(text);
    if (!meta ||
        !IsMemoryOf(meta->origin_memory, UuidIn(meta->origin_memory))) {
      continue;
    }
    named.merge(ForkVolumes(meta->origin_memory));
    if (ends != nullptr) ends->merge(ForkVolumes(meta->origin_memory));
  }
}

}  // namespace

std::string UuidIn(std::string_view volume) {
  if (volume.size() <= kPattern.size()) return "";
  for (size_t i = 0; i < kPattern.size(); ++i) {
    const char c = volume[i];
    const bool good = kPattern[i] == 'x'
                          ? (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')
                          : c == kPattern[i];
    if (!good) return "";
  }
  return std::string(volume.substr(0, kPattern.size() - 1));
}

std::string ProbeOf(std::string_view uuid) {
  return std::string(uuid) + ".probe";
}

bool IsLayerOf(std::string_view volume, std::string_view uuid) {
  return IsNumbered(volume, uuid, ".disk");
}

bool IsSeedOf(std::string_view volume, std::string_view uuid) {
  return IsNumbered(volume, uuid, ".seed");
}

bool IsMemoryOf(std::string_view volume, std::string_view uuid) {
  return IsNumbered(volume, uuid, ".memory");
}

std::string ForkVolume(std::string_view memory, std::string_view kind) {
  const std::string uuid = UuidIn(memory);
  return fmt::format(
      "{}.{}{}", uuid, kind,
      memory.substr(uuid.size() + std::string_view(".memory").size()));
}

std::set<std::string> ForkVolumes(const std::string& memory) {
  return {memory, ForkVolume(memory, "fork"), ForkVolume(memory, "ram")};
}

bool IsForkOf(std::string_view volume, std::string_view uuid) {
  return IsNumbered(volume, uuid, ".fork") || IsNumbered(volume, uuid, ".ram");
}

bool IsWarmState(std::string_view volume) {
  const std::string uuid = UuidIn(volume);
  return !uuid.empty() && IsNumbered(volume, uuid, ".warm");
}

std::string WarmVolume(std::string_view state, std::string_view kind) {
  const std::string uuid = UuidIn(state);
  return fmt::format(
      "{}.{}{}", uuid, kind,
      state.substr(uuid.size() + std::string_view(".warm").size()));
}

std::set<std::string> WarmVolumes(std::string_view state) {
  return {std::string(state), WarmVolume(state, "disk"),
          WarmVolume(state, "memory")};
}

std::string LastPart(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

bool IsUntouched(const Volume& layer) {
  // Header, refcount table, refcount block, and a table of 8 bytes for each
  // 512 MiB; whatever is written takes a cluster behind that.
  constexpr uint64_t kCluster = 64 * 1024;
  constexpr uint64_t kPerEntry = kCluster * (kCluster / 8);
  const uint64_t entries = (layer.capacity + kPerEntry - 1) / kPerEntry;
  return layer.size == 3 * kCluster + 8 * entries;
}

std::set<std::string> VolumesIn(std::string_view text) {
  // The dot after the uuid is what tells a volume's name from a bare uuid.
  constexpr size_t kUuid = kPattern.size() - 1;
  std::set<std::string> names;
  for (size_t dot = text.find('.', kUuid); dot != text.npos;
       dot = text.find('.', dot + 1)) {
    if (dot < kUuid || text.find('-', dot - kUuid) > dot) continue;
    size_t end = dot + 1;
    while (end < text.size() &&
           (std::isalnum(static_cast<unsigned char>(text[end])) != 0 ||
            text[end] == '.' || text[end] == '-' || text[end] == '_')) {
      ++end;
    }
    const std::string_view name = text.substr(dot - kUuid, end - dot + kUuid);
    if (!UuidIn(name).empty()) names.emplace(name);
  }
  return names;
}

Uses::Uses(Core& core, std::string_view what) {
  const ConnPtr connection = core.connection.Get(what);
  // Volumes first: one made meanwhile is no candidate, and what was named
  // before it was dropped counts as named.
  volumes_ = core.storage.ListWhole();
  for (const Volume& volume : volumes_) {
    if (!IsWarmState(volume.name)) continue;
    named_.merge(WarmVolumes(volume.name));
    ends_.merge(WarmVolumes(volume.name));
  }
  for (const auto& domain : ListSummaries(connection.get())) {
    AddNamedBy(domain, named_, &ends_);
    if (domain.summary && !domain.summary->snapshots) continue;
    try {
      for (const auto& text : SnapshotTexts(domain.domain.get())) {
        // Not the overlay that it made: the disk may have left that.
        const SnapshotFacts facts = ParseSnapshot(text);
        std::set<std::string> kept = {facts.disk, facts.seed,
                                      LastPart(facts.memory_file)};
        if (facts.metadata) kept.insert(facts.metadata->origin_layer);
        named_.insert(kept.begin(), kept.end());
        ends_.merge(kept);
      }
    } catch (const Error& error) {
      if (error.Errno() != ENOENT) throw;
    }
  }
}

const Volume* Uses::Find(const std::string& name) const {
  const auto found =
      std::find_if(volumes_.begin(), volumes_.end(),
                   [&](const Volume& one) { return one.name == name; });
  return found == volumes_.end() ? nullptr : &*found;
}

std::vector<std::string> Uses::Unneeded(
    const std::set<std::string>& candidates) const {
  std::map<std::string, std::string> below;  // what each stands on
  std::vector<std::string> kept;
  for (const auto& volume : volumes_) {
    below[volume.name] = LastPart(volume.backing);
    if (named_.contains(volume.name) || !candidates.contains(volume.name)) {
      kept.push_back(volume.name);
    }
  }
  std::set<std::string> needed;
  for (std::string name : kept) {
    while (!name.empty() && needed.insert(name).second) {
      const auto found = below.find(name);
      name = found == below.end() ? "" : found->second;
    }
  }
  std::vector<std::string> unneeded;
  for (const auto& name : candidates) {
    if (below.contains(name) && !needed.contains(name)) {
      unneeded.push_back(name);
    }
  }
  // How deep each lies below others of them.
  auto height = [&](std::string name) {
    int height = 0;
    for (auto at = below.find(name);
         at != below.end() && !at->second.empty() && height < 10000;
         at = below.find(at->second)) {
      ++height;
    }
    return height;
  };
  std::stable_sort(unneeded.begin(), unneeded.end(),
                   [&](const std::string& a, const std::string& b) {
                     return height(a) > height(b);
                   });
  return unneeded;
}

std::string Layers::NextName(const std::string& uuid, std::string_view kind) {
  const std::string stem = fmt::format("{}.{}", uuid, kind);
  uint64_t last = 0;
  for (const auto& name : core_.storage.Names()) {
    // What a memory was split into outlives it, under its number.
    const bool taken = name.starts_with(stem + ".") ||
                       (kind == "memory" && IsForkOf(name, uuid));
    if (!taken) continue;
    const auto number = ParseNumber(name.substr(name.rfind('.') + 1));
    if (number) last = std::max(last, *number);
  }
  return fmt::format("{}.{}", stem, last + 1);
}

std::string Layers::Add(const std::string& uuid, const std::string& below,
                        uint64_t capacity, std::string_view what) {
  if (core_.storage.Info().available < kRoomForALayer) {
    throw Error(ENOSPC,
                fmt::format("{}: the pool '{}' is full; remove something "
                            "first (see .host/capacity)",
                            what, core_.options.pool));
  }
  const uint64_t size = core_.storage.Get(below).capacity;
  std::string name = NextName(uuid, "disk");
  core_.storage.Create(name, "qcow2", std::max(capacity, size),
                       core_.storage.Path(below), "qcow2");
  return name;
}

void Layers::DropSoon(const std::string& uuid,
                      std::set<std::string> candidates) {
  core_.workers.Run([this, uuid, candidates = std::move(candidates)]() mutable {
    DropNow(uuid, std::move(candidates));
  });
}

void Layers::DropNow(const std::string& uuid,
                     std::set<std::string> candidates) {
  try {
    const std::string what = fmt::format("Cannot tidy the disk of {}", uuid);
    const Turns::Turn turn = core_.turns.Take(uuid, what, 30s);
    Drop(uuid, std::move(candidates));
  } catch (const Error& error) {
    // The sweep finds it.
    spdlog::debug("{}", error.Sentence());
  }
}

void Layers::Drop(const std::string& uuid, std::set<std::string> candidates) {
  const Uses uses(core_, "Cannot tidy the pool");
  // What they stand on may go with them; what belongs to another sandbox is
  // looked at in that one's turn.
  std::set<std::string> others;
  for (const std::string& name : std::set<std::string>(candidates)) {
    for (const Volume* at = uses.Find(name); at != nullptr;
         at = uses.Find(LastPart(at->backing))) {
      if (!IsLayerOf(at->name, uuid)) {
        // One that virsh made for this one stays until rmdir.
        const std::string owner = UuidIn(at->name);
        if (!owner.empty() && owner != uuid) others.insert(at->name);
        break;
      }
      candidates.insert(at->name);
    }
  }
  const auto unneeded = uses.Unneeded(candidates);
  for (const auto& name : unneeded) core_.storage.Delete(name);
  if (unneeded.empty()) return;
  for (const auto& name : others) DropNow(UuidIn(name), {name});
}

// Not what the metadata names: anyone with virsh can write that, and a daemon
// killed between a volume and its definition has not.
void Layers::DropAll(const std::string& uuid) {
  if (core_.test_driver) return;
  std::set<std::string> own;
  size_t layers = 0;
  for (const auto& name : core_.storage.Names()) {
    if (!name.starts_with(uuid + ".")) continue;
    own.insert(name);
    if (IsLayerOf(name, uuid)) ++layers;
  }
  // The one layer of a disk that nothing was taken from is nobody's else.
  if (layers <= 1) {
    for (const auto& name : own) core_.storage.Delete(name);
    return;
  }
  const ConnPtr connection = core_.connection.Get("Cannot tidy the pool");
  const auto domains = ListSummaries(connection.get());
  std::set<std::string, std::less<>> others;
  for (const auto& domain : domains) others.insert(domain.uuid);
  others.erase(uuid);
  // A pool of thousands is not described for each that goes: another sandbox's
  // layers stand on each other or on what its definition names, a clone's on
  // its origin's; what has no definition yet may stand on any.
  const std::vector<Volume> volumes = core_.storage.ListWhole(
      [&](std::string_view name) { return others.contains(UuidIn(name)); });
  // Named by its own definition alone, which goes too.
  std::set<std::string> named;
  for (const auto& domain : domains) {
    if (domain.uuid != uuid) AddNamedBy(domain, named, nullptr);
  }
  const Uses uses(volumes, std::move(named));
  for (const auto& name : uses.Unneeded(own)) core_.storage.Delete(name);
}

uint64_t Layers::SizeOf(const std::string& layer,
                        const std::set<std::string>& others) {
  const std::string uuid = UuidIn(layer);
  uint64_t size = 0;
  std::string name = layer;
  do {
    const Volume volume = core_.storage.Get(name);
    size += volume.allocation;
    name = LastPart(volume.backing);
  } while (name.starts_with(uuid) && !others.contains(name));
  return size;
}

}  // namespace sbxfs
