#include "backend/util/slip.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <cerrno>
#include <cstring>

#include "backend/util/error.h"

namespace sbxfs {

SlipLock::SlipLock(const std::filesystem::path& slip, std::string_view what) {
  const auto fail = [&](std::string_view suffix) {
    throw Error(errno == EWOULDBLOCK ? EEXIST : errno,
                fmt::format("{}: {}{}: {}", what, slip.native(), suffix,
                            std::strerror(errno)));
  };
  const int flags = O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  lock_ = UniqueFd(open(slip.c_str(), O_RDWR | flags, 0600));
  if (!lock_.Valid() || flock(lock_.Get(), LOCK_EX | LOCK_NB) != 0 ||
      ftruncate(lock_.Get(), 0) != 0) {
    fail("");
  }
  log_ = UniqueFd(open((slip.native() + ".log").c_str(),
                       O_WRONLY | O_TRUNC | O_APPEND | flags, 0600));
  if (!log_.Valid()) fail(".log");
}

}  // namespace sbxfs
