#include "backend/disk_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>
#include <vector>

#include "backend/disk/piece_cache.h"
#include "backend/disk/reader_process.h"
#include "backend/layers.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

// Of all disks that are read by this process.
constexpr size_t kCachedBytes = 32 << 20;
// A chain of more is nobody's.
constexpr size_t kLongestDiskChain = 256;

// The one that those have who read now: it goes with the last of them.
std::shared_ptr<PieceCache> SharedCache() {
  static Mutex mutex;
  static std::weak_ptr<PieceCache> shared;
  MutexLock lock(mutex);
  std::shared_ptr<PieceCache> cache = shared.lock();
  if (!cache) {
    cache = std::make_shared<PieceCache>(kCachedBytes);
    shared = cache;
  }
  return cache;
}

// What the disk was opened as. None of it asks libvirt.
class DiskIdentity {
 public:
  // Throws Error for what has no disk at rest.
  DiskIdentity(Core& core, std::string uuid, std::string tag)
      : core_(core), uuid_(std::move(uuid)), tag_(std::move(tag)) {
    const SandboxPtr sandbox = core_.Reachable(uuid_, kWhat);
    name_ = sandbox->name;
    if (!sandbox->ours) {
      // Its disk may be anywhere, and its name another's in our pool.
      throw Error(EOPNOTSUPP,
                  fmt::format("{}: others made it; mkdir {}/clones/NAME makes "
                              "a sandbox of it, whose disk can be read",
                              What(), name_));
    }
    if (tag_.empty()) {
      if (!Rests(*sandbox)) {
        throw Error(EBUSY, fmt::format("{}: it is {}, and changes; stop it, or "
                                       "look into a snapshot of it",
                                       What(), StateName(sandbox->state)));
      }
      // What is done from here on shows as another number.
      works_ = core_.Works(uuid_);
      since_ = sandbox->state_since;
      layer_ = DiskOf();
    } else {
      const auto found = sandbox->snapshots.find(tag_);
      if (found == sandbox->snapshots.end()) {
        throw Error(ENOENT,
                    fmt::format("{}: there is no such snapshot", What()));
      }
      layer_ = found->second.layer;
      since_ = found->second.created;
    }
    if (layer_.empty()) {
      throw Error(EOPNOTSUPP,
                  fmt::format("{}: it has no disk that is a volume of the "
                              "pool '{}'",
                              What(), core_.options.pool));
    }
  }

  [[nodiscard]] const std::string& Layer() const { return layer_; }
  // Begins sentences.
  [[nodiscard]] std::string What() const {
    return tag_.empty()
               ? fmt::format("Cannot read the disk of '{}'", name_)
               : fmt::format("Cannot read the disk of snapshot '{}' of '{}'",
                             tag_, name_);
  }
  [[nodiscard]] bool Holds() const {
    const SandboxPtr sandbox = core_.catalog.Get(uuid_);
    return sandbox && IsSame(*sandbox);
  }
  // Throws Error(ESTALE) when it is another by now.
  void Check() const {
    if (Holds()) return;
    throw Error(ESTALE, fmt::format("{}: it was changed since it was opened; "
                                    "open it again",
                                    What()));
  }

  // Calls it for a question about it.
  template <typename F>
  auto With(F&& call) const {
    Check();
    try {
      return call();
    } catch (const Error& error) {
      // What is of the disk as a whole does not know whose it is.
      if (!error.Sentence().starts_with(fmt::format("{}:", kWhat))) throw;
      throw error.As(What());
    }
  }

 private:
  static constexpr char kWhat[] = "Cannot read the disk";

  static bool Rests(const Sandbox& sandbox) {
    return IsOff(sandbox.state) || sandbox.state == State::kSaved;
  }
  [[nodiscard]] std::string DiskOf() const {
    const auto facts = core_.Facts(uuid_);
    return facts ? facts->disk : "";
  }
  [[nodiscard]] bool IsSame(const Sandbox& sandbox) const {
    if (tag_.empty()) {
      return Rests(sandbox) && sandbox.state_since == since_ &&
             core_.Works(uuid_) == works_ && DiskOf() == layer_;
    }
    const auto found = sandbox.snapshots.find(tag_);
    return found != sandbox.snapshots.end() && found->second.layer == layer_ &&
           found->second.created == since_;
  }

  Core& core_;
  const std::string uuid_;
  const std::string tag_;
  std::string name_;
  std::string layer_;
  Time since_;
  uint64_t works_ = 0;
};

struct ChainVolumes {
  std::vector<ChainFile> files;
  std::vector<PiecedFile> sources;
};

