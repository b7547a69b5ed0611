#include "backend/util/service_manager.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <string>

#include "backend/util/error.h"
#include "backend/util/parcel.h"
#include "backend/util/socket.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

// Descriptors that a manager hands on begin there (sd_listen_fds(3)).
constexpr int kFirstKept = 3;
constexpr std::chrono::milliseconds kPatience{5000};

std::string Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Whether it was sent, with a descriptor or -1.
bool SendTo(const std::string& address, std::string_view lines, int fd) {
  sockaddr_un to = UnixAddress(address);
  if (address.empty() || address.size() >= sizeof to.sun_path) return false;
  // An abstract one begins with a null byte, and is as long as it is said to
  // be.
  if (address[0] == '@') to.sun_path[0] = '\0';
  const UniqueFd from(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  Parcel parcel(lines);
  parcel.message.msg_name = &to;
  parcel.message.msg_namelen =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
  if (fd >= 0) parcel.PutIn(fd);
  return sendmsg(from.Get(), &parcel.message, MSG_NOSIGNAL) >= 0;
}

}  // namespace

ServiceManager::ServiceManager() : address_(Variable("NOTIFY_SOCKET")) {
  unsetenv("NOTIFY_SOCKET");
}

void ServiceManager::Tell(std::string_view lines) const {
  (void)SendTo(address_, lines, -1);
}

void ServiceManager::Keep(int fd, std::string_view name) const {
  std::array<int, 2> ends{-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw Error(errno, "No pipe");
  const UniqueFd mine(ends[0]);
  UniqueFd its(ends[1]);
  // It closes the descriptor of a barrier when all before it is done
  // (sd_notify_barrier(3)).
  const bool sent =
      SendTo(address_, fmt::format("FDSTORE=1\nFDNAME={}", name), fd) &&
      SendTo(address_, "BARRIER=1", its.Get());
  its.Reset();
  pollfd closed{mine.Get(), 0, 0};
  if (!sent || poll(&closed, 1, static_cast<int>(kPatience.count())) != 1) {
    throw Error(ESRCH,
                "Cannot hand the mount on: no service manager takes it; "
                "--only-mount is for units of systemd");
  }
}

UniqueFd ServiceManager::Kept(std::string_view name) {
  const std::string process = Variable("LISTEN_PID");
  const std::string count = Variable("LISTEN_FDS");
  const std::string names = Variable("LISTEN_FDNAMES");
  if (process != std::to_string(getpid())) return {};
  for (const char* one : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) {
    unsetenv(one);
  }
  UniqueFd kept;
  const auto all = Split(names, ':');
  for (std::size_t i = 0; i < ParseNumber(count).value_or(0); ++i) {
    UniqueFd fd(kFirstKept + static_cast<int>(i));
    fcntl(fd.Get(), F_SETFD, FD_CLOEXEC);
    if (i < all.size() && all[i] == name && !kept.Valid()) kept = std::move(fd);
  }
  // With its copy what nobody serves would not fail, but wait for ever.
  if (kept.Valid()) {
    SendTo(Variable("NOTIFY_SOCKET"),
           fmt::format("FDSTOREREMOVE=1\nFDNAME={}", name), -1);
  }
  return kept;
}

}  // namespace sbxfs
