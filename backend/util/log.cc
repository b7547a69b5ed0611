#include "backend/util/log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "backend/util/error.h"
#include "backend/util/journal.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

void StartLog(const LogOptions& options) {
  const auto level = spdlog::level::from_str(options.level);
  // from_str answers `off` for any name it does not know.
  if (level == spdlog::level::off && options.level != "off") {
    throw Error(EINVAL,
                fmt::format("Cannot log at '{}': no such level; the levels are "
                            "trace, debug, info, warning, error, critical, off",
                            options.level));
  }
  std::shared_ptr<spdlog::logger> logger;
  if (options.target == "stderr") {
    logger = spdlog::stderr_logger_mt("sbxfs");
    logger->set_pattern("sbxfs: %l: %v");
  } else if (options.target == "syslog") {
    logger = spdlog::syslog_logger_mt("sbxfs", "sbxfs", 1 /* LOG_PID */);
    logger->set_pattern("%l: %v");
  } else if (options.target == "journal") {
    logger =
        std::make_shared<spdlog::logger>("sbxfs", JournalSink(options.fields));
  } else {
    // Opened once by hand, since spdlog's exception has no errno.
    UniqueFd probe(open(options.target.c_str(),
                        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    if (!probe.Valid()) {
      const int error = errno;
      throw Error(error, fmt::format("Cannot log to '{}': {}", options.target,
                                     std::strerror(error)));
    }
    logger = spdlog::basic_logger_mt("sbxfs", options.target);
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %l: %v");
  }
  logger->set_level(level);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
}

}  // namespace sbxfs
