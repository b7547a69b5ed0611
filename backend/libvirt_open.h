#ifndef SBXFS_BACKEND_LIBVIRT_OPEN_H_
#define SBXFS_BACKEND_LIBVIRT_OPEN_H_

#include <string>

#include "backend/libvirt_handle.h"

namespace sbxfs {

// A new connection to `uri`; empty: libvirt's own default. Blocks for 20 s at
// most. Throws Error with the cause and what to do about it.
[[nodiscard]] ConnPtr OpenLibvirtConnection(const std::string& uri);

// What tells one hypervisor from another. Blocks. Throws Error.
[[nodiscard]] std::string HostUuid(virConnectPtr connection);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_OPEN_H_
