#ifndef SBXFS_BACKEND_UTIL_SERVICE_MANAGER_H_
#define SBXFS_BACKEND_UTIL_SERVICE_MANAGER_H_

#include <string>
#include <string_view>

#include "backend/util/unique_fd.h"

namespace sbxfs {

// The one that started this process and waits to hear from it, systemd say, by
// the protocol of sd_notify(3). Without one nothing is told.
class ServiceManager {
 public:
  // Takes NOTIFY_SOCKET out of the environment: what is started from here is
  // no service. For one thread, before any other is started.
  ServiceManager();

  // Lines of NAME=VALUE, as READY=1. One that cannot be told is left out: the
  // manager finds out by itself.
  void Tell(std::string_view lines) const;
  // Has it keep a copy of the descriptor, for the next process of this unit,
  // and returns once it does. Throws Error where there is none to keep it.
  void Keep(int fd, std::string_view name) const;

  // What was kept under that name for this process, which the manager then has
  // no more; none: nothing was. For one thread, before the object is made.
  [[nodiscard]] static UniqueFd Kept(std::string_view name);

 private:
  std::string address_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_SERVICE_MANAGER_H_
