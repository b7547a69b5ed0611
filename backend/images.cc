#include "backend/images.h"

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
#include <deque>
#include <set>
#include <vector>

#include "backend/image/download.h"
#include "backend/util/log.h"
#include "backend/util/process_mark.h"
#include "backend/util/text.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

constexpr std::string_view kImage = "image.";
constexpr std::string_view kPartial = "partial.";

std::string VolumeOf(std::string_view name) {
  return std::string(kImage) + std::string(name);
}
std::string MarkOf(std::string_view name) {
  return std::string(kPartial) + std::string(name);
}

// The volume's bytes in pieces: a header's many small reads come from one.
ReadAt ReaderOf(Storage& storage, const std::string& volume) {
  struct Window {
    uint64_t offset = 0;
    std::string bytes;
  };
  auto window = std::make_shared<Window>();
  return [&storage, volume, window](uint64_t offset, size_t size) {
    constexpr size_t kPiece = 256 * 1024;
    Window& w = *window;
    if (offset < w.offset || offset + size > w.offset + w.bytes.size()) {
      w.bytes = storage.Read(volume, offset, std::max(size, kPiece));
      w.offset = offset;
    }
    const uint64_t skip = offset - w.offset;
    if (skip >= w.bytes.size()) return std::string();
    return w.bytes.substr(skip, size);
  };
}

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
  for (const std::string_view ending : {".qcow2", ".img", ".raw"}) {
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
                           "mount's owner, who is another user");
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

class Images::Incoming {
 public:
  Incoming(Images& images, std::string name)
      : images_(images),
        storage_(images.core_.storage),
        name_(std::move(name)) {
    images_.TakeName(name_);
    try {
      storage_.Write(VolumeOf(name_), "");
      upload_ = storage_.Upload(VolumeOf(name_));
    } catch (...) {
      images_.Discard(name_);
      throw;
    }
  }
  ~Incoming() {
    if (finished_) return;
    upload_.reset();
    images_.Discard(name_);
  }
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  void Write(uint64_t offset, std::string_view bytes) {
    if (offset < written_) {
      throw Error(ESPIPE,
                  fmt::format("Cannot write image '{}': images are written "
                              "from front to back; copy a finished file",
                              name_));
    }
    Fill(offset);
    upload_->Send(bytes);
    written_ += bytes.size();
  }
  // A sparse source's holes; cp leaves them out and sets the length.
  void Fill(uint64_t offset) {
    const std::string zeros(
        std::min<uint64_t>(offset - std::min(offset, written_), 1 << 20), '\0');
    while (written_ < offset) {
      const auto piece = std::min<uint64_t>(offset - written_, zeros.size());
      upload_->Send(std::string_view(zeros).substr(0, piece));
      written_ += piece;
    }
  }
  void Finish() {
    if (finished_) return;
    upload_->Finish();
    upload_.reset();
    images_.Show(name_, written_);
    finished_ = true;
  }

 private:
  Images& images_;
  Storage& storage_;
  const std::string name_;
  std::unique_ptr<VolumeUpload> upload_;
  uint64_t written_ = 0;
  bool finished_ = false;
};

void Images::TakeName(const std::string& name) {
  Storage& storage = core_.storage;
  const bool there = storage.Has(VolumeOf(name));
  if (!storage.Has(MarkOf(name))) {
    if (there) {
      throw Error(EEXIST, fmt::format("Cannot create image '{}': there is one "
                                      "of that name; rm it first",
                                      name));
    }
    try {
      storage.WriteNew(MarkOf(name), ThisProcessMark());
      return;
    } catch (const Error& error) {
      if (error.Errno() != EEXIST) throw;
    }
  }
  if (!IsMarkOfTheDead(storage.Read(MarkOf(name), 0, 0))) {
    throw Error(EBUSY, fmt::format("Cannot create image '{}': it is being "
                                   "written just now; wait for its end, or "
                                   "choose another name",
                                   name));
  }
  storage.Write(MarkOf(name), ThisProcessMark());
}

void Images::Discard(const std::string& name) {
  try {
    core_.storage.Delete(VolumeOf(name));
    core_.storage.Delete(MarkOf(name));
  } catch (const Error& error) {
    // The sweep takes it once libvirt answers again and we have ended.
    spdlog::error("{}", error.Sentence());
  }
}

void Images::Show(const std::string& name, uint64_t size) {
  (void)InspectImage(name, size, ReaderOf(core_.storage, VolumeOf(name)));
  core_.storage.Delete(MarkOf(name));
  core_.storage.Announce();
  Refresh();
}

