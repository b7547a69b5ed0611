#include "backend/tunnel_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "backend/util/error.h"
#include "backend/util/spawn.h"
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
  const int status =
      AwaitExit(Spawn(std::move(words), lock.Get(), -1, log.Get()));
  if (status != 0) FailStart("its shell", ECHILD);
}

}  // namespace sbxfs
