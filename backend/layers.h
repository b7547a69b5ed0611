#ifndef SBXFS_BACKEND_LAYERS_H_
#define SBXFS_BACKEND_LAYERS_H_

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/core.h"

// The disk of a sandbox is a chain of qcow2 volumes, each an overlay of the one
// below it, with an image at the bottom. Only the top one is ever written:
// taking a snapshot, going back, cloning and resetting all put a new, empty
// layer on a frozen one, which costs the same whatever the disk holds.
//
// Names: UUID.disk, then UUID.disk.1, UUID.disk.2 and so on, never used twice
// while they are there; the seeds that go with them UUID.seed, UUID.seed.1 …
// UUID is that of the sandbox that wrote the layer, so that what nobody needs
// any more is ours for certain.
//
// Recorded: the top layer is the one that the domain's definition names,
// nothing else. Each snapshot is a libvirt snapshot (external, disk-only)
// whose copy of the definition names the frozen layer and the seed, whose copy
// of our metadata has config.yaml and the host key as they were, and which
// virsh shows as the same tree; libvirt's current snapshot is the one the disk
// stands on. `.undo` is ~undo.N to libvirt, which takes no dot in front, the
// highest N; other names with '~' are of work under way. A clone's metadata
// names the sandbox and layer it came from.
//
// Needed, and so kept: what a definition, a snapshot or a clone's metadata
// names, and all that those stand on. A layer without a name of its own stays
// as long as another stands on it, also when its sandbox is gone.
//
// Live: taking a snapshot, and cloning. Going back and resetting stop a guest
// and start it again.

namespace sbxfs {

// What names volumes and what stands on what, at one moment. Made by a look at
// every domain and volume.
class Uses {
 public:
  // Blocks.
  Uses(Core& core, std::string_view what);
  // For tests.
  Uses(std::vector<Volume> volumes, std::set<std::string> named)
      : volumes_(std::move(volumes)), named_(named), ends_(std::move(named)) {}

  [[nodiscard]] const std::vector<Volume>& Volumes() const { return volumes_; }
  // Whether a definition, a snapshot or a clone's metadata names it for itself:
  // not as one of the chain of a guest that runs.
  [[nodiscard]] bool IsNamed(const std::string& name) const {
    return ends_.contains(name);
  }
  // Null when there is no such volume.
  [[nodiscard]] const Volume* Find(const std::string& name) const;
  // Those of `candidates` that are there and that nobody needs but others of
  // them: overlays before what they stand on.
  [[nodiscard]] std::vector<std::string> Unneeded(
      const std::set<std::string>& candidates) const;

 private:
  std::vector<Volume> volumes_;
  std::set<std::string> named_;
  std::set<std::string> ends_;  // those of them that IsNamed says
};

// The volumes below disks. Stateless; all functions block and throw Error.
// Callers hold the sandbox's turn.
class Layers {
 public:
  explicit Layers(Core& core) : core_(core) {}

  // Makes a new, empty layer of the sandbox on another layer, as large as that
  // or `capacity`, whatever is more.
  [[nodiscard]] std::string Add(const std::string& uuid,
                                const std::string& below, uint64_t capacity,
                                std::string_view what);
  // A name that no volume of the sandbox has: UUID.disk.3, UUID.seed.1,
  // UUID.memory.1.
  [[nodiscard]] std::string NextName(const std::string& uuid,
                                     std::string_view kind);
  // On a worker, later: deletes those of `candidates`, volumes of one sandbox,
  // that nobody needs, and what only they stood on.
  void DropSoon(const std::string& uuid, std::set<std::string> candidates);
  // The same at once, by whoever does not hold that sandbox's turn. A turn is
  // waited for from a clone to its origin, never the other way.
  void DropNow(const std::string& uuid, std::set<std::string> candidates);
  // Deletes all volumes of a sandbox that goes, but those that others need.
  void DropAll(const std::string& uuid);
  // Bytes that a frozen layer takes, with those below it that only it keeps:
  // down to the next of `others` or of another owner.
  [[nodiscard]] uint64_t SizeOf(const std::string& layer,
                                const std::set<std::string>& others);

 private:
  void Drop(const std::string& uuid, std::set<std::string> candidates);

  Core& core_;
};

// The uuid that a volume of a sandbox is named after, or empty.
[[nodiscard]] std::string UuidIn(std::string_view volume);
// Whether it is a layer, a seed, or the memory of a snapshot, of the sandbox.
[[nodiscard]] bool IsLayerOf(std::string_view volume, std::string_view uuid);
[[nodiscard]] bool IsSeedOf(std::string_view volume, std::string_view uuid);
[[nodiscard]] bool IsMemoryOf(std::string_view volume, std::string_view uuid);
// What a memory that a clone goes on from is split into: UUID.memory.N into
// UUID.fork.N, the state, and UUID.ram.N, the memory itself.
[[nodiscard]] std::string ForkVolume(std::string_view memory,
                                     std::string_view kind);
// Those two, and the whole.
[[nodiscard]] std::set<std::string> ForkVolumes(const std::string& memory);
// Whether it is one of them of the sandbox.
[[nodiscard]] bool IsForkOf(std::string_view volume, std::string_view uuid);
// Whether it is the state of a memory template: a save image without its
// memory, which is there once all of the template is.
[[nodiscard]] bool IsWarmState(std::string_view volume);
// All volumes of the template whose state it is; and that of a kind ("disk",
// "memory").
[[nodiscard]] std::set<std::string> WarmVolumes(std::string_view state);
[[nodiscard]] std::string WarmVolume(std::string_view state,
                                     std::string_view kind);
// What a move puts into the pool for a moment, to see whether both have it.
[[nodiscard]] std::string ProbeOf(std::string_view uuid);
// A volume's name, of its path.
[[nodiscard]] std::string LastPart(const std::string& path);
// Whether nothing was written to an overlay since libvirt made it; a doubt is a
// no.
[[nodiscard]] bool IsUntouched(const Volume& layer);
// The names of volumes of sandboxes that a text mentions.
[[nodiscard]] std::set<std::string> VolumesIn(std::string_view text);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LAYERS_H_
