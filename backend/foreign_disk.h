#ifndef SBXFS_BACKEND_FOREIGN_DISK_H_
#define SBXFS_BACKEND_FOREIGN_DISK_H_

#include <string_view>

#include "backend/libvirt_handle.h"

namespace sbxfs {

// The volume that is the first disk of a domain that others made, by its XML.
// Blocks. Throws Error, `what` first, when there is none that libvirt can read
// for us: EOPNOTSUPP, or ENOENT for a file outside of its pools.
[[nodiscard]] VolumePtr ForeignDisk(virConnectPtr connection,
                                    std::string_view xml,
                                    std::string_view what);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FOREIGN_DISK_H_
