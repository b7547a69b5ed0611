#ifndef SBXFS_BACKEND_PROVISION_H_
#define SBXFS_BACKEND_PROVISION_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "backend/core.h"
#include "backend/disks.h"
#include "backend/guest/seed.h"
#include "backend/images.h"
#include "backend/layers.h"
#include "backend/mounts.h"
#include "backend/networks.h"
#include "backend/ports.h"
#include "backend/tunnels.h"
#include "backend/util/undo.h"

namespace sbxfs {

// Makes, changes and unmakes sandboxes: the domain's definition, its volumes,
// its port. Each operation runs on a worker, holds the sandbox's turn, and is
// undone when a step of it fails or nobody waits for it any more.
class Provision {
 public:
  Provision(Core& core, Images& images)
      : core_(core),
        images_(images),
        ports_(core),
        tunnels_(core),
        mounts_(core),
        layers_(core),
        disks_(core),
        networks_(core) {}

  // As in Backend.
  void Create(const Caller& caller, const std::string& name,
              const std::string& config, mode_t mode, Reply<SandboxPtr> reply);
  // What a clone is made from.
  struct Origin {
    std::string uuid;
    std::string layer;
    std::string memory;   // as Metadata::origin_memory
    std::string secrets;  // as Metadata::origin_secrets
    std::string config, bases;
    std::string user;
    std::string image;
    std::string authorized_keys;
    bool uefi = false;
    // Makes a volume of that name, which takes the place of `layer`, that
    // holds all of the disk; where none can be stood on.
    std::function<void(const std::string& volume)> copy;
    // Throws when the layer may have been dropped meanwhile.
    std::function<void()> check;
  };
  // Blocks: a stopped sandbox on that layer. Callers hold the source's turn.
  [[nodiscard]] SandboxPtr CreateFrom(const Caller& caller,
                                      const std::string& name,
                                      const Origin& origin, mode_t mode,
                                      const Reply<SandboxPtr>& reply) {
    return CreateNamed(caller, name, origin.config, mode, reply, &origin);
  }
  void Remove(const Caller& caller, const std::string& uuid, Reply<Done> reply);
  void Purge(const std::string& uuid, Reply<Done> reply);
  void Rename(const std::string& uuid, const std::string& name,
              Reply<Done> reply);
  void SetRights(const std::string& uuid, const std::string& file,
                 const FileRights& rights, Reply<Done> reply);
  void Set(const Caller& caller, const std::string& uuid, Setting setting,
           const std::string& value, Reply<Done> reply);
  // mounts/NAME: an empty value takes it away.
  void SetMount(const Caller& caller, const std::string& uuid,
                const std::string& name, const std::string& value,
                Reply<Done> reply);
  void SetPort(const Caller& caller, const std::string& uuid,
               const std::string& guest, const std::string& value,
               Reply<Done> reply);
  void ForgetRejected(const std::string& uuid, Reply<Done> reply);

  // Blocking parts of a start, for a stopped sandbox. Callers hold its turn.
  // Brings the definition in step with config.yaml.
  void Apply(const std::string& uuid, std::string_view what);
  // Puts a disk on `base` under a sandbox that has none.
  void GiveDisk(const std::string& uuid, const Images::Base& base,
                std::string_view what);

  // Puts a stopped sandbox that was never started on a new layer on that of a
  // memory template; it counts as started.
  void StandOn(const std::string& uuid, const std::string& layer,
               const std::string& what);

  // A stopped sandbox's disk, seed and definition made anew from config.yaml,
  // on `base`, or for a clone on the layer it came from. The old ones are left
  // to whoever needs them.
  void Reset(const std::string& uuid, const Images::Base* base,
             const std::string& what);

  // What a definition comes from, but for paths on the hypervisor.
  [[nodiscard]] DomainInput InputFor(const std::string& uuid,
                                     const std::string& name,
                                     const Metadata& meta, const Spec& spec,
                                     bool uefi) const;
  // What goes into a seed, without keys.
  [[nodiscard]] SeedInput SeedFor(const Metadata& meta, const std::string& uuid,
                                  const std::string& name,
                                  const Spec& spec) const;

  // Blocks, with the sandbox's turn held: its seed anew for a guest that runs
  // and has its host key, which is not in it any more. That of a snapshot from
  // before is left until the next start.
  void DropSeedKey(const std::string& uuid, const std::string& what);

  // Every key let into the sandbox, and the digest of them all.
  [[nodiscard]] std::vector<std::string> Keys(const Metadata& meta,
                                              const std::string& uuid);
  [[nodiscard]] static std::string KeysDigest(
      const std::vector<std::string>& keys);
  [[nodiscard]] Ports& ports() { return ports_; }
  [[nodiscard]] Tunnels& tunnels() { return tunnels_; }
  [[nodiscard]] Mounts& mounts() { return mounts_; }
  [[nodiscard]] Disks& disks() { return disks_; }
  [[nodiscard]] Networks& networks() { return networks_; }

