#ifndef SBXFS_BACKEND_DISK_NAMES_H_
#define SBXFS_BACKEND_DISK_NAMES_H_

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace sbxfs {

// The targets of a domain's own disk, and of its seed.
inline constexpr char kRootDisk[] = "vda";
inline constexpr char kSeedDisk[] = "vdb";

// The volume of an additional disk.
[[nodiscard]] std::string DiskVolume(std::string_view name);
// The disk of a volume; empty for other volumes.
[[nodiscard]] std::string DiskOfVolume(std::string_view volume);
// The disks among volumes.
[[nodiscard]] std::set<std::string> DisksAmong(
    const std::vector<std::string>& volumes);
// What a guest knows it by: virtio has room for twenty bytes.
[[nodiscard]] std::string DiskSerial(std::string_view name);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_NAMES_H_
