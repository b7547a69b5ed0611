// What fetches an image from where config.yaml says.
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "backend/image/download.h"
#include "backend/images_incoming.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// Whether a source is a name in images/, and not a path or a URL.
bool IsName(const std::string& location) {
  return location.find('/') == std::string::npos;
}

// The name in images/ that a path or URL gets: its last part without the
// ending, and a digest of the whole, so that two `disk.qcow2` stay two.
std::string NameFor(const ImageSource& source) {
  if (IsName(source.location)) return source.location;
  std::string base = source.location.substr(source.location.rfind('/') + 1);
  base = base.substr(0, base.find_first_of("?#"));
  for (const std::string_view ending :
       {".gz", ".xz", ".zst", ".bz2", ".vmdk", ".vdi", ".vhd", ".qcow2", ".img",
        ".raw"}) {
    if (base.ends_with(ending)) base.resize(base.size() - ending.size());
  }
  for (char& c : base) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) == 0 && c != '.' && c != '-' && c != '_') c = '-';
  }
  const uint32_t hash = Hash32(source.location + "\n" + source.digest);
  return fmt::format("{}-{:08x}", base.empty() ? "image" : base, hash);
}

// Opens a file with another user's rights, on this thread alone: the file
// system ids of Linux are a thread's own.
UniqueFd OpenAs(uid_t uid, const std::string& path) {
  const std::string what = fmt::format("Cannot read the image '{}'", path);
  const uid_t self = geteuid();
  if (uid != self && self != 0) {
    throw Error(EPERM, what +
                           ": it would be read with the rights of the "
                           "mount's owner, who is another user; copy it to "
                           ".host/images");
  }
  std::vector<gid_t> own(1024);
  gid_t group = getegid();
  if (uid != self) {
    std::vector<char> buffer(16384);
    passwd entry{};
    passwd* found = nullptr;
    getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found);
    group = found != nullptr ? found->pw_gid : uid;
    own.resize(
        std::max(0, getgroups(static_cast<int>(own.size()), own.data())));
    // The raw call: glibc's would change every thread's groups.
    syscall(SYS_setgroups, 0, nullptr);
    setfsgid(group);
    setfsuid(uid);
  }
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  const int error = errno;
  if (uid != self) {
    setfsuid(self);
    setfsgid(getegid());
    syscall(SYS_setgroups, own.size(), own.data());
  }
  if (!fd.Valid()) {
    throw Error(error, fmt::format("{}: {}; correct images: in config.yaml",
                                   what, std::strerror(error)));
  }
  struct stat info {};
  if (fstat(fd.Get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    throw Error(EINVAL, what +
                            ": it is no ordinary file; name a disk image "
                            "under images: in config.yaml");
  }
  return fd;
}

}  // namespace

std::optional<Images::Base> Images::Find(
    const std::vector<ImageSource>& sources, const std::string& arch) {
  for (const auto& source : sources) {
    if (!source.arch.empty() && source.arch != arch) continue;
    const std::string name = NameFor(source);
    if (core_.storage.Has(ImageVolume(name)) &&
        !core_.storage.Has(MarkVolume(name))) {
      return Inspect(name);
    }
  }
  return std::nullopt;
}

Images::Base Images::Fetch(const std::vector<ImageSource>& sources,
                           const std::string& arch, uid_t uid,
                           const std::function<void(std::string)>& progress,
                           const std::function<bool()>& go_on) {
  if (auto base = Find(sources, arch)) return *std::move(base);
  std::optional<Error> failure;
  std::string missing;
  for (const auto& source : sources) {
    if (!source.arch.empty() && source.arch != arch) continue;
    if (IsName(source.location)) {
      missing = source.location;
      continue;
    }
    try {
      return Inspect(FetchOne(source, uid, progress, go_on));
    } catch (const Error& error) {
      if (error.Errno() == ECANCELED) throw;
      failure = error;
      spdlog::debug("{}", error.Sentence());
    }
  }
  if (failure && !missing.empty()) {
    throw Error(failure->Errno(),
                fmt::format("Cannot find the image '{}' in .host/images, and "
                            "the next source failed: {}",
                            missing, failure->Sentence()));
  }
  if (failure) throw *failure;
  if (!missing.empty()) {
    throw Error(ENOENT,
                fmt::format("Cannot find the image '{}': copy one to "
                            ".host/images/{}, or name another in config.yaml",
                            missing, missing));
  }
  throw Error(ENOENT, fmt::format("Cannot find an image for arch '{}': name "
                                  "one under images: in config.yaml",
                                  arch));
}

std::string Images::FetchOne(const ImageSource& source, uid_t uid,
                             const std::function<void(std::string)>& progress,
                             const std::function<bool()>& go_on) {
  const std::string name = NameFor(source);
  std::unique_ptr<Digest> digest;
  if (!source.digest.empty()) digest = std::make_unique<Digest>(source.digest);
  Incoming incoming(*this, name);
  uint64_t offset = 0;
  auto sink = [&](std::string_view bytes) {
    if (digest != nullptr) digest->Add(bytes);
    incoming.Write(offset, bytes);
    offset += bytes.size();
  };
  auto tell = [&, last = -1](uint64_t so_far, uint64_t all) mutable {
    if (last < 0) incoming.Expect(all);
    const int percent = all == 0 ? 0 : static_cast<int>(so_far * 100 / all);
    if (percent != last) {
      last = percent;
      progress(all == 0 ? fmt::format("fetching the image {}", source.location)
                        : fmt::format("fetching the image {} {} %",
                                      source.location, percent));
    }
    return go_on();
  };
  if (source.location.starts_with('/')) {
    const UniqueFd file = OpenAs(uid, source.location);
    struct stat info {};
    fstat(file.Get(), &info);
    incoming.Expect(info.st_size);
    std::string buffer(1 << 20, '\0');
    for (;;) {
      const ssize_t got = read(file.Get(), buffer.data(), buffer.size());
      if (got < 0) {
        const int error = errno;
        throw Error(error, fmt::format("Cannot read the image '{}': {}",
                                       source.location, std::strerror(error)));
      }
      if (got == 0) break;
      sink(std::string_view(buffer).substr(0, got));
      if (!tell(offset, info.st_size)) {
        throw Error(ECANCELED, "Cannot fetch the image: it was cancelled");
      }
    }
  } else {
    Download(source.location, sink, tell);
  }
  if (digest != nullptr) digest->Check(source.location);
  incoming.Finish();
  return name;
}

}  // namespace sbxfs