  // Blocks: a stopped sandbox is another hypervisor's from now on, with its
  // volumes where both have one pool. All or nothing, but for volumes, which
  // are swept later when they cannot be deleted now. Callers hold its turn.
  void Leave(const std::string& uuid, bool with_volumes,
             const std::string& what);
  // Blocks: deletes for good what has been in the trash for too long.
  void Expire(const std::string& uuid);

  // Told when a running guest should get its keys anew.
  std::function<void(const std::string& uuid)> on_keys;

 private:
  // Whether the definition is not what it would be if made anew, though
  // config.yaml is the same.
  [[nodiscard]] bool IsOutdated(const DomainFacts& facts, const Metadata& meta,
                                const Spec& spec) const;
  [[nodiscard]] SandboxPtr CreateNamed(const Caller& caller,
                                       const std::string& name,
                                       const std::string& config, mode_t mode,
                                       const Reply<SandboxPtr>& reply,
                                       const Origin* origin) EXCLUDES(mutex_);
  [[nodiscard]] SandboxPtr CreateNow(const Caller& caller,
                                     const std::string& name,
                                     const std::string& config, mode_t mode,
                                     const Reply<SandboxPtr>& reply,
                                     const Origin* origin);
  // Removes all of a sandbox that was not finished.
  void TakeBack(const std::string& uuid);
  // Undoes a rmdir or mv, however far it came: the name, the place outside the
  // trash or in it.
  void PutBack(const std::string& uuid, const std::string& name,
               const Metadata& before);
  // As config.yaml has it; what is in the trash never starts by itself.
  void SetAutostart(virDomainPtr domain, const Metadata& meta);
  // Runs `step`, which undoes something, and again as long as libvirt cannot
  // be reached, unless something else is done with the sandbox meanwhile.
  void Insist(const std::string& uuid, std::function<void()> step)
      EXCLUDES(mutex_);
  void InsistAgain(const std::string& uuid, std::function<void()> step,
                   uint64_t number, std::chrono::milliseconds pause, bool last)
      EXCLUDES(mutex_);
  void CheckName(const std::string& uuid, const std::string& name,
                 std::string_view what) EXCLUDES(mutex_);
  // Defines the domain from `meta` and `spec`.
  void Define(const std::string& uuid, const std::string& name,
              const Metadata& meta, const Spec& spec, bool uefi,
              std::string_view what);
  [[nodiscard]] bool NeedsUefi(const Spec& spec, const ImageFacts* facts) const;
  void MakeDisk(Metadata& meta, const std::string& volume, const Spec& spec,
                const Images::Base& base, std::string_view what);
  // Makes the seed anew where what goes into it differs from last time; true
  // when it did, and `meta` says so: its volume may be another then.
  bool FreshenSeed(Metadata& meta, const std::string& uuid,
                   const std::string& name, const Spec& spec);
  [[nodiscard]] std::string VolumeForSeed(const Metadata& meta,
                                          const std::string& uuid);
  [[nodiscard]] Spec ExpandedFor(const Metadata& meta, const std::string& uuid,
                                 const std::string& name,
                                 const Spec& spec) const;
  [[nodiscard]] std::optional<KeyPair> SeedHostKey(const Metadata& meta);
  void SetConfig(const Caller& caller, const std::string& uuid,
                 const std::string& text, bool keep_rejected,
                 const std::string& what);
  // Stores config.yaml as `edit` makes it from the text that holds.
  void EditConfig(const Caller& caller, const std::string& uuid,
                  const std::function<std::string(const std::string&)>& edit,
                  const std::string& what);
  void SetOneKey(const Caller& caller, const std::string& uuid, const char* key,
                 const std::string& value, const std::string& what);
  void CheckHostSide(const Caller& caller, const std::string& uuid,
                     const Metadata& meta, const Spec& spec,
                     std::string_view what);
  void CheckChange(const Caller& caller, const std::string& uuid,
                   const Metadata& meta, const Spec& spec,
                   std::string_view what);
  void OpenPorts(const std::string& uuid, const std::vector<Forward>& forwards,
                 const std::string& what, Undo& undo);
  void PurgeNow(const std::string& uuid, const std::string& what,
                const Reply<Done>& reply);
  void RemoveNow(const std::string& uuid, const Reply<Done>& reply);

  Core& core_;
  Images& images_;
  Ports ports_;
  Tunnels tunnels_;
  Mounts mounts_;
  Layers layers_;
  Disks disks_;
  Networks networks_;
  Mutex mutex_;
  // By host name, with whom it is made for.
  std::map<std::string, Reply<SandboxPtr>> being_made_ GUARDED_BY(mutex_);
};

// Throws Error(ECANCELED) once the asker has given up.
void MustBeWanted(bool answered);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_PROVISION_H_
