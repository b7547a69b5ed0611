#ifndef SBXFS_BACKEND_UTIL_LOG_H_
#define SBXFS_BACKEND_UTIL_LOG_H_

#include <spdlog/spdlog.h>

#include <map>
#include <string>

namespace sbxfs {

// Where the log goes and how much of it. Called once in the process that will
// serve the mount, before its first thread.
struct LogOptions {
  // "stderr", "syslog", "journal" or the path of a file to append to.
  std::string target = "stderr";
  // spdlog's names: trace, debug, info, warning, error, critical, off.
  std::string level = "warning";
  // What the journal has with each line.
  std::map<std::string, std::string> fields = {};
};

// Throws Error(EINVAL) for an unknown level, Error with the errno of a file or
// a journal that cannot be opened.
void StartLog(const LogOptions& options);

// Logging itself is spdlog's: spdlog::debug("…{}", value) and its like, from
// any thread. Expected refusals are debug, a lost backend and bugs are error.

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_LOG_H_
