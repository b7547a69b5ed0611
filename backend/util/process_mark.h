#ifndef SBXFS_BACKEND_UTIL_PROCESS_MARK_H_
#define SBXFS_BACKEND_UTIL_PROCESS_MARK_H_

#include <string>
#include <string_view>

namespace sbxfs {

// A line that names this process among all of all machines, to be left beside
// unfinished work.
[[nodiscard]] std::string ThisProcessMark();

// Whether the process that a mark names has ended for certain. One of another
// machine, or that cannot be seen from here, counts as alive; so does no mark.
[[nodiscard]] bool IsMarkOfTheDead(std::string_view mark);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_PROCESS_MARK_H_
