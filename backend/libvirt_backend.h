#ifndef SBXFS_BACKEND_LIBVIRT_BACKEND_H_
#define SBXFS_BACKEND_LIBVIRT_BACKEND_H_

#include <memory>
#include <string>

#include "backend/backend.h"

namespace sbxfs {

// A backend on libvirt, connected and with its first listing done. Starts
// threads: call it after the last fork. Throws Error with cause and remedy.
[[nodiscard]] std::unique_ptr<Backend> OpenLibvirt(
    const BackendOptions& options);

// The same, not connected yet. It is no other than OpenOrRetry can open.
[[nodiscard]] std::unique_ptr<Backend> MakeLibvirt(
    const BackendOptions& options);
// Blocks: connects it. When that fails it is disconnected, and tries again by
// itself. Throws Error for an URI that is none.
void OpenOrRetry(Backend& backend);
// MoveSandbox between two of MakeLibvirt's.
void MoveBetween(Backend& from, Backend& to, const std::string& uuid,
                 const std::string& what, const Reply<Done>& reply);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_BACKEND_H_
