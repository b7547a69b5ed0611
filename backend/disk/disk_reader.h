#ifndef SBXFS_BACKEND_DISK_DISK_READER_H_
#define SBXFS_BACKEND_DISK_DISK_READER_H_

#include <memory>
#include <string>
#include <vector>

#include "backend/disk/disk_chain.h"
#include "backend/disk/ext_files.h"

namespace sbxfs {

// The root's files on the disk that a chain of files is. Throws Error with what
// is there instead. Hostile input: the daemon has it read by another process.
class DiskReader {
 public:
  DiskReader(std::vector<ChainFile> files, ReadFileAt read);

  [[nodiscard]] ExtFiles& Files() { return *files_; }

 private:
  DiskChain chain_;
  std::unique_ptr<ExtFiles> files_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_DISK_READER_H_
