#include "backend/tunnel_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "backend/util/error.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// The shell that runs this ends at once, so that the program is nobody's
// child. ssh closes what it is given but the three streams, so the lock is its
// stdin, which it does not read.
constexpr char kScript[] =
    "exec 3<&0; \"$@\" <&3 3<&- & printf '%s %s\\n' $! \"$0\" >&0";

[[noreturn]] void FailStart(std::string_view step, int error) {
  throw Error(error, fmt::format("Cannot start the ssh of a socket: {}: {}",
                                 step, std::strerror(error)));
}

UniqueFd Open(const std::string& path, int flags) {
  UniqueFd fd(
      open(path.c_str(), flags | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.Valid()) FailStart(path, errno);
  return fd;
}

}  // namespace

void StartTunnelProcess(const std::filesystem::path& slip,
                        const std::string& digest,
                        std::vector<std::string> words) {
  const UniqueFd lock = Open(slip, O_RDWR);
  if (flock(lock.Get(), LOCK_EX | LOCK_NB) != 0) {
    FailStart(slip.native(), errno == EWOULDBLOCK ? EEXIST : errno);
  }
  if (ftruncate(lock.Get(), 0) != 0) FailStart(slip.native(), errno);
  const UniqueFd log =
      Open(slip.native() + ".log", O_WRONLY | O_TRUNC | O_APPEND);
  words.insert(words.begin(), {"/bin/sh", "-c", kScript, digest});
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, lock.Get(), STDIN_FILENO);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY,
                                   0);
  posix_spawn_file_actions_adddup2(&files, log.Get(), STDERR_FILENO);
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
  const int error = posix_spawn(&pid, "/bin/sh", &files, &attributes,
                                pointers.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) FailStart("/bin/sh", error);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) FailStart("its shell", ECHILD);
}

}  // namespace sbxfs
