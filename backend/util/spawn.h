#ifndef SBXFS_BACKEND_UTIL_SPAWN_H_
#define SBXFS_BACKEND_UTIL_SPAWN_H_

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace sbxfs {

// A descriptor of ours and the number that it has in the child.
using Descriptors = std::vector<std::pair<int, int>>;

// Starts a program, looked for in PATH, as a child in a session of its own, so
// that it cannot ask anybody at a terminal, with every signal as it is by
// default, and with those descriptors alone. `words` begin with its own name.
// Throws Error with the errno of what could not be started.
[[nodiscard]] pid_t Spawn(const std::string& program,
                          std::vector<std::string> words,
                          const Descriptors& files);
// The program that `words` begin with. `in` and `err` become its streams, and
// `out`, where below zero is /dev/null, too.
[[nodiscard]] pid_t Spawn(std::vector<std::string> words, int in, int out,
                          int err);

// Waits for its end: the exit status, or -1 when a signal ended it.
int AwaitExit(pid_t pid);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_SPAWN_H_