void Images::Adopt(const std::string& name,
                   const std::function<void(const std::string&)>& make) {
  if (core_.test_driver) {
    throw Error(EOPNOTSUPP,
                "Cannot create an image: the test driver keeps none");
  }
  TakeName(name);
  try {
    core_.storage.Delete(VolumeOf(name));
    make(VolumeOf(name));
    Show(name, core_.storage.Get(VolumeOf(name)).size);
  } catch (...) {
    Discard(name);
    throw;
  }
}

// One job at a time, in order, on the workers: a stream takes its bytes so.
class Images::Writer : public ImageWriter,
                       public std::enable_shared_from_this<Images::Writer> {
 public:
  Writer(Core& core, std::unique_ptr<Incoming> incoming)
      : core_(core), incoming_(std::move(incoming)) {}
  ~Writer() override {
    // Deleting volumes blocks, and we may be on a FUSE thread.
    core_.workers.Run([incoming = std::shared_ptr<Incoming>(std::move(
                           incoming_))]() mutable { incoming.reset(); });
  }

  void Write(uint64_t offset, std::string bytes, Reply<Done> reply) override {
    const uint64_t end = offset + bytes.size();
    Queue(std::move(reply), [this, offset, end, bytes = std::move(bytes)] {
      incoming_->Write(offset, bytes);
      MutexLock lock(mutex_);
      written_ = end;
    });
  }
  void Truncate(uint64_t size, Reply<Done> reply) override {
    Queue(std::move(reply), [this, size] {
      incoming_->Fill(size);
      MutexLock lock(mutex_);
      written_ = std::max(written_, size);
    });
  }
  void Finish(Reply<Done> reply) override {
    Queue(std::move(reply), [this] { incoming_->Finish(); });
  }
  uint64_t Written() const override {
    MutexLock lock(mutex_);
    return written_;
  }

 private:
  void Queue(Reply<Done> reply, std::function<void()> job) EXCLUDES(mutex_) {
    bool idle = false;
    {
      MutexLock lock(mutex_);
      idle = jobs_.empty();
      jobs_.emplace_back(std::move(reply), std::move(job));
    }
    if (idle) {
      core_.workers.Run([self = shared_from_this()] { self->Work(); });
    }
  }
  void Work() EXCLUDES(mutex_) {
    for (;;) {
      std::pair<Reply<Done>, std::function<void()>>* next = nullptr;
      {
        MutexLock lock(mutex_);
        next = &jobs_.front();  // stays in front, so that nobody starts a twin
      }
      next->first.Guard([next] {
        next->second();
        next->first.Ok();
      });
      MutexLock lock(mutex_);
      jobs_.pop_front();
      if (jobs_.empty()) return;
    }
  }

  Core& core_;
  std::unique_ptr<Incoming> incoming_;
  mutable Mutex mutex_;
  uint64_t written_ GUARDED_BY(mutex_) = 0;
  std::deque<std::pair<Reply<Done>, std::function<void()>>> jobs_
      GUARDED_BY(mutex_);
};

class Images::Reader : public ImageReader,
                       public std::enable_shared_from_this<Images::Reader> {
 public:
  Reader(Core& core, std::string volume)
      : core_(core), volume_(std::move(volume)) {}

  void Read(uint64_t offset, size_t size, Reply<std::string> reply) override {
    core_.workers.Run([self = shared_from_this(), offset, size, reply] {
      reply.Guard([&] { reply.Ok(self->ReadNow(offset, size)); });
    });
  }

 private:
  // Reads ahead: a stream costs more to open than a megabyte to send.
  std::string ReadNow(uint64_t offset, size_t size) EXCLUDES(mutex_) {
    constexpr size_t kAhead = 8 << 20;
    {
      MutexLock lock(mutex_);
      if (offset >= offset_ && offset + size <= offset_ + bytes_.size()) {
        return bytes_.substr(offset - offset_, size);
      }
    }
    std::string bytes =
        core_.storage.Read(volume_, offset, std::max(size, kAhead));
    std::string wanted = bytes.substr(0, size);
    MutexLock lock(mutex_);
    offset_ = offset;
    bytes_ = std::move(bytes);
    return wanted;
  }

  Core& core_;
  const std::string volume_;
  Mutex mutex_;
  uint64_t offset_ GUARDED_BY(mutex_) = 0;
  std::string bytes_ GUARDED_BY(mutex_);
};

