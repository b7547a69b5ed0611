#ifndef SBXFS_BACKEND_UTIL_UTC_H_
#define SBXFS_BACKEND_UTIL_UTC_H_

#include <chrono>
#include <string>

namespace sbxfs {

// As "2026-11-30T12:34:56", in UTC; what is less than a second is left out.
[[nodiscard]] std::string FormatUtc(std::chrono::system_clock::time_point time);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_UTC_H_
