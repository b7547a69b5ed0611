#ifndef SBXFS_BACKEND_LIBVIRT_OPEN_H_
#define SBXFS_BACKEND_LIBVIRT_OPEN_H_

#include <string>

#include "backend/libvirt_handle.h"
#include "backend/libvirt_route.h"

namespace sbxfs {

// A new connection by that route; empty: libvirt's own default. Blocks for 20 s
// at most, and leaves a thread behind where a peer hangs for longer; of those a
// process has a few for a URI at most, after which it fails at once. Throws
// Error with the cause and what to do about it.
[[nodiscard]] ConnPtr OpenLibvirtConnection(const Route& route);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_OPEN_H_
