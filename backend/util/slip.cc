#include "backend/util/slip.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include "backend/util/error.h"
#include "backend/util/text.h"

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

void GoOnInSlip(int lock, const std::string& digest, std::string_view what) {
  // The daemon waits for the first process alone; what is left of the second
  // is nobody's to take in.
  const pid_t pid = fork();
  if (pid < 0) {
    throw Error(errno,
                fmt::format("{}: its process: {}", what, std::strerror(errno)));
  }
  if (pid == 0) return;
  const std::string slip = fmt::format("{} {}\n", pid, digest);
  const bool written = pwrite(lock, slip.data(), slip.size(), 0) > 0;
  if (!written) kill(pid, SIGKILL);
  _exit(written ? 0 : 1);
}

std::string LastLogLine(const std::filesystem::path& slip) {
  std::ifstream file(slip.native() + ".log");
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (!Trim(line).empty()) last = Trim(line);
  }
  return last.substr(0, 300);
}

}  // namespace sbxfs
