#ifndef SBXFS_BACKEND_DISK_EXT_FILES_H_
#define SBXFS_BACKEND_DISK_EXT_FILES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/file_tree.h"
#include "backend/image/image_file.h"

struct ext2_inode_large;

namespace sbxfs {

class ExtDevice;

// The files of an ext2, ext3 or ext4 file system, as they are with its journal
// played back, by libext2fs, which is e2fsck's. Hostile input, of which that
// library is not safe in all its depth: see disk_reader.h. Not thread-safe.
//
// Why this library: it reads all that Linux writes of the three, checks its
// sums, and has blocks come from a function. libguestfs boots an appliance, and
// fuse2fs and qemu-storage-daemon want a path or a device of this machine.
class ExtFiles {
 public:
  // `read` has `size` bytes. Throws Error(EIO) for what cannot be read as one.
  ExtFiles(ReadAt read, uint64_t size);
  ~ExtFiles();
  ExtFiles(const ExtFiles&) = delete;
  ExtFiles& operator=(const ExtFiles&) = delete;

  // As those of FileTree.
  [[nodiscard]] FileFacts Look(const std::string& path);
  [[nodiscard]] std::vector<FileTree::Entry> List(const std::string& path);
  [[nodiscard]] std::string Target(const std::string& path);
  [[nodiscard]] FileSpace Space() const;
  // The number of a regular file, for Read.
  [[nodiscard]] uint64_t Find(const std::string& path);
  [[nodiscard]] std::string Read(uint64_t number, uint64_t offset, size_t size);
  // Blocks that were taken from the journal.
  [[nodiscard]] size_t Replayed() const { return replayed_; }

 private:
  struct Name {
    std::string name;
    uint32_t number = 0;
  };
  [[nodiscard]] uint32_t Resolve(const std::string& path);
  [[nodiscard]] uint32_t Search(uint32_t directory, std::string_view name,
                                const std::string& what);
  [[nodiscard]] ext2_inode_large Inode(uint32_t number,
                                       const std::string& what);
  // Up to `most` of the names in a directory, or the one alone.
  [[nodiscard]] std::vector<Name> Names(uint32_t directory, size_t most,
                                        const std::string& what,
                                        std::string_view only = {});
  [[nodiscard]] FileFacts Facts(uint32_t number, const ext2_inode_large& inode);
  [[nodiscard]] std::string ReadBytes(uint32_t number, ext2_inode_large& inode,
                                      uint64_t offset, size_t size,
                                      const std::string& what);

  const std::unique_ptr<ExtDevice> device_;
  size_t replayed_ = 0;
  // Directories that were gone through lately, by path.
  std::unordered_map<std::string, uint32_t> known_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_EXT_FILES_H_
