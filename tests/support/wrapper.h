#ifndef SBXFS_TESTS_SUPPORT_WRAPPER_H_
#define SBXFS_TESTS_SUPPORT_WRAPPER_H_

#include <filesystem>
#include <string>
#include <vector>

// MOUNT_WRAPPER: words that daemons are started behind, `valgrind -q` say, by
// tests/valgrind. They are slower then.

namespace sbxfs {

[[nodiscard]] bool IsWrapped();
// Becomes that program.
[[noreturn]] void Execute(const std::vector<std::string>& command);
// The same, behind the wrapper.
[[noreturn]] void ExecuteWrapped(std::vector<std::string> command);
// Does what is slow the first time, and is given two seconds, until it is not.
void WarmUp(const std::filesystem::path& mount);

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_WRAPPER_H_
