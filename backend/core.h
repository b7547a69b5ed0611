#ifndef SBXFS_BACKEND_CORE_H_
#define SBXFS_BACKEND_CORE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/catalog.h"
#include "backend/domain_list.h"
#include "backend/domain_xml.h"
#include "backend/guest/keys.h"
#include "backend/kept_facts.h"
#include "backend/libvirt_connection.h"
#include "backend/run_info.h"
#include "backend/snapshot_xml.h"
#include "backend/spec/layers.h"
#include "backend/spec/spec.h"
#include "backend/storage.h"
#include "backend/util/timer.h"
#include "backend/util/worker_pool.h"

namespace sbxfs {

// What there is in the pools.
struct PoolRoom {
  PoolInfo pool, disks;

  void Show(Host& host) const;
};

// What the parts of the libvirt backend share: the connection, what is known
// of the domains, and the ways to read and mark one. Functions that block say
// so; they throw Error.
class Core {
 public:
  Core(const BackendOptions& options, Connection::Listener listener);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // Blocks: what a new connection can do, into the catalog's host.
  void LearnHost();
  // The way that the connection of now took; others are only tried.
  [[nodiscard]] Route Way() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return way_;
  }
  // Blocks: what is free now.
  void LearnCapacity();
  // Blocks: one bulk listing of all domains into the catalog.
  void ReadAll();
  // Blocks: this domain as it is now, into the catalog.
  void Read(const std::string& uuid);
  // The same on a worker; many requests for one domain become one.
  void ReadSoon(const std::string& uuid) EXCLUDES(mutex_);
  // Blocks: the same of one that was changed, again when it fails: what is done
  // is not to be told as failed for that.
  void ReadDone(const std::string& uuid);

