#include "backend/util/capture.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "backend/util/error.h"
#include "backend/util/spawn.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

struct Pipe {
  UniqueFd from, to;
  Pipe() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) throw Error(errno, "Cannot make a pipe");
    from = UniqueFd(fds[0]);
    to = UniqueFd(fds[1]);
  }
};

// Both to their ends.
void ReadBoth(int first, std::string& out, int second, std::string& err) {
  std::array<pollfd, 2> ends{pollfd{first, POLLIN, 0},
                             pollfd{second, POLLIN, 0}};
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (poll(ends.data(), ends.size(), -1) < 0 && errno != EINTR) return;
    for (auto& end : ends) {
      if (end.fd < 0 || end.revents == 0) continue;
      std::array<char, 4096> buffer;
      const ssize_t got = read(end.fd, buffer.data(), buffer.size());
      if (got > 0) {
        (&end == &ends[0] ? out : err)
            .append(buffer.data(), static_cast<size_t>(got));
      } else if (got == 0 || errno != EINTR) {
        end.fd = -1;
      }
    }
  }
}

}  // namespace

Captured Capture(std::vector<std::string> words) {
  Pipe out, err;
  const UniqueFd none(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const pid_t pid =
      Spawn(std::move(words), none.Get(), out.to.Get(), err.to.Get());
  out.to = UniqueFd();
  err.to = UniqueFd();
  Captured captured;
  ReadBoth(out.from.Get(), captured.out, err.from.Get(), captured.err);
  captured.status = AwaitExit(pid);
  return captured;
}

}  // namespace sbxfs