// The volumes from `top` down, as libvirt has them now.
ChainVolumes VolumesOf(Core& core, const std::string& top,
                       const std::string& what) {
  ChainVolumes chain;
  const std::shared_ptr<PieceCache> cache = SharedCache();
  std::set<std::string> seen;
  std::string name = top;
  std::string format;
  while (!name.empty()) {
    if (!seen.insert(name).second || seen.size() > kLongestDiskChain) {
      throw Error(EINVAL, fmt::format("{}: its layers stand on each other in "
                                      "a circle, or are too many, at '{}'",
                                      what, name));
    }
    Volume volume;
    try {
      volume = core.storage.Get(name);
    } catch (const Error& error) {
      throw error.As(fmt::format("{}: its layer '{}'", what, name));
    }
    // The overlay's word for what it stands on counts, as it does for QEMU.
    if (format.empty()) format = volume.format;
    chain.files.push_back({name, volume.size, format});
    // Whatever is written to a volume shows in this; its name may be another's
    // one day.
    chain.sources.emplace_back(
        cache,
        fmt::format("{} {} {} {}", core.pool_uuid, name, volume.size,
                    volume.modified.time_since_epoch().count()),
        volume.size, [&core, name](uint64_t offset, uint64_t size) {
          try {
            return core.storage.Read(name, offset, size);
          } catch (const Error& error) {
            if (error.Errno() != ENOENT) throw;
            throw Error(ESTALE,
                        fmt::format("Cannot read the disk: its layer '{}' is "
                                    "gone from the pool; open it again",
                                    name));
          }
        });
    format = volume.backing_format;
    name = LastPart(volume.backing);
  }
  return chain;
}

class DiskFiles : public FileTree {
 public:
  DiskFiles(std::shared_ptr<const DiskIdentity> identity,
            std::shared_ptr<ReaderProcess> process)
      : identity_(std::move(identity)), tree_(std::move(process)) {}

  bool IsCurrent() override { return identity_->Holds(); }
  FileFacts Look(const std::string& path) override {
    FileFacts facts = identity_->With([&] { return tree_.Look(path); });
    Own(facts);
    return facts;
  }
  std::vector<Entry> List(const std::string& path) override {
    std::vector<Entry> list = identity_->With([&] { return tree_.List(path); });
    for (Entry& entry : list) Own(entry.facts);
    return list;
  }
  std::string Target(const std::string& path) override {
    return identity_->With([&] { return tree_.Target(path); });
  }
  FileSpace Space(const std::string& path) override {
    return identity_->With([&] { return tree_.Space(path); });
  }
  std::unique_ptr<Opened> Open(const std::string& path, int flags,
                               mode_t mode) override {
    return identity_->With([&]() -> std::unique_ptr<Opened> {
      return std::make_unique<File>(identity_, tree_.Open(path, flags, mode));
    });
  }

 private:
  class File : public Opened {
   public:
    File(std::shared_ptr<const DiskIdentity> identity,
         std::unique_ptr<Opened> file)
        : identity_(std::move(identity)), file_(std::move(file)) {}
    std::string Read(uint64_t offset, size_t size) override {
      return identity_->With([&] { return file_->Read(offset, size); });
    }
    FileFacts Look() override {
      FileFacts facts = identity_->With([&] { return file_->Look(); });
      Own(facts);
      return facts;
    }

   private:
    const std::shared_ptr<const DiskIdentity> identity_;
    const std::unique_ptr<Opened> file_;
  };

  // Who has the sandbox may read all of its disk, root's files as well: they
  // could not be told from each other otherwise.
  static void Own(FileFacts& facts) { facts.own = facts.own_group = true; }

  const std::shared_ptr<const DiskIdentity> identity_;
  ProcessTree tree_;
};

}  // namespace

std::shared_ptr<FileTree> OpenDiskFiles(Core& core, const std::string& uuid,
                                        const std::string& tag,
                                        const std::string& program) {
  const auto identity = std::make_shared<const DiskIdentity>(core, uuid, tag);
  auto [files, sources] = VolumesOf(core, identity->Layer(), identity->What());
  identity->Check();
  ReaderProcess::Settings settings;
  settings.program = program;
  // Asked by one thread at a time.
  const auto shared =
      std::make_shared<std::vector<PiecedFile>>(std::move(sources));
  return std::make_shared<DiskFiles>(
      identity, std::make_shared<ReaderProcess>(
                    std::move(files),
                    [shared](size_t file, uint64_t offset, size_t size) {
                      return shared->at(file).Read(offset, size);
                    },
                    std::move(settings)));
}

}  // namespace sbxfs
