#include "backend/util/carry.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>

namespace sbxfs {
namespace {

bool Passes(ssize_t result) {
  return result >= 0 || errno == EAGAIN || errno == EINTR;
}

// One way. What was read and is not written yet holds up its own reading alone.
struct Way {
  int from, to;
  bool open = true;
  size_t first = 0, last = 0;  // of what is in the buffer
  std::array<char, 65536> buffer{};

  [[nodiscard]] bool Full() const { return first != last; }

  // False when one of the sockets failed.
  bool Read() {
    const ssize_t count = recv(from, buffer.data(), buffer.size(), 0);
    if (!Passes(count)) return false;
    if (count < 0) return true;
    first = 0;
    last = static_cast<size_t>(count);
    if (count > 0) return Write();
    open = false;
    return shutdown(to, SHUT_WR) == 0 || errno == ENOTCONN;
  }
  bool Write() {
    const ssize_t count =
        send(to, buffer.data() + first, last - first, MSG_NOSIGNAL);
    if (!Passes(count)) return false;
    if (count > 0) first += static_cast<size_t>(count);
    return true;
  }
};

}  // namespace

void Carry(int left, int right) {
  for (const int fd : {left, right}) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  Way there{left, right};
  Way back{right, left};
  while (there.open || back.open) {
    const auto events = [](const Way& in, const Way& out) {
      return static_cast<short>((in.open && !in.Full() ? POLLIN : 0) |
                                (out.Full() ? POLLOUT : 0));
    };
    std::array<pollfd, 2> ends{
        {{left, events(there, back), 0}, {right, events(back, there), 0}}};
    // With nothing asked for, poll would tell of a hangup again and again.
    for (pollfd& end : ends) {
      if (end.events == 0) end.fd = -1;
    }
    if (poll(ends.data(), ends.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    for (Way* way : {&there, &back}) {
      const bool first = way == &there;
      const short in = ends[first ? 0 : 1].revents;
      const short out = ends[first ? 1 : 0].revents;
      if (way->Full() ? out != 0 && !way->Write()
                      : way->open && in != 0 && !way->Read()) {
        return;
      }
    }
  }
}

}  // namespace sbxfs
