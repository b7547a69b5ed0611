#include "backend/tunnel_process.h"

#include <fmt/format.h>

#include <cerrno>
#include <utility>

#include "backend/util/error.h"
#include "backend/util/slip.h"
#include "backend/util/spawn.h"

namespace sbxfs {
namespace {

// The shell that runs this ends at once, so that the program is nobody's
// child. ssh closes what it is given but the three streams, so the lock is its
// stdin, which it does not read.
constexpr char kScript[] =
    "exec 3<&0; \"$@\" <&3 3<&- & printf '%s %s\\n' $! \"$0\" >&0";

constexpr char kCannotTunnel[] = "Cannot start the ssh of a socket";

}  // namespace

std::vector<std::string> ForwardingWords() {
  return {"-o", "ExitOnForwardFailure=yes",
          "-o", "PermitLocalCommand=yes",
          "-o", fmt::format("LocalCommand=echo {} >&2", kLoggedIn)};
}

void StartTunnelProcess(const std::filesystem::path& slip,
                        const std::string& digest,
                        std::vector<std::string> words) {
  const SlipLock lock(slip, kCannotTunnel);
  words.insert(words.begin(), {"/bin/sh", "-c", kScript, digest});
  const int status =
      AwaitExit(Spawn(std::move(words), lock.Lock(), -1, lock.Log()));
  if (status != 0)
    throw Error(ECHILD, fmt::format("{}: its shell", kCannotTunnel));
}

}  // namespace sbxfs
