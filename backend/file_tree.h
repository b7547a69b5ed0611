#ifndef SBXFS_BACKEND_FILE_TREE_H_
#define SBXFS_BACKEND_FILE_TREE_H_

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace sbxfs {

// What lstat(2) tells of a file.
struct FileFacts {
  uint64_t number = 0;  // the same for all names of a file; 0: not known
  mode_t mode = 0;      // with its type
  nlink_t links = 1;
  uid_t uid = 0;
  gid_t gid = 0;
  uint64_t size = 0;    // bytes
  uint64_t blocks = 0;  // of 512 bytes
  std::chrono::system_clock::time_point read, modified;
  // The one whose rights hold here owns it, or is in its group: who has the
  // sandbox is shown as that.
  bool own = false, own_group = false;
};

// What statvfs(3) tells of a file system; all 0: not known.
struct FileSpace {
  uint64_t block = 4096;  // bytes, which the next three are counted in
  uint64_t blocks = 0, free = 0, available = 0;
  uint64_t files = 0, free_files = 0;
  bool operator==(const FileSpace&) const = default;
};
// All of it, in the order in which it is told.
inline constexpr std::array kSpaceFields = {
    &FileSpace::block,     &FileSpace::blocks, &FileSpace::free,
    &FileSpace::available, &FileSpace::files,  &FileSpace::free_files};

// What is to be set of a file; nothing: stays as it is.
struct FileChanges {
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<uint64_t> size;
  std::optional<std::chrono::system_clock::time_point> read, modified;
};

// The files of a guest, from its root: those of a running one as its user has
// them, or those on a disk at rest, which nothing can change.
//
// A path is relative to that root, without a leading '/', and empty for the
// root itself; names in it are bytes. Its last part is never followed when it
// is a symbolic link, and the parts before are expected to be directories.
// All functions block, may be called from any thread but none that serves FUSE
// or holds a lock, and throw Error with the errno that the file gave, or
// EHOSTUNREACH, ETIMEDOUT where it could not be asked.
class FileTree {
 public:
  struct Entry {
    std::string name;
    FileFacts facts;
  };
  // One that was opened; closed by destruction.
  class Opened {
   public:
    virtual ~Opened() = default;
    // Fewer than `size` bytes at the end alone.
    virtual std::string Read(uint64_t offset, size_t size) = 0;
    // At the end, where it was opened with O_APPEND.
    virtual void Write(uint64_t offset, const std::string& bytes);
    virtual void Sync() {}
    // The file that is open, whatever its name leads to by now.
    [[nodiscard]] virtual FileFacts Look();
    virtual void Resize(uint64_t size);
    // Whether what it was opened in is still there. Returns at once.
    [[nodiscard]] virtual bool IsCurrent() const { return true; }
    // What it was just after it was opened, where that was told anyway.
    std::optional<FileFacts> found;
  };

  virtual ~FileTree() = default;
  // Whether it is still what it was made for; else it is to be made anew.
  // Returns at once.
  [[nodiscard]] virtual bool IsCurrent() { return true; }
  [[nodiscard]] virtual FileFacts Look(const std::string& path) = 0;
  // Without "." and "..", in the order of the file system.
  [[nodiscard]] virtual std::vector<Entry> List(const std::string& path) = 0;
  [[nodiscard]] virtual std::string Target(const std::string& path) = 0;
  // Of the file system that it is in.
  [[nodiscard]] virtual FileSpace Space(const std::string& path) = 0;
  // `flags` and `mode` are those of open(2).
  [[nodiscard]] virtual std::unique_ptr<Opened> Open(const std::string& path,
                                                     int flags,
                                                     mode_t mode) = 0;
  // These refuse with EROFS unless overridden.
  virtual void Set(const std::string& path, const FileChanges& changes);
  virtual void MakeDir(const std::string& path, mode_t mode);
  virtual void MakeLink(const std::string& path, const std::string& target);
  // Another name for a file.
  virtual void MakeName(const std::string& path, const std::string& new_path);
  virtual void Remove(const std::string& path);
  virtual void RemoveDir(const std::string& path);
  // Over what is there, as rename(2) does.
  virtual void Rename(const std::string& path, const std::string& new_path);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FILE_TREE_H_