void Images::Refresh() {
  uint64_t number = 0;
  {
    MutexLock lock(mutex_);
    number = ++refreshes_;
  }
  const auto volumes = core_.storage.List(kImage);
  // Looked at again, all in one moment: of what is given up the image goes
  // first and its mark last.
  const auto listed = core_.storage.Names();
  const std::set<std::string> names(listed.begin(), listed.end());
  const auto used = core_.ImagesInUse();
  const PoolInfo pool = core_.storage.Info();
  std::vector<Image> images;
  for (const auto& volume : volumes) {
    const std::string name = volume.name.substr(kImage.size());
    if (names.contains(MarkOf(name)) || !names.contains(volume.name)) continue;
    images.push_back({name, volume.size, volume.modified, used.contains(name)});
  }
  std::sort(images.begin(), images.end(),
            [](const Image& a, const Image& b) { return a.name < b.name; });
  core_.catalog.ChangeHost([&](Host& host) {
    {
      // One that looked earlier and was overtaken knows less.
      MutexLock lock(mutex_);
      if (number < refreshed_) return;
      refreshed_ = number;
    }
    host.images = images;
    host.pool_size = pool.size;
    host.pool_available = pool.available;
  });
}

bool Images::IsMark(const std::string& volume) {
  return volume.starts_with(kPartial);
}

std::vector<std::string> Images::Abandoned(
    const std::vector<std::string>& volumes, Time now) {
  // A writer elsewhere that cannot be seen from here may rest a night.
  constexpr std::chrono::hours kUnseen(24);
  std::vector<std::string> abandoned;
  for (const auto& mark : volumes) {
    if (!IsMark(mark)) continue;
    const std::string image = VolumeOf(mark.substr(kPartial.size()));
    const bool there =
        std::find(volumes.begin(), volumes.end(), image) != volumes.end();
    const std::string writer = core_.storage.Read(mark, 0, 0);
    if (!IsMarkOfTheDead(writer)) {
      Time last = core_.storage.Get(mark).modified;
      if (there) last = std::max(last, core_.storage.Get(image).modified);
      // One without a word was cut off while it was made.
      const std::chrono::seconds patience =
          writer.ends_with('\n') ? kUnseen : core_.options.orphan_age;
      if (now - last < patience) continue;
    }
    if (there) abandoned.push_back(image);
    abandoned.push_back(mark);
  }
  return abandoned;
}

Images::Base Images::Inspect(const std::string& name) {
  const Volume volume = core_.storage.Get(VolumeOf(name));
  const std::pair<uint64_t, Time> stamp(volume.size, volume.modified);
  Base base{name, core_.storage.Path(VolumeOf(name)), {}};
  {
    MutexLock lock(mutex_);
    const auto known = facts_.find(name);
    if (known != facts_.end() && known->second.first == stamp) {
      base.facts = known->second.second;
      return base;
    }
  }
  base.facts =
      InspectImage(name, volume.size, ReaderOf(core_.storage, VolumeOf(name)));
  MutexLock lock(mutex_);
  facts_[name] = {stamp, base.facts};
  return base;
}

std::optional<Images::Base> Images::Find(
    const std::vector<ImageSource>& sources, const std::string& arch) {
  for (const auto& source : sources) {
    if (!source.arch.empty() && source.arch != arch) continue;
    const std::string name = NameFor(source);
    if (core_.storage.Has(VolumeOf(name)) && !core_.storage.Has(MarkOf(name))) {
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

void Images::Open(const std::string& name,
                  Reply<std::shared_ptr<ImageReader>> reply) {
  reply.Ok(std::make_shared<Reader>(core_, VolumeOf(name)));
}

void Images::Create(const std::string& name,
                    Reply<std::shared_ptr<ImageWriter>> reply) {
  core_.workers.Run([this, name, reply] {
    reply.Guard([&] {
      if (core_.test_driver) {
        throw Error(EOPNOTSUPP,
                    "Cannot create an image: the test driver keeps "
                    "none");
      }
      reply.Ok(std::make_shared<Writer>(
          core_, std::make_unique<Incoming>(*this, name)));
    });
  });
}

void Images::Remove(const std::string& name, Reply<Done> reply) {
  core_.workers.Run([this, name, reply] {
    reply.Guard([&] {
      (void)core_.connection.Get(fmt::format("Cannot remove image '{}'", name));
      if (core_.ImagesInUse().contains(name)) {
        throw Error(EBUSY, fmt::format("Cannot remove image '{}': a sandbox "
                                       "stands on it; rmdir that first (and "
                                       "look into .host/trash)",
                                       name));
      }
      core_.storage.Delete(VolumeOf(name));
      core_.storage.Announce();
      Refresh();
      reply.Ok();
    });
  });
}

}  // namespace sbxfs
