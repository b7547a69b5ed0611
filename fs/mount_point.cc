#include "fs/mount_point.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "backend/util/error.h"
#include "backend/util/spawn.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

// The kernel writes blanks and backslashes as three octal digits.
std::string Unescape(std::string_view field) {
  std::string text;
  for (std::size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size()) {
      text +=
          static_cast<char>((field[i + 1] - '0') << 6 |
                            (field[i + 2] - '0') << 3 | (field[i + 3] - '0'));
      i += 3;
    } else {
      text += field[i];
    }
  }
  return text;
}

[[noreturn]] void Refuse(std::string_view dir, int error,
                         std::string_view advice) {
  throw Error(error == ENOTCONN ? EIO : error,
              fmt::format("Cannot mount on '{}': {}{}", dir,
                          std::strerror(error), advice));
}

std::string RealPath(const std::string& path, std::string_view dir) {
  const std::unique_ptr<char, decltype(&std::free)> real(
      realpath(path.c_str(), nullptr), &std::free);
  if (real) return real.get();
  const int error = errno;
  Refuse(dir, error, error == ENOENT ? "; make it first, with mkdir" : "");
}

void RefuseSecond(std::string_view dir, std::string_view uri) {
  std::ifstream file("/proc/self/mountinfo");
  const std::string table{std::istreambuf_iterator<char>(file), {}};
  const auto source = SbxfsMountedOn(table, dir);
  if (!source) return;
  throw Error(EBUSY,
              *source == uri
                  ? fmt::format("Cannot mount '{}' on '{}': it is mounted "
                                "there already",
                                uri, dir)
                  : fmt::format("Cannot mount on '{0}': '{1}' is mounted "
                                "there; unmount it with umount '{0}'",
                                dir, *source));
}

}  // namespace

void RequireFuse() {
  if (access("/dev/fuse", F_OK) == 0) return;
  const int error = errno;
  if (error == ENOENT) {
    throw Error(ENODEV,
                "Cannot mount: there is no '/dev/fuse'; load the kernel's "
                "module with modprobe fuse");
  }
  // A control group may keep the device from us (DeviceAllow= of a unit).
  throw Error(error, fmt::format("Cannot mount: '/dev/fuse' is kept from this "
                                 "process: {}",
                                 std::strerror(error)));
}

std::string ResolveMountPoint(const std::string& dir, std::string_view uri) {
  // The table is asked before the directory itself, where the daemon of a
  // mount that is there may be stuck.
  std::filesystem::path path = std::filesystem::absolute(dir);
  while (path.has_relative_path() &&
         (!path.has_filename() || path.filename() == ".")) {
    path = path.parent_path();
  }
  if (path.has_filename() && path.filename() != "..") {
    const std::filesystem::path parent = RealPath(path.parent_path(), dir);
    RefuseSecond((parent / path.filename()).string(), uri);
  }
  std::string real = RealPath(path, dir);
  RefuseSecond(real, uri);
  struct stat status;
  if (stat(real.c_str(), &status) != 0) {
    const int error = errno;
    Refuse(
        dir, error,
        error == ENOTCONN ? "; a dead mount is there, unmount it first" : "");
  }
  if (!S_ISDIR(status.st_mode)) Refuse(dir, ENOTDIR, "");
  if (geteuid() != 0 && status.st_uid != geteuid() &&
      access(real.c_str(), W_OK) != 0) {
    throw Error(EACCES,
                fmt::format("Cannot mount on '{}': it is neither yours nor "
                            "writable for you, as FUSE wants it; mount on a "
                            "directory of yours",
                            dir));
  }
  return real;
}

WritableForMount::WritableForMount(const std::string& dir)
    : directory_(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  struct stat status;
  if (geteuid() == 0 || fstat(directory_.Get(), &status) != 0 ||
      (status.st_mode & S_IWUSR) != 0) {
    return;
  }
  mode_ = status.st_mode & 07777;
  if (fchmod(directory_.Get(), *mode_ | S_IWUSR) != 0) mode_.reset();
}

WritableForMount::~WritableForMount() {
  if (mode_) fchmod(directory_.Get(), *mode_);
}

void UnmountBusy(const std::string& dir) {
  if (geteuid() == 0) {
    umount2(dir.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    return;
  }
  try {
    AwaitExit(Spawn({"fusermount3", "-uzq", "--", dir}, STDIN_FILENO,
                    STDOUT_FILENO, STDERR_FILENO));
  } catch (const Error&) {
    // Without it nobody can, and the mount is dead.
  }
}

std::vector<SbxfsMount> SbxfsMounts(std::string_view mountinfo) {
  std::vector<SbxfsMount> mounts;
  for (const std::string_view line : Split(mountinfo, '\n')) {
    // ID PARENT MAJOR:MINOR ROOT DIR OPTIONS [TAG]... - TYPE SOURCE OPTIONS
    const auto fields = Split(line, ' ');
    const auto dash = line.find(" - ");
    if (fields.size() < 5 || dash == std::string_view::npos) continue;
    const std::string dir = Unescape(fields[4]);
    std::erase_if(mounts, [&](const auto& mount) { return mount.dir == dir; });
    const auto rest = Split(line.substr(dash + 3), ' ');
    if (rest.size() < 2 || rest[0] != "fuse.sbxfs") continue;
    mounts.push_back({dir, Unescape(rest[1]), std::nullopt});
    if (rest.size() < 3) continue;
    for (const std::string_view option : Split(rest[2], ',')) {
      constexpr std::string_view kUser = "user_id=";
      if (!option.starts_with(kUser)) continue;
      if (const auto uid = ParseNumber(option.substr(kUser.size()))) {
        mounts.back().uid = static_cast<uid_t>(*uid);
      }
    }
  }
  return mounts;
}

std::optional<std::string> SbxfsMountedOn(std::string_view mountinfo,
                                          std::string_view dir) {
  for (const SbxfsMount& mount : SbxfsMounts(mountinfo)) {
    if (mount.dir == dir) return mount.source;
  }
  return std::nullopt;
}

}  // namespace sbxfs