  // `what` begins the sentence, e.g. "Cannot start 'box'". Blocks.
  [[nodiscard]] DomainPtr Domain(const std::string& uuid,
                                 std::string_view what);
  // What the domain's definition said when it was last read.
  [[nodiscard]] std::optional<DomainFacts> Facts(const std::string& uuid)
      EXCLUDES(mutex_);
  // Whether it has a NIC in a network of libvirt's; one that is gone may have
  // had.
  [[nodiscard]] bool MayHaveNics(const std::string& uuid) EXCLUDES(mutex_);
  // Its facts, with our metadata; ENOENT or EPERM (not ours) otherwise.
  [[nodiscard]] Metadata Meta(const std::string& uuid, std::string_view what);
  // The domain's snapshots when it was last read, parents first.
  [[nodiscard]] std::vector<SnapshotFacts> SnapshotsOf(const std::string& uuid)
      EXCLUDES(mutex_);
  // Blocks: changes our metadata, in the definition and in a running guest's.
  // Callers hold the sandbox's turn.
  void ChangeMeta(const std::string& uuid, std::string_view what,
                  const std::function<void(Metadata&)>& change);
  // The sandboxes but `uuid` that forward a port `wanted` cannot listen beside.
  [[nodiscard]] std::vector<std::string> WhoForwards(const std::string& uuid,
                                                     const Forward& wanted)
      EXCLUDES(mutex_);
  // Names of the sandboxes that are defined with a NIC in that network.
  [[nodiscard]] std::set<std::string> WhoIsIn(const std::string& network)
      EXCLUDES(mutex_);
  // The domains, ours or not, that an additional disk's volume, where these are
  // now, is a disk of: uuid and name.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> WhoHas(
      const std::string& volume) EXCLUDES(mutex_);
  // Those of the running sandboxes but `uuid` that have a NIC with that MAC
  // address.
  [[nodiscard]] std::vector<std::string> WhoHasMac(const std::string& uuid,
                                                   const std::string& mac)
      EXCLUDES(mutex_);
  // Blocks: what the definition says now of `keys` is our doing. Callers hold
  // the sandbox's turn.
  void RenewDefined(const std::string& uuid, std::string_view what,
                    const std::vector<std::string>& keys);
  // Blocks: changes the notes on the running guest.
  void ChangeRun(const std::string& uuid,
                 const std::function<void(RunInfo&)>& change);

  // What config.yaml and its layers come to; remembered, since most sandboxes
  // share a text. Throws Error(EINVAL).
  [[nodiscard]] Spec SpecOf(const Metadata& meta) EXCLUDES(mutex_) {
    return SpecOf(LayersOf(meta.config, meta.bases), meta.user);
  }
  [[nodiscard]] Spec SpecOf(const Sandbox& sandbox) EXCLUDES(mutex_) {
    return SpecOf(LayersOf(sandbox.config, sandbox.bases), sandbox.user);
  }
  // What the domain was last defined from.
  [[nodiscard]] Spec AppliedSpec(const Metadata& meta) EXCLUDES(mutex_) {
    return SpecOf(UnpackLayers(meta.applied), meta.user);
  }
  [[nodiscard]] Spec SpecOf(const std::vector<Layer>& layers,
                            const std::string& user) EXCLUDES(mutex_);
  // The layers of a config.yaml, weakest first, without the built-in one.
  [[nodiscard]] std::vector<Layer> LayersOf(const std::string& config,
                                            const std::string& bases) const;
  // To be kept as Metadata::applied.
  [[nodiscard]] std::string StackOf(const Metadata& meta) const {
    return PackLayers(LayersOf(meta.config, meta.bases));
  }
  // Those that `config` names now, packed. Throws Error(EINVAL).
  [[nodiscard]] std::string TakeBasesOf(const std::string& config) const;

  // The same with its templates put in, as that sandbox's.
  [[nodiscard]] Spec SpecFor(const Sandbox& sandbox);
  [[nodiscard]] Spec Expanded(const Spec& spec, const Sandbox& sandbox)
      EXCLUDES(mutex_);
  // `guest_uid` is its user's, where a boot told it.
  [[nodiscard]] Spec Expanded(Spec spec, const Sandbox& sandbox,
                              std::optional<unsigned> guest_uid) const;

  // How a sandbox's mounts come into its guest.
  [[nodiscard]] MountWay WayOfMounts(const Spec& spec,
                                     const Metadata& meta) const {
    return ChooseMountWay(
        spec, {local && !test_driver, meta.uid, guest_uid,
               meta.guest_uid.value_or(spec.uid.value_or(1000)), no_virtiofs});
  }

  // The NICs that a sandbox has beside the user-mode one.
  [[nodiscard]] std::vector<NetworkNic> NicsOf(std::string_view uuid,
                                               const Spec& spec) const;

  // Blocks: how much there is in the pools.
  [[nodiscard]] PoolRoom LookAtPools();
  // Whether 127.0.0.1:PORT of this machine leads to guests.
  [[nodiscard]] bool ReachesGuests() const { return local || relayed; }
  // The architecture that a spec comes to here.
  [[nodiscard]] const std::string& ArchOf(const Spec& spec) const {
    return spec.arch.empty() ? arch : spec.arch;
  }

  // What people call it; the uuid itself when there is none.
  [[nodiscard]] std::string NameOf(const std::string& uuid) const;
  // The last known sandbox, or Error(ENOENT); EHOSTDOWN while unreachable.
  [[nodiscard]] SandboxPtr Reachable(const std::string& uuid,
                                     std::string_view what);

  // One operation at a time on a sandbox's definition; ETIMEDOUT after 2 s.
  [[nodiscard]] Turns::Turn Turn(const std::string& uuid,
                                 std::string_view what);

  // `reply` is failed when the connection is lost while the result lives: the
  // call that it waits for may then hang for as long as the peer does.
  [[nodiscard]] std::shared_ptr<void> FailWhenLost(const Reply<Done>& reply,
                                                   std::string_view what)
      EXCLUDES(mutex_);
  // The connection was lost: nothing of it keeps anybody waiting any more.
  void Lost() EXCLUDES(mutex_);

  // Names of the domains that others made, shown or not.
  [[nodiscard]] std::vector<std::string> Strangers() EXCLUDES(mutex_);

  // Runs `work` on a worker with the sandbox's turn held; what it throws is the
  // answer.
  void Work(const std::string& uuid, const std::string& what, Reply<Done> reply,
            std::function<void()> work) EXCLUDES(mutex_);
  // How often that was done with a sandbox.
  [[nodiscard]] uint64_t Works(const std::string& uuid) EXCLUDES(mutex_);

  // What the frozen layers of snapshots take, where that was looked for.
  [[nodiscard]] std::optional<uint64_t> LayerSize(const std::string& layer)
      EXCLUDES(mutex_);
  void NoteLayerSize(const std::string& layer, uint64_t size) EXCLUDES(mutex_);
  void ForgetLayerSizes(const std::string& uuid) EXCLUDES(mutex_);

  // Names of images that some sandbox's disk stands on.
  [[nodiscard]] std::set<std::string> ImagesInUse() EXCLUDES(mutex_);

  // Told after each Read of a domain.
  std::function<void(const std::string& uuid)> on_read;

  // Told what libvirt says of a domain, once the catalog has it.
  std::function<void(const Sandbox& sandbox)> on_take;

  // Told that there are other volumes, or that another sandbox stands on an
  // image; what is shown of them follows soon.
  std::function<void()> on_volumes;

  const BackendOptions options;
  const std::string machine;      // this machine's id, for uids in metadata
  const std::string data_dir;     // of the mounting user
  const KeyPair identity;         // the mount's own ssh key
  const std::string ssh_ca_file;  // its CA's, the public key in a .pub beside
  const std::string ssh_ca;       // that public key
  bool test_driver = false;       // set once connected
  bool local = true;              // the hypervisor is this machine
  bool relayed = false;           // its guests' ports are opened here by ssh
  bool kvm = false;               // works, not merely exists
  std::string arch = "x86_64";    // the hypervisor's own
  std::string cpu_model;          // the hypervisor's processor, with KVM
  std::string pool_uuid;          // this libvirt's own
  uid_t guest_uid = 0;            // whom QEMU runs as
  std::string no_virtiofs;        // MountEnds has it
  std::string no_networks;        // why there are none; empty: there are

  Timer timer;
  Turns turns;
  Catalog catalog;
  // Joined before what their jobs use is gone.
  WorkerPool workers{256, &Connection::EndUse};
  Connection connection;
  Storage storage;
  const std::unique_ptr<Storage> other_pool;  // of additional disks, or null
  Storage& disk_storage;                      // theirs: the one or the other

 private:
  [[nodiscard]] Sandbox Describe(const DomainTexts& texts, DomainFacts& facts,
                                 std::vector<SnapshotFacts>& snapshots)
      EXCLUDES(mutex_);
  [[nodiscard]] static DomainFacts FactsOf(const DomainTexts& texts);
  void AddSnapshots(Sandbox& sandbox, const DomainTexts& texts,
                    std::vector<SnapshotFacts>& snapshots) EXCLUDES(mutex_);
  // With the domain's reading turn held.
  void ReadNow(const std::string& uuid) EXCLUDES(mutex_);
  void Take(const DomainTexts& texts) EXCLUDES(mutex_);
  // A reading of the domain begins. While a listing of all is made into the
  // catalog it is kept when that was, in readings.
  void NoteReading(const std::string& uuid) EXCLUDES(mutex_);
  [[nodiscard]] bool WasReadSince(const std::string& uuid, uint64_t reading)
      EXCLUDES(mutex_);
  // Reads all of `listed` that nobody has read since `reading`.
  void ReadListed(const std::vector<ListedDomain>& listed, uint64_t reading);

  // The uuids of the domains that `fits`, which must not call anything here.
  [[nodiscard]] std::vector<std::string> Those(
      const std::function<bool(const std::string&, const DomainFacts&)>& fits)
      EXCLUDES(mutex_);

  Mutex mutex_;
  Route way_ GUARDED_BY(mutex_);
  std::unordered_map<std::string, KeptFacts> facts_ GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::vector<SnapshotFacts>> snapshots_
      GUARDED_BY(mutex_);
  std::map<std::string, uint64_t> layer_sizes_ GUARDED_BY(mutex_);
  std::set<std::string> queued_ GUARDED_BY(mutex_);
  uint64_t readings_ GUARDED_BY(mutex_) = 0;
  int listings_ GUARDED_BY(mutex_) = 0;  // under way
  std::unordered_map<std::string, uint64_t> read_at_ GUARDED_BY(mutex_);
  std::map<std::string, uint64_t> works_ GUARDED_BY(mutex_);
  uint64_t last_wait_ GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, std::pair<Reply<Done>, std::string>> waits_
      GUARDED_BY(mutex_);
  std::map<std::string, Spec> specs_ GUARDED_BY(mutex_);
};

// The directory of this user's data for sbxfs, from XDG_DATA_HOME or the
// passwd database (mount(8) empties the environment).
[[nodiscard]] std::string DataDirectory();

// The name of the guest's login for a host user: theirs, or "lima" where that
// is root or no name for Linux.
[[nodiscard]] std::string GuestUser(uid_t uid);

// "box" → "lima-box": letters, digits and dashes alone.
[[nodiscard]] std::string GuestHostname(std::string_view name);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_CORE_H_
