#ifndef SBXFS_TESTS_SUPPORT_WHOLE_TREE_H_
#define SBXFS_TESTS_SUPPORT_WHOLE_TREE_H_

#include <filesystem>
#include <string>

namespace sbxfs {

// That the mount at `dir` comes to say, in every file of every sandbox, what
// another one does that is made now with `options`, and both what libvirt does.
void ExpectAgreement(const std::filesystem::path& dir,
                     const std::string& options);

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_WHOLE_TREE_H_
