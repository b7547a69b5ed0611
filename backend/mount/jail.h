#ifndef SBXFS_BACKEND_MOUNT_JAIL_H_
#define SBXFS_BACKEND_MOUNT_JAIL_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "backend/util/unique_fd.h"

namespace sbxfs {

// The files below one directory and nothing else, for a peer that is not
// trusted. The kernel itself keeps every path beneath (openat2), so that no
// symbolic link, `..` or race leads out; of other FUSE file systems that are
// mounted below nothing is reachable either: one could be an sbxfs, and so
// commands to the host. Rights are the process's own. Throws std::system_error.
// Not thread-safe.
class Jail {
 public:
  Jail(UniqueFd root, bool writable);

  [[nodiscard]] struct stat Stat(std::string_view path, bool follow) const;
  // A regular file. EROFS for one to write while the jail is read-only.
  [[nodiscard]] UniqueFd OpenFile(std::string_view path, int flags,
                                  mode_t mode) const;
  [[nodiscard]] UniqueFd OpenDir(std::string_view path) const;
  // A reference alone, for the functions below.
  [[nodiscard]] UniqueFd Refer(std::string_view path) const;
  [[nodiscard]] std::string ReadLink(std::string_view path) const;

  void MakeDir(std::string_view path, mode_t mode) const;
  void Remove(std::string_view path, bool directory) const;
  void Rename(std::string_view from, std::string_view to, bool replace) const;
  void Link(std::string_view from, std::string_view to) const;
  void Symlink(const std::string& target, std::string_view path) const;

  // Of what a descriptor stands for, a reference or an open file.
  void Truncate(int fd, off_t size) const;
  void Chmod(int fd, mode_t mode) const;
  void SetTimes(int fd, const timespec times[2]) const;

 private:
  struct Place {
    UniqueFd dir;
    std::string name;
  };
  [[nodiscard]] UniqueFd Resolve(std::string_view path, int flags,
                                 mode_t mode = 0) const;
  // The directory that holds the path's last part, to change it there.
  [[nodiscard]] Place PlaceOf(std::string_view path) const;
  void MustBeWritable() const;

  UniqueFd root_;
  bool writable_;
  dev_t device_ = 0;
};

// Throws std::system_error for an errno.
[[noreturn]] void ThrowErrno(int error);

// Whether the kernel can confine; the errno why not, or 0.
[[nodiscard]] int JailError(int root);

// Has the kernel deny this process every file but those below `root`, whatever
// the program does, where it has Landlock. True when it does. A second wall:
// it does not cover what is not an opening (chmod, stat).
bool ConfineByLandlock(int root);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOUNT_JAIL_H_
