#include "backend/mount/host_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "backend/mount/sshfs.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

constexpr std::string_view kTagPrefix = "sbxfs-";
constexpr std::string_view kVirtiofsPrefix = "sbxfs-fs-";

// libvirt's word for Lima's securityModel. QEMU without root's rights can give
// files to nobody else: "squash" makes them its own without a complaint.
std::string AccessMode(std::string_view security) {
  if (security == "passthrough") return "passthrough";
  if (security == "mapped-xattr") return "mapped";
  return "squash";
}

// What sets a mount apart from others at the same place.
uint32_t HashOf(const MountSpec& mount, std::string_view more = "") {
  return Hash32(fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}{}", mount.location,
                            mount.mount_point, mount.writable, mount.msize,
                            mount.ninep_cache, mount.ninep_security,
                            mount.ninep_version, more));
}

}  // namespace

// QEMU takes 31 bytes at most.
std::string TagOf(const MountSpec& mount) {
  return fmt::format("{}{:08x}", kTagPrefix, HashOf(mount));
}

std::string VirtiofsTag(const MountSpec& mount, const IdMap& ids) {
  return fmt::format(
      "{}{:08x}", kVirtiofsPrefix,
      HashOf(mount, fmt::format("\n{} {} {} {} {}", mount.virtiofs_queue_size,
                                ids.host_uid, ids.host_gid, ids.guest_uid,
                                ids.guest_gid)));
}

std::string VirtiofsXml(const MountSpec& mount, const IdMap& ids) {
  const XmlDoc doc = NewXml("filesystem");
  xmlNode* node = xmlDocGetRootElement(doc.get());
  SetXml(node, "type", "mount");
  if (mount.virtiofs_queue_size == 0) {
    AddXml(node, "driver", {{"type", "virtiofs"}});
  } else {
    AddXml(node, "driver",
           {{"type", "virtiofs"},
            {"queue", fmt::to_string(mount.virtiofs_queue_size)}});
  }
  AddXml(node, "source", {{"dir", mount.location}});
  AddXml(node, "target", {{"dir", VirtiofsTag(mount, ids)}});
  xmlNode* map = AddXml(node, "idmap");
  AddXml(map, "uid",
         {{"start", fmt::to_string(ids.guest_uid)},
          {"target", fmt::to_string(ids.host_uid)},
          {"count", "1"}});
  AddXml(map, "gid",
         {{"start", fmt::to_string(ids.guest_gid)},
          {"target", fmt::to_string(ids.host_gid)},
          {"count", "1"}});
  if (!mount.writable) AddXml(node, "readonly");
  return FormatXml(node);
}

bool IsTag(std::string_view name) { return name.starts_with(kTagPrefix); }

bool IsVirtiofsTag(std::string_view name) {
  return name.starts_with(kVirtiofsPrefix);
}

std::vector<HostDirectory> DirectoriesOf(const Spec& spec) {
  std::vector<HostDirectory> directories;
  if (spec.plain) return directories;
  for (const MountSpec& mount : spec.mounts) {
    directories.push_back({TagOf(mount), mount.location,
                           AccessMode(mount.ninep_security), mount.writable});
  }
  return directories;
}

std::string DirectoryMountScript(const MountSpec& mount, std::string_view tag) {
  // Lima's values where none are given. With "mmap" nothing is remembered of
  // a tree that changes on both sides, and programs can still be mapped.
  const std::string type =
      IsVirtiofsTag(tag)
          ? "virtiofs -o "
          : fmt::format(
                "9p -o trans=virtio,version={},msize={},cache={},",
                mount.ninep_version.empty() ? "9p2000.L" : mount.ninep_version,
                mount.msize == 0 ? 131072 : mount.msize,
                mount.ninep_cache.empty() ? "mmap" : mount.ninep_cache);
  return fmt::format(
      "{}p={}; exec 2>&1; "
      "mkdir -p \"$p\" 2>/dev/null || $s mkdir -p \"$p\" || exit; "
      "$s mount -t {}nosuid,nodev{} {} \"$p\"",
      kAsRoot, ShellQuote(mount.mount_point), type, mount.writable ? "" : ",ro",
      tag);
}

std::string UnmountScript(std::string_view mount_point, bool lazily) {
  return fmt::format("{}exec 2>&1; $s umount {}{}", kAsRoot,
                     lazily ? "-l " : "", ShellQuote(mount_point));
}

std::string_view WordFor(MountType type) {
  switch (type) {
    case MountType::k9p:
      return "9p";
    case MountType::kVirtiofs:
      return "virtiofs";
    default:
      return "reverse-sshfs";
  }
}

MountWay ChooseMountWay(const Spec& spec, const MountEnds& ends) {
  const MountType type = spec.mount_type;
  const std::string_view word = WordFor(type);
  if (type == MountType::kAuto || type == MountType::kReverseSshfs) return {};
  const auto instead = [](std::string why) {
    return MountWay{MountType::kReverseSshfs, std::move(why)};
  };
  const auto& not_to_be = spec.mount_types_unsupported;
  if (std::find(not_to_be.begin(), not_to_be.end(), type) != not_to_be.end()) {
    return instead(fmt::format("mountTypesUnsupported has {}", word));
  }
  if (!ends.local) {
    return instead(fmt::format(
        "the hypervisor, which serves {}, is another machine", word));
  }
  if (ends.hypervisor != ends.owner) {
    return instead(
        fmt::format("QEMU, which serves {}, runs as uid {}, and must not read "
                    "files for uid {}; use qemu:///session",
                    word, ends.hypervisor, ends.owner));
  }
  if (type == MountType::kVirtiofs) {
    if (!ends.no_virtiofs.empty()) return instead(ends.no_virtiofs);
  } else if (ends.guest != ends.owner) {
    return instead(
        fmt::format("by 9p the files of uid {} were not those of the guest's "
                    "user, who has uid {}; see user.uid",
                    ends.owner, ends.guest));
  }
  return {type};
}

}  // namespace sbxfs
