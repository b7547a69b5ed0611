#ifndef SBXFS_BACKEND_UTIL_PARCEL_H_
#define SBXFS_BACKEND_UTIL_PARCEL_H_

#include <sys/socket.h>

#include <array>
#include <cstring>
#include <string_view>

#include "backend/util/unique_fd.h"

namespace sbxfs {

// A message of a local socket, with one descriptor in it or none (unix(7)).
// Points into itself.
struct Parcel {
  // To be sent; `text` must outlive it. A stream needs a byte to carry it.
  explicit Parcel(std::string_view text)
      : part{const_cast<char*>(text.data()), text.size()} {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
  }
  // To be received into.
  Parcel() : part{&byte, 1} {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  }
  Parcel(const Parcel&) = delete;
  Parcel& operator=(const Parcel&) = delete;

  void PutIn(int fd) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(fd));
    std::memcpy(CMSG_DATA(head), &fd, sizeof(fd));
  }
  // Of one that was received.
  [[nodiscard]] UniqueFd TakeOut() {
    const cmsghdr* const head = CMSG_FIRSTHDR(&message);
    if (head == nullptr || head->cmsg_type != SCM_RIGHTS) return {};
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(head), sizeof(fd));
    return UniqueFd(fd);
  }

  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  char byte = 0;
  iovec part;
  msghdr message{};
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_PARCEL_H_
