#ifndef SBXFS_BACKEND_PORTS_H_
#define SBXFS_BACKEND_PORTS_H_

#include <set>
#include <string>

#include "backend/core.h"

namespace sbxfs {

// The host ports of sandboxes' ssh. A port is a sandbox's from mkdir to its
// end, whether it runs or not. Thread-safe.
class Ports {
 public:
  explicit Ports(Core& core) : core_(core) {}

  // A port for the sandbox until it is in the catalog: `wanted`, or one chosen
  // from its uuid, so that two mounts do not choose one port for two. Throws
  // Error(EADDRINUSE) naming the holder.
  [[nodiscard]] int Reserve(const std::string& uuid, int wanted,
                            std::string_view what) EXCLUDES(mutex_);
  void Release(int port) EXCLUDES(mutex_);

  // Who has the port: "sandbox 'other'", "process 'sshd' (pid 12)",
  // "another process", or empty when it is free. Blocks shortly.
  [[nodiscard]] std::string Holder(const std::string& uuid, int port);

 private:
  Core& core_;
  Mutex mutex_;
  std::set<int> reserved_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_PORTS_H_
