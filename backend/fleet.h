#ifndef SBXFS_BACKEND_FLEET_H_
#define SBXFS_BACKEND_FLEET_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

namespace sbxfs {

// One of several hypervisors.
struct Hypervisor {
  std::string name;
  std::string uri;
  bool operator==(const Hypervisor&) const = default;
};

// The lines `NAME URI` of a text; blank ones and comments do not count. `path`
// is for sentences. Throws Error(EINVAL) with the line for what is none, and
// for a text without any.
[[nodiscard]] std::vector<Hypervisor> ReadHypervisors(std::string_view path,
                                                      std::string_view text);

struct NamedBackend {
  std::string name;
  std::unique_ptr<Backend> backend;
};
// One backend of several, one at least.
[[nodiscard]] std::unique_ptr<Backend> MakeFleet(
    std::vector<NamedBackend> backends);

// Several hypervisors as one backend: what belongs to no sandbox is that of
// the first. Those that cannot be reached are disconnected, and tried again by
// themselves; throws the first one's Error when none can. `options`: of each,
// but for uri and hypervisor. Starts threads.
[[nodiscard]] std::unique_ptr<Backend> OpenFleet(
    const std::vector<Hypervisor>& hypervisors, const BackendOptions& options);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FLEET_H_
