#ifndef SBXFS_BACKEND_FOREIGN_DISK_H_
#define SBXFS_BACKEND_FOREIGN_DISK_H_

#include <string>
#include <string_view>

#include "backend/libvirt_handle.h"

namespace sbxfs {

// The volume that is the first disk of a domain that others made, by its XML.
// Blocks. Throws Error, `what` first, when there is none that libvirt can read
// for us: EOPNOTSUPP, or ENOENT for a file outside of its pools.
[[nodiscard]] VolumePtr ForeignDisk(virConnectPtr connection,
                                    std::string_view xml,
                                    std::string_view what);

// The name in the guest of that disk: sda, say. Throws Error(EOPNOTSUPP) when
// there is none.
[[nodiscard]] std::string ForeignTarget(std::string_view xml,
                                        std::string_view what);

// Copies a running domain's disk `target`, as it is at the call, into the qcow2
// file `path` of the hypervisor, which is there and as large. The file systems
// are frozen for the beginning alone, where `agent` says that somebody can do
// that. Nothing of it stays with the domain. Blocks for as long as the copying
// takes. Throws Error, `what` first.
void BackUpDisk(virDomainPtr domain, const std::string& target,
                const std::string& path, bool agent, std::string_view what);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FOREIGN_DISK_H_
