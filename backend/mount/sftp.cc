// draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL for the extensions.
#include "backend/mount/sftp.h"

#include <endian.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "backend/util/sftp_words.h"

namespace sbxfs {
namespace {

using enum sftp::Type;
using enum sftp::Status;
using enum sftp::Attribute;
using enum sftp::OpenFlag;
using sftp::Status;

constexpr uint32_t kMaxData = 256 * 1024;
constexpr size_t kMaxHandles = 4096;
constexpr uint32_t kNobody = 65534;

Status StatusOf(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case EBADF:
      return kNoSuchFile;
    case EPERM:
    case EACCES:
    case EROFS:
    case EXDEV:  // openat2's word for a way out
      return kPermissionDenied;
    case EOPNOTSUPP:
      return kUnsupported;
    default:
      return kFailure;
  }
}

// As the guest made it, but never setuid or setgid on the host.
mode_t ModeOf(uint32_t mode) { return mode & 01777; }

}  // namespace

class SftpServer::Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  uint8_t U8() { return static_cast<uint8_t>(Take(1)[0]); }
  uint32_t U32() {
    uint32_t value;
    std::memcpy(&value, Take(sizeof value).data(), sizeof value);
    return be32toh(value);
  }
  uint64_t U64() {
    uint64_t value;
    std::memcpy(&value, Take(sizeof value).data(), sizeof value);
    return be64toh(value);
  }
  std::string_view String() { return Take(U32()); }

 private:
  std::string_view Take(size_t size) {
    if (size > bytes_.size()) throw std::invalid_argument("short request");
    const std::string_view part = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return part;
  }
  std::string_view bytes_;
};

