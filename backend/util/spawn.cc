#include "backend/util/spawn.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "backend/util/error.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

pid_t Spawn(const std::string& program, std::vector<std::string> words,
            const Descriptors& files) {
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // None may stand where another is to go.
  std::vector<UniqueFd> kept;
  for (const auto& [fd, number] : files) {
    constexpr int kAbove = 64;
    kept.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, kAbove));
    posix_spawn_file_actions_adddup2(&actions, kept.back().Get(), number);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK |
                                            POSIX_SPAWN_SETSIGDEF |
                                            POSIX_SPAWN_SETSID);
  pid_t pid = -1;
  const int failed = posix_spawnp(&pid, program.c_str(), &actions, &attributes,
                                  pointers.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    throw Error(failed, fmt::format("Cannot run '{}': {}", program,
                                    std::strerror(failed)));
  }
  return pid;
}

pid_t Spawn(std::vector<std::string> words, int in, int out, int err) {
  const UniqueFd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
  const std::string program = words.front();
  return Spawn(program, std::move(words),
               {{in, STDIN_FILENO},
                {out < 0 ? null.Get() : out, STDOUT_FILENO},
                {err, STDERR_FILENO}});
}

int AwaitExit(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace sbxfs
