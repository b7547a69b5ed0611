#ifndef SBXFS_BACKEND_UTIL_CAPTURE_H_
#define SBXFS_BACKEND_UTIL_CAPTURE_H_

#include <string>
#include <vector>

namespace sbxfs {

// What a program came to.
struct Captured {
  int status = -1;  // exit status; -1 when a signal ended it
  std::string out;
  std::string err;
};

// Runs a program, looked for in PATH, with an empty standard input and in a
// session of its own, so that it cannot ask anybody. Blocks until it ends.
// Throws Error with the errno of what could not be started.
[[nodiscard]] Captured Capture(std::vector<std::string> words);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_CAPTURE_H_
