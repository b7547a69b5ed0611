#include "backend/mount/nine_p.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/mount/sshfs.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr std::string_view kTagPrefix = "sbxfs-";

// libvirt's word for Lima's securityModel. QEMU without root's rights can give
// files to nobody else: "squash" makes them its own without a complaint.
std::string AccessMode(std::string_view security) {
  if (security == "passthrough") return "passthrough";
  if (security == "mapped-xattr") return "mapped";
  return "squash";
}

}  // namespace

std::string TagOf(const MountSpec& mount) {
  // QEMU takes 31 bytes at most.
  return fmt::format(
      "{}{:08x}", kTagPrefix,
      Hash32(fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}", mount.location,
                         mount.mount_point, mount.writable, mount.msize,
                         mount.ninep_cache, mount.ninep_security,
                         mount.ninep_version)));
}

bool IsTag(std::string_view name) { return name.starts_with(kTagPrefix); }

std::vector<HostDirectory> DirectoriesOf(const Spec& spec) {
  std::vector<HostDirectory> directories;
  if (spec.plain) return directories;
  for (const MountSpec& mount : spec.mounts) {
    directories.push_back({TagOf(mount), mount.location,
                           AccessMode(mount.ninep_security), mount.writable});
  }
  return directories;
}

std::string NinePMountScript(const MountSpec& mount) {
  // Lima's values where none are given. With "mmap" nothing is remembered of
  // a tree that changes on both sides, and programs can still be mapped.
  return fmt::format(
      "{}p={}; exec 2>&1; "
      "mkdir -p \"$p\" 2>/dev/null || $s mkdir -p \"$p\" || exit; "
      "$s mount -t 9p -o trans=virtio,version={},msize={},cache={},nosuid,"
      "nodev{} {} \"$p\"",
      kAsRoot, ShellQuote(mount.mount_point),
      mount.ninep_version.empty() ? "9p2000.L" : mount.ninep_version,
      mount.msize == 0 ? 131072 : mount.msize,
      mount.ninep_cache.empty() ? "mmap" : mount.ninep_cache,
      mount.writable ? "" : ",ro", TagOf(mount));
}

std::string UnmountScript(std::string_view mount_point, bool lazily) {
  return fmt::format("{}exec 2>&1; $s umount {}{}", kAsRoot,
                     lazily ? "-l " : "", ShellQuote(mount_point));
}

MountWay ChooseMountWay(const Spec& spec, const MountEnds& ends) {
  const auto& not_to_be = spec.mount_types_unsupported;
  const bool unsupported = std::find(not_to_be.begin(), not_to_be.end(),
                                     MountType::k9p) != not_to_be.end();
  if (spec.mount_type == MountType::kVirtiofs) {
    return {false,
            "virtiofsd would run with root's rights, and know no owners but "
            "the host's"};
  }
  if (spec.mount_type != MountType::k9p) return {};
  if (unsupported) return {false, "mountTypesUnsupported has 9p"};
  if (!ends.local) {
    return {false, "QEMU, which serves 9p, is on another machine"};
  }
  if (ends.hypervisor != ends.owner) {
    return {false,
            fmt::format("QEMU, which serves 9p, runs as uid {}, and must not "
                        "read files for uid {}; use qemu:///session",
                        ends.hypervisor, ends.owner)};
  }
  if (ends.guest != ends.owner) {
    return {false,
            fmt::format("by 9p the files of uid {} were not those of the "
                        "guest's user, who has uid {}; see user.uid",
                        ends.owner, ends.guest)};
  }
  return {true, ""};
}

}  // namespace sbxfs
