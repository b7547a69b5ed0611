#include "backend/mount/jail.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/landlock.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <system_error>
#include <utility>

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

namespace sbxfs {
namespace {

void CheckJail(int result) {
  if (result != 0) ThrowErrno(errno);
}

int OpenBeneath(int root, const char* path, int flags, mode_t mode) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  // The kernel refuses a ".." beside which anything anywhere on the host was
  // renamed or mounted, and wants to be asked again (openat2(2), EAGAIN).
  constexpr int kTries = 1000;
  long fd = -1;
  for (int tries = 0; tries < kTries; ++tries) {
    fd = syscall(SYS_openat2, root, path, &how, sizeof how);
    if (fd >= 0 || errno != EAGAIN) break;
  }
  return static_cast<int>(fd);
}

// A peer's absolute path is one from the root it is shown.
std::string Relative(std::string_view path) {
  if (path.find('\0') != path.npos) ThrowErrno(EINVAL);
  const auto first = path.find_first_not_of('/');
  if (first == path.npos) return ".";
  const auto last = path.find_last_not_of('/');
  return std::string(path.substr(first, last + 1 - first));
}

// Changes through this name reach what the descriptor stands for, with no
// path walked again.
std::string ProcPath(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

}  // namespace

Jail::Jail(UniqueFd root, bool writable)
    : root_(std::move(root)), writable_(writable) {
  struct stat status {};
  CheckJail(fstat(root_.Get(), &status));
  device_ = status.st_dev;
}

UniqueFd Jail::Resolve(std::string_view path, int flags, mode_t mode) const {
  UniqueFd fd(OpenBeneath(root_.Get(), Relative(path).c_str(), flags, mode));
  if (!fd.Valid()) ThrowErrno(errno);
  struct stat status {};
  CheckJail(fstat(fd.Get(), &status));
  if (status.st_dev != device_) {
    struct statfs system {};
    CheckJail(fstatfs(fd.Get(), &system));
    if (system.f_type == FUSE_SUPER_MAGIC) ThrowErrno(EACCES);
  }
  return fd;
}

Jail::Place Jail::PlaceOf(std::string_view path) const {
  const std::string whole = Relative(path);
  const auto slash = whole.rfind('/');
  std::string name =
      slash == std::string::npos ? whole : whole.substr(slash + 1);
  if (name == "." || name == "..") ThrowErrno(EINVAL);
  return {Resolve(slash == std::string::npos ? "." : whole.substr(0, slash),
                  O_PATH | O_DIRECTORY),
          std::move(name)};
}

void Jail::MustBeWritable() const {
  if (!writable_) ThrowErrno(EROFS);
}

struct stat Jail::Stat(std::string_view path, bool follow) const {
  const UniqueFd fd = Resolve(path, O_PATH | (follow ? 0 : O_NOFOLLOW));
  struct stat status {};
  CheckJail(fstat(fd.Get(), &status));
  return status;
}

UniqueFd Jail::OpenFile(std::string_view path, int flags, mode_t mode) const {
  if ((flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0) {
    MustBeWritable();
  }
  // Not made where it would not be seen.
  if ((flags & O_CREAT) != 0) (void)PlaceOf(path);
  // A FIFO or a device of the host is none of the guest's business, and must
  // not hold us up.
  UniqueFd fd = Resolve(path, flags | O_NONBLOCK | O_NOCTTY, mode);
  struct stat status {};
  CheckJail(fstat(fd.Get(), &status));
  if (!S_ISREG(status.st_mode)) ThrowErrno(EACCES);
  return fd;
}

UniqueFd Jail::OpenDir(std::string_view path) const {
  return Resolve(path, O_RDONLY | O_DIRECTORY);
}

UniqueFd Jail::Refer(std::string_view path) const {
  return Resolve(path, O_PATH);
}

std::string Jail::ReadLink(std::string_view path) const {
  const UniqueFd fd = Resolve(path, O_PATH | O_NOFOLLOW);
  char target[PATH_MAX];
  const ssize_t size = readlinkat(fd.Get(), "", target, sizeof target);
  if (size < 0) ThrowErrno(errno == ENOENT ? EINVAL : errno);
  return {target, static_cast<size_t>(size)};
}

void Jail::MakeDir(std::string_view path, mode_t mode) const {
  MustBeWritable();
  const Place place = PlaceOf(path);
  CheckJail(mkdirat(place.dir.Get(), place.name.c_str(), mode));
}

void Jail::Remove(std::string_view path, bool directory) const {
  MustBeWritable();
  const Place place = PlaceOf(path);
  CheckJail(unlinkat(place.dir.Get(), place.name.c_str(),
                     directory ? AT_REMOVEDIR : 0));
}

void Jail::Rename(std::string_view from, std::string_view to,
                  bool replace) const {
  MustBeWritable();
  const Place old = PlaceOf(from);
  const Place fresh = PlaceOf(to);
  CheckJail(renameat2(old.dir.Get(), old.name.c_str(), fresh.dir.Get(),
                      fresh.name.c_str(), replace ? 0 : RENAME_NOREPLACE));
}

void Jail::Link(std::string_view from, std::string_view to) const {
  MustBeWritable();
  const Place old = PlaceOf(from);
  const Place fresh = PlaceOf(to);
  CheckJail(linkat(old.dir.Get(), old.name.c_str(), fresh.dir.Get(),
                   fresh.name.c_str(), 0));
}

void Jail::Symlink(const std::string& target, std::string_view path) const {
  MustBeWritable();
  const Place place = PlaceOf(path);
  CheckJail(symlinkat(target.c_str(), place.dir.Get(), place.name.c_str()));
}

void Jail::Truncate(int fd, off_t size) const {
  MustBeWritable();
  struct stat status {};
  CheckJail(fstat(fd, &status));
  if (!S_ISREG(status.st_mode)) ThrowErrno(EINVAL);
  CheckJail(truncate(ProcPath(fd).c_str(), size));
}

void Jail::Chmod(int fd, mode_t mode) const {
  MustBeWritable();
  struct stat status {};
  CheckJail(fstat(fd, &status));
  // A guest's root must not make programs that run as the host's user.
  const mode_t allowed = S_ISDIR(status.st_mode) ? 03777 : 01777;
  CheckJail(chmod(ProcPath(fd).c_str(), mode & allowed));
}

void Jail::SetTimes(int fd, const timespec times[2]) const {
  MustBeWritable();
  CheckJail(utimensat(AT_FDCWD, ProcPath(fd).c_str(), times, 0));
}

void ThrowErrno(int error) {
  throw std::system_error(error, std::generic_category());
}

int JailError(int root) {
  const UniqueFd fd(OpenBeneath(root, ".", O_PATH | O_DIRECTORY, 0));
  return fd.Valid() ? 0 : errno;
}

bool ConfineByLandlock(int root) {
  const long version = syscall(SYS_landlock_create_ruleset, nullptr, size_t{0},
                               LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return false;
  // Bits of the first version, then one more for each of the next two: refer,
  // without which files cannot move between directories, and truncate.
  constexpr uint64_t kFirst = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
  const uint64_t all = version == 1   ? kFirst
                       : version == 2 ? (kFirst << 1 | 1)
                                      : (kFirst << 2 | 3);
  landlock_ruleset_attr attributes{};
  attributes.handled_access_fs = all;
  const UniqueFd rules(
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes,
                               sizeof attributes.handled_access_fs, 0)));
  if (!rules.Valid()) return false;
  landlock_path_beneath_attr beneath{};
  beneath.allowed_access = all & ~uint64_t{LANDLOCK_ACCESS_FS_EXECUTE};
  beneath.parent_fd = root;
  return syscall(SYS_landlock_add_rule, rules.Get(), LANDLOCK_RULE_PATH_BENEATH,
                 &beneath, 0) == 0 &&
         prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_landlock_restrict_self, rules.Get(), 0) == 0;
}

}  // namespace sbxfs
