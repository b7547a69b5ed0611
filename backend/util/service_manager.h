#ifndef SBXFS_BACKEND_UTIL_SERVICE_MANAGER_H_
#define SBXFS_BACKEND_UTIL_SERVICE_MANAGER_H_

#include <string>
#include <string_view>

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

 private:
  std::string address_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_SERVICE_MANAGER_H_
