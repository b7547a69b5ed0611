#include "backend/util/utc.h"

#include <fmt/format.h>

#include <ctime>

namespace sbxfs {

std::string FormatUtc(std::chrono::system_clock::time_point time) {
  const std::time_t whole =
      std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()).count();
  std::tm parts{};
  gmtime_r(&whole, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                     parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace sbxfs
