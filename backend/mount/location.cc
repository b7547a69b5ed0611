#include "backend/mount/location.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <fstream>
#include <sstream>
#include <thread>

#include "backend/mount/jail.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

// Whether the file system that `device` is the number of is an sbxfs.
bool IsSbxfs(dev_t device) {
  const std::string wanted = fmt::format("{}:{}", major(device), minor(device));
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string number, parent, dev, word;
    words >> number >> parent >> dev;
    if (dev != wanted) continue;
    while (words >> word && word != "-") {
    }
    if (words >> word && word == "fuse.sbxfs") return true;
  }
  return false;
}

// For this thread alone: the libc's functions would change every thread's.
void TakeRights(const Rights& rights, std::string_view what) {
  if (geteuid() != 0) {
    if (rights.uid == geteuid()) return;
    throw Error(EPERM,
                fmt::format("{}: it would have to be served as user {}, which "
                            "only a mount of root's can; mount sbxfs yourself",
                            what, rights.uid));
  }
  // Root's own rights are all there are, whatever groups it is in.
  if (rights.uid == 0) return;
  if (syscall(SYS_setgroups, rights.groups.size(), rights.groups.data()) != 0 ||
      syscall(SYS_setresgid, -1, rights.gid, -1) != 0 ||
      syscall(SYS_setresuid, -1, rights.uid, -1) != 0) {
    throw Error(EPERM, fmt::format("{}: its user's rights cannot be taken on: "
                                   "{}",
                                   what, std::strerror(errno)));
  }
}

UniqueFd OpenNow(const std::string& location, bool writable,
                 std::string_view what) {
  auto fail = [&](int error, std::string_view why) {
    return Error(error, fmt::format("{}: '{}' {}", what, location, why));
  };
  UniqueFd fd(open(location.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.Valid()) {
    switch (errno) {
      case ENOENT:
        throw fail(ENOENT, "does not exist; mkdir it first");
      case ENOTDIR:
        throw fail(ENOTDIR, "is no directory; name the one it lies in");
      case EACCES:
        throw fail(EACCES, "cannot be reached with your rights");
      default:
        throw fail(errno,
                   fmt::format("cannot be opened: {}", std::strerror(errno)));
    }
  }
  struct stat status {};
  if (fstat(fd.Get(), &status) != 0) throw fail(errno, std::strerror(errno));
  if (IsSbxfs(status.st_dev)) {
    throw fail(EINVAL,
               "lies inside an sbxfs mount, which would hand the guest the "
               "host's sandboxes");
  }
  auto may = [&](int mode) {
    return syscall(SYS_faccessat2, fd.Get(), "", mode,
                   AT_EACCESS | AT_EMPTY_PATH) == 0;
  };
  if (!may(R_OK | X_OK)) throw fail(EACCES, "cannot be read with your rights");
  if (writable && !may(W_OK)) {
    throw fail(EACCES,
               "cannot be written with your rights; leave ':w' out to have it "
               "read-only");
  }
  if (const int error = JailError(fd.Get()); error != 0) {
    throw fail(EOPNOTSUPP,
               fmt::format("cannot be served: this kernel has no openat2 to "
                           "keep the guest inside it ({}); use Linux 5.6 or "
                           "later",
                           std::strerror(error)));
  }
  return fd;
}

}  // namespace

Rights RightsOfProcess(pid_t pid, uid_t uid, gid_t gid) {
  Rights rights{uid, gid, {}};
  if (pid <= 0) return rights;
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string key;
    words >> key;
    if (key == "Groups:") {
      for (gid_t group = 0; words >> group;) rights.groups.push_back(group);
    }
  }
  return rights;
}

Rights OwnRights() { return RightsOfProcess(getpid(), geteuid(), getegid()); }

Rights RightsOfUser(uid_t uid) {
  std::vector<char> buffer(16384);
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr) {
    // A user without a name is in no group but one that nobody else is in.
    return {uid, static_cast<gid_t>(uid), {}};
  }
  Rights rights{uid, found->pw_gid, {}};
  int count = 64;
  rights.groups.resize(64);
  while (getgrouplist(found->pw_name, found->pw_gid, rights.groups.data(),
                      &count) < 0) {
    rights.groups.resize(static_cast<size_t>(count));
  }
  rights.groups.resize(static_cast<size_t>(count));
  return rights;
}

UniqueFd OpenLocation(const std::string& location, bool writable,
                      const Rights& rights, std::string_view what) {
  if (!location.starts_with('/')) {
    throw Error(EINVAL,
                fmt::format("{}: '{}' is no absolute path", what, location));
  }
  UniqueFd fd;
  std::exception_ptr failure;
  // A thread's rights end with it: there is nothing to give back.
  std::thread([&] {
    try {
      TakeRights(rights, what);
      fd = OpenNow(location, writable, what);
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
  return fd;
}

}  // namespace sbxfs
