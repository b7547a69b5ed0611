#ifndef SBXFS_BACKEND_DISK_PLACE_H_
#define SBXFS_BACKEND_DISK_PLACE_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sbxfs {

// What a domain's facts call a pool of Ceph's.
[[nodiscard]] inline std::string RbdPlace(std::string_view pool) {
  return "rbd:" + std::string(pool);
}

// Where additional disks are.
struct DiskPlace {
  std::string pool;    // libvirt's name of it
  std::string format;  // of its volumes

  // For Ceph alone. libvirt looks up no volume of such a pool for a domain
  // ("using 'rbd' pools for backing 'volume' disks isn't yet supported"), so a
  // disk has all of this itself.
  std::string rbd;  // Ceph's name of the pool; empty: another kind of pool
  std::vector<std::pair<std::string, std::string>> hosts;  // names and ports
  std::string user;          // empty: nobody asks for one
  std::string secret_uuid;   // libvirt's secret with the key,
  std::string secret_usage;  // by the one or the other

  // As a domain's facts have it.
  [[nodiscard]] std::string Name() const {
    return rbd.empty() ? pool : RbdPlace(rbd);
  }
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_PLACE_H_