class SftpServer::Writer {
 public:
  void Begin(uint8_t type, uint32_t id) {
    bytes_.assign(1, static_cast<char>(type));
    U32(id);
  }
  void U32(uint32_t value) {
    value = htobe32(value);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void U64(uint64_t value) {
    value = htobe64(value);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void String(std::string_view text) {
    U32(static_cast<uint32_t>(text.size()));
    bytes_.append(text);
  }
  void Answer(Status status, std::string_view text) {
    Begin(kStatus, id);
    U32(status);
    String(text);
    String("");
  }
  void Append(std::string_view bytes) { bytes_.append(bytes); }
  [[nodiscard]] size_t Size() const { return bytes_.size(); }
  std::string Take() { return std::move(bytes_); }

  uint32_t id = 0;  // of the request being answered

 private:
  std::string bytes_;
};

struct SftpServer::Attributes {
  std::optional<uint64_t> size;
  std::optional<std::pair<uint32_t, uint32_t>> owner;
  std::optional<uint32_t> mode;
  std::optional<std::pair<uint32_t, uint32_t>> times;  // access, change
};

SftpServer::Attributes SftpServer::ReadAttributes(Reader& in) {
  Attributes attributes;
  const uint32_t flags = in.U32();
  if ((flags & kHasSize) != 0) attributes.size = in.U64();
  auto pair = [&in] {
    const uint32_t first = in.U32();
    return std::pair(first, in.U32());
  };
  if ((flags & kHasOwner) != 0) attributes.owner = pair();
  if ((flags & kHasMode) != 0) attributes.mode = in.U32();
  if ((flags & kHasTimes) != 0) attributes.times = pair();
  if ((flags & kHasExtended) != 0) {
    for (uint32_t count = in.U32(); count > 0; --count) {
      (void)in.String();
      (void)in.String();
    }
  }
  return attributes;
}

void SftpServer::PutAttributes(Writer& out, const struct stat& status) const {
  const bool own_group =
      std::find(ownership_.groups.begin(), ownership_.groups.end(),
                status.st_gid) != ownership_.groups.end();
  out.U32(kHasSize | kHasOwner | kHasMode | kHasTimes);
  out.U64(static_cast<uint64_t>(status.st_size));
  out.U32(status.st_uid == ownership_.uid ? ownership_.guest_uid : kNobody);
  out.U32(own_group ? ownership_.guest_gid : kNobody);
  out.U32(status.st_mode);
  out.U32(static_cast<uint32_t>(status.st_atim.tv_sec));
  out.U32(static_cast<uint32_t>(status.st_mtim.tv_sec));
}

void SftpServer::PutHandle(Writer& out, Handle handle) {
  if (handles_.size() >= kMaxHandles) ThrowErrno(EMFILE);
  const std::string name = fmt::format("{:08x}", next_handle_++);
  handles_[name] = std::move(handle);
  out.Begin(kHandle, out.id);
  out.String(name);
}

SftpServer::Handle& SftpServer::Find(std::string_view handle) {
  const auto found = handles_.find(handle);
  if (found == handles_.end()) ThrowErrno(EBADF);
  return found->second;
}

int SftpServer::FindFile(std::string_view handle) {
  const Handle& found = Find(handle);
  if (!found.file.Valid()) ThrowErrno(EBADF);
  return found.file.Get();
}

std::string SftpServer::Answer(std::string_view request) {
  Reader in(request);
  Writer out;
  const uint8_t type = in.U8();
  if (type == kInit) {
    (void)in.U32();
    out.Begin(kVersion, 3);
    for (const auto& [name, version] :
         {std::pair("posix-rename@openssh.com", "1"),
          std::pair("statvfs@openssh.com", "2"),
          std::pair("hardlink@openssh.com", "1"),
          std::pair("fsync@openssh.com", "1")}) {
      out.String(name);
      out.String(version);
    }
    return out.Take();
  }
  out.id = in.U32();
  try {
    Dispatch(type, in, out);
  } catch (const std::system_error& error) {
    const int number = error.code().value();
    out.Answer(StatusOf(number), std::strerror(number));
  }
  return out.Take();
}

void SftpServer::Dispatch(uint8_t type, Reader& in, Writer& out) {
  auto attributes = [&](const struct stat& status) {
    out.Begin(kAttrs, out.id);
    PutAttributes(out, status);
  };
  auto name = [&](std::string_view text) {
    out.Begin(kName, out.id);
    out.U32(1);
    out.String(text);
    out.String(text);
    out.U32(0);
  };
  switch (type) {
    case kOpen:
      return Open(in, out);
    case kRead:
      return Read(in, out);
    case kWrite:
      return Write(in, out);
    case kReaddir:
      return ReadDir(in, out);
    case kExtended:
      return Extended(in, out);
    case kClose: {
      const std::string_view handle = in.String();
      (void)Find(handle);
      handles_.erase(handles_.find(handle));
      return out.Answer(kOk, "");
    }
    case kLstat:
    case kStat:
      return attributes(jail_.Stat(in.String(), type == kStat));
    case kFstat: {
      struct stat status {};
      if (fstat(FindFile(in.String()), &status) != 0) ThrowErrno(errno);
      return attributes(status);
    }
    case kOpendir: {
      UniqueFd fd = jail_.OpenDir(in.String());
      Handle handle;
      handle.dir.reset(fdopendir(fd.Get()));
      if (!handle.dir) ThrowErrno(errno);
      (void)fd.Release();
      return PutHandle(out, std::move(handle));
    }
    case kReadlink:
      return name(jail_.ReadLink(in.String()));
    case kRealpath:
      return name((std::filesystem::path("/") / in.String())
                      .lexically_normal()
                      .string());
    default:
      return Change(type, in, out);
  }
}

void SftpServer::Change(uint8_t type, Reader& in, Writer& out) {
  switch (type) {
    case kSetstat: {
      const UniqueFd fd = jail_.Refer(in.String());
      SetAttributes(fd.Get(), ReadAttributes(in));
      break;
    }
    case kFsetstat: {
      const int fd = FindFile(in.String());
      SetAttributes(fd, ReadAttributes(in));
      break;
    }
    case kRemove:
      jail_.Remove(in.String(), false);
      break;
    case kRmdir:
      jail_.Remove(in.String(), true);
      break;
    case kMkdir: {
      const std::string_view path = in.String();
      jail_.MakeDir(path, ModeOf(ReadAttributes(in).mode.value_or(0755)));
      break;
    }
    case kRename: {
      const std::string_view from = in.String();
      jail_.Rename(from, in.String(), false);
      break;
    }
    case kSymlink: {
      // OpenSSH has the two the other way round than the draft, and so has
      // everybody.
      const std::string target(in.String());
      jail_.Symlink(target, in.String());
      break;
    }
    default:
      return out.Answer(kUnsupported, "unknown request");
  }
  out.Answer(kOk, "");
}

void SftpServer::Extended(Reader& in, Writer& out) {
  const std::string_view name = in.String();
  if (name == "posix-rename@openssh.com") {
    const std::string_view from = in.String();
    jail_.Rename(from, in.String(), true);
  } else if (name == "hardlink@openssh.com") {
    const std::string_view from = in.String();
    jail_.Link(from, in.String());
  } else if (name == "fsync@openssh.com") {
    if (fsync(FindFile(in.String())) != 0) ThrowErrno(errno);
  } else if (name == "statvfs@openssh.com") {
    const UniqueFd fd = jail_.Refer(in.String());
    struct statvfs status {};
    if (fstatvfs(fd.Get(), &status) != 0) ThrowErrno(errno);
    constexpr uint64_t kReadOnly = 1, kNoSetuid = 2;
    out.Begin(kExtendedReply, out.id);
    for (const uint64_t value :
         {uint64_t{status.f_bsize}, uint64_t{status.f_frsize},
          uint64_t{status.f_blocks}, uint64_t{status.f_bfree},
          uint64_t{status.f_bavail}, uint64_t{status.f_files},
          uint64_t{status.f_ffree}, uint64_t{status.f_favail}, uint64_t{0},
          kNoSetuid | ((status.f_flag & ST_RDONLY) != 0 ? kReadOnly : 0),
          uint64_t{status.f_namemax}}) {
      out.U64(value);
    }
    return;
  } else {
    return out.Answer(kUnsupported, "unknown extension");
  }
  out.Answer(kOk, "");
}

void SftpServer::Open(Reader& in, Writer& out) {
  const std::string_view path = in.String();
  const uint32_t wanted = in.U32();
  const Attributes attributes = ReadAttributes(in);
  int flags = (wanted & kFlagWrite) == 0  ? O_RDONLY
              : (wanted & kFlagRead) == 0 ? O_WRONLY
                                          : O_RDWR;
  if ((wanted & kFlagAppend) != 0) flags |= O_APPEND;
  if ((wanted & kFlagTruncate) != 0) flags |= O_TRUNC;
  // The kernel's openat2 takes a mode together with O_CREAT alone.
  mode_t mode = 0;
  if ((wanted & kFlagCreate) != 0) {
    flags |= O_CREAT;
    mode = ModeOf(attributes.mode.value_or(0644));
    if ((wanted & kFlagExclusive) != 0) flags |= O_EXCL;
  }
  Handle handle;
  handle.file = jail_.OpenFile(path, flags, mode);
  PutHandle(out, std::move(handle));
}

void SftpServer::Read(Reader& in, Writer& out) {
  const int fd = FindFile(in.String());
  const auto offset = static_cast<off_t>(in.U64());
  std::string data(std::min(in.U32(), kMaxData), '\0');
  const ssize_t count = pread(fd, data.data(), data.size(), offset);
  if (count < 0) ThrowErrno(errno);
  if (count == 0 && !data.empty()) return out.Answer(kEof, "");
  out.Begin(kData, out.id);
  out.String(std::string_view(data).substr(0, static_cast<size_t>(count)));
}

void SftpServer::Write(Reader& in, Writer& out) {
  const int fd = FindFile(in.String());
  auto offset = static_cast<off_t>(in.U64());
  std::string_view data = in.String();
  while (!data.empty()) {
    const ssize_t count = pwrite(fd, data.data(), data.size(), offset);
    if (count < 0) ThrowErrno(errno);
    offset += count;
    data.remove_prefix(static_cast<size_t>(count));
  }
  out.Answer(kOk, "");
}

void SftpServer::ReadDir(Reader& in, Writer& out) {
  DIR* dir = Find(in.String()).dir.get();
  if (dir == nullptr) ThrowErrno(EBADF);
  Writer names;
  uint32_t count = 0;
  while (names.Size() < kMaxData / 2) {
    errno = 0;
    const dirent* entry = readdir(dir);
    if (entry == nullptr) {
      if (errno != 0) ThrowErrno(errno);
      break;
    }
    const std::string_view name = entry->d_name;
    // `..` of the root lies outside.
    if (name == "." || name == "..") continue;
    struct stat status {};
    if (fstatat(dirfd(dir), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
      continue;
    }
    names.String(name);
    names.String(name);
    PutAttributes(names, status);
    ++count;
  }
  if (count == 0) return out.Answer(kEof, "");
  out.Begin(kName, out.id);
  out.U32(count);
  out.Append(names.Take());
}

void SftpServer::SetAttributes(int fd, const Attributes& attributes) const {
  // As on vfat: what there is belongs to the guest's user, and stays so.
  constexpr uint32_t kUnchanged = 0xffffffff;
  if (attributes.owner) {
    const auto [uid, gid] = *attributes.owner;
    if ((uid != kUnchanged && uid != ownership_.guest_uid) ||
        (gid != kUnchanged && gid != ownership_.guest_gid)) {
      ThrowErrno(EPERM);
    }
  }
  if (attributes.size) {
    jail_.Truncate(fd, static_cast<off_t>(*attributes.size));
  }
  if (attributes.mode) jail_.Chmod(fd, *attributes.mode & 07777);
  if (attributes.times) {
    const timespec times[2] = {{attributes.times->first, 0},
                               {attributes.times->second, 0}};
    jail_.SetTimes(fd, times);
  }
}

}  // namespace sbxfs
