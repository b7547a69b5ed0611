#ifndef SBXFS_BACKEND_MOUNT_SFTP_H_
#define SBXFS_BACKEND_MOUNT_SFTP_H_

#include <dirent.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/mount/jail.h"

namespace sbxfs {

// Whose files those of the jail are, here and as the guest sees it: what
// belongs to `uid` or one of `groups` belongs to the guest's user and group,
// anything else to nobody.
struct Ownership {
  uid_t uid = 0;
  std::vector<gid_t> groups;
  uid_t guest_uid = 0;
  gid_t guest_gid = 0;
};

// An SFTP server, version 3 with OpenSSH's posix-rename, statvfs, hardlink and
// fsync, over a Jail. OpenSSH's own serves every path of its user's: it can
// neither be told to stay in a directory nor be walled in by Landlock alone.
class SftpServer {
 public:
  SftpServer(Jail jail, Ownership ownership)
      : jail_(std::move(jail)), ownership_(std::move(ownership)) {}

  // The longest request and reply, without the length that precedes them.
  static constexpr uint32_t kMaxPacket = 300 * 1024;

  // The reply to one request, both without their lengths. Throws
  // std::invalid_argument for what is no request: hang up.
  [[nodiscard]] std::string Answer(std::string_view request);

 private:
  class Reader;
  class Writer;
  struct Attributes;
  struct DirCloser {
    void operator()(DIR* dir) const { closedir(dir); }
  };
  struct Handle {
    UniqueFd file;
    std::unique_ptr<DIR, DirCloser> dir;
  };

  void Dispatch(uint8_t type, Reader& in, Writer& out);
  void Change(uint8_t type, Reader& in, Writer& out);
  void Extended(Reader& in, Writer& out);
  void Open(Reader& in, Writer& out);
  void Read(Reader& in, Writer& out);
  void Write(Reader& in, Writer& out);
  void ReadDir(Reader& in, Writer& out);
  void SetAttributes(int fd, const Attributes& attributes) const;
  [[nodiscard]] static Attributes ReadAttributes(Reader& in);
  void PutAttributes(Writer& out, const struct stat& status) const;
  void PutHandle(Writer& out, Handle handle);
  Handle& Find(std::string_view handle);
  int FindFile(std::string_view handle);

  const Jail jail_;
  const Ownership ownership_;
  std::map<std::string, Handle, std::less<>> handles_;
  uint32_t next_handle_ = 0;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOUNT_SFTP_H_
