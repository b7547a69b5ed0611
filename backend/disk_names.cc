#include "backend/disk_names.h"

#include <fmt/format.h>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr std::string_view kDiskPrefix = "disk.";
constexpr std::size_t kSerial = 20;

}  // namespace

std::string DiskVolume(std::string_view name) {
  return fmt::format("{}{}", kDiskPrefix, name);
}

std::string DiskOfVolume(std::string_view volume) {
  if (!volume.starts_with(kDiskPrefix)) return "";
  return std::string(volume.substr(kDiskPrefix.size()));
}

std::set<std::string> DisksAmong(const std::vector<std::string>& volumes) {
  std::set<std::string> disks;
  for (const auto& volume : volumes) {
    const std::string disk = DiskOfVolume(volume);
    if (!disk.empty()) disks.insert(disk);
  }
  return disks;
}

std::string DiskSerial(std::string_view name) {
  if (name.size() <= kSerial) return std::string(name);
  return fmt::format("{}-{:08x}", name.substr(0, kSerial - 9), Hash32(name));
}

}  // namespace sbxfs
