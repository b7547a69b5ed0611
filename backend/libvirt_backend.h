#ifndef SBXFS_BACKEND_LIBVIRT_BACKEND_H_
#define SBXFS_BACKEND_LIBVIRT_BACKEND_H_

#include <memory>

#include "backend/backend.h"

namespace sbxfs {

// A backend on libvirt, connected and with its first listing done. Starts
// threads: call it after the last fork. Throws Error with cause and remedy.
[[nodiscard]] std::unique_ptr<Backend> OpenLibvirt(
    const BackendOptions& options);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_BACKEND_H_
