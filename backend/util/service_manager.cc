#include "backend/util/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>

#include "backend/util/socket.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

ServiceManager::ServiceManager() {
  if (const char* address = std::getenv("NOTIFY_SOCKET")) address_ = address;
  unsetenv("NOTIFY_SOCKET");
}

void ServiceManager::Tell(std::string_view lines) const {
  sockaddr_un to = UnixAddress(address_);
  if (address_.empty() || address_.size() >= sizeof to.sun_path) return;
  // An abstract one begins with a null byte, and is as long as it is said to
  // be.
  if (address_[0] == '@') to.sun_path[0] = '\0';
  const UniqueFd from(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  (void)sendto(from.Get(), lines.data(), lines.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&to),
               static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                      address_.size()));
}

}  // namespace sbxfs
