#ifndef SBXFS_TESTS_SUPPORT_DISK_IMAGES_H_
#define SBXFS_TESTS_SUPPORT_DISK_IMAGES_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "backend/disk/disk_chain.h"
#include "backend/file_tree.h"

namespace sbxfs {

// Runs a command by sh; failures are the test's, with what it said.
void Sh(const std::string& command);

// Reads files of this machine.
[[nodiscard]] ReadFileAt ReadOf(std::vector<std::filesystem::path> paths);
// A file of a chain: its name's end is its format.
[[nodiscard]] ChainFile ChainFileOf(const std::filesystem::path& path);

// A line for each file, by path, with all that is told of it and of its
// content.
using FileLines = std::map<std::string, std::string>;
// Of a directory of this machine; what is read of `tree`, by the same words.
[[nodiscard]] FileLines LinesOf(const std::filesystem::path& directory);
[[nodiscard]] FileLines LinesOf(FileTree& tree);

// The lines that differ, '-' for `wanted` and '+' for `got`.
[[nodiscard]] std::string Differences(const FileLines& got,
                                      const FileLines& wanted);

// A directory for disks.
class DiskImages : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  // Makes DIR/`name`, a file system of that many MiB with what is in Source(),
  // files of all kinds where nobody has changed them; `options` are of
  // mkfs.ext4.
  void MakeExt(const std::string& name, const std::string& options,
               int mebi = 64) const;
  [[nodiscard]] std::filesystem::path Source() const { return dir_ / "source"; }
  void MakeSource() const;

  std::filesystem::path dir_;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_DISK_IMAGES_H_
