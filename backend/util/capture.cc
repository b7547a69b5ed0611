#include "backend/util/capture.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "backend/util/error.h"
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
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY,
                                   0);
  posix_spawn_file_actions_adddup2(&files, out.to.Get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, err.to.Get(), STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigaddset(&signals, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK |
                                            POSIX_SPAWN_SETSIGDEF |
                                            POSIX_SPAWN_SETSID);
  pid_t pid = -1;
  const int failed = posix_spawnp(&pid, pointers[0], &files, &attributes,
                                  pointers.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0) {
    throw Error(failed, fmt::format("Cannot run '{}': {}", words.front(),
                                    std::strerror(failed)));
  }
  out.to = UniqueFd();
  err.to = UniqueFd();
  Captured captured;
  ReadBoth(out.from.Get(), captured.out, err.from.Get(), captured.err);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  captured.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return captured;
}

}  // namespace sbxfs
