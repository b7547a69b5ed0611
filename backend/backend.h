#ifndef SBXFS_BACKEND_BACKEND_H_
#define SBXFS_BACKEND_BACKEND_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/guest_files.h"
#include "backend/host.h"
#include "backend/jobs.h"
#include "backend/sandbox.h"
#include "backend/util/error.h"
#include "backend/util/reply.h"

// A hypervisor and its sandboxes as plain values, without a libvirt type. The
// tree in fs/ stands on this interface alone; tests put a fake behind it.

namespace sbxfs {

// What can be written to NAME/status.
enum class Verb {
  kStart,
  kStop,
  kKill,
  kRestart,
  kPause,
  kResume,
  kSave,
  kReset,
  kFactoryReset,
  kDestroy,
  kRevert  // no word of status: written to `snapshot`
};
[[nodiscard]] std::string_view VerbName(Verb verb);
[[nodiscard]] std::optional<Verb> ParseVerb(std::string_view name);
// "start, stop, kill, …": for sentences.
[[nodiscard]] std::string VerbList();

// Who asks, as FUSE tells it; pid is a thread's id.
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
  // It asked another daemon of this mount before, which may have done it.
  bool repeated = false;
};

// A line of the events files.
struct Event {
  Time time;
  std::string uuid;  // empty: of the hypervisor itself
  std::string name;  // the sandbox's, or empty
  std::string what;  // one word: state, ready, created, destroyed, …
  std::string detail;
  // The sandbox's rights, of which its reader needs some.
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0;
};

// Told of changes, on any thread, with no lock held. Must return quickly and
// call no function of the backend but those that read.
class Observer {
 public:
  virtual ~Observer() = default;
  // Something about the sandbox differs from before, or it came or went.
  virtual void SandboxChanged(const std::string& uuid) = 0;
  virtual void HostChanged() = 0;
  virtual void Happened(const Event& event) = 0;
  // An action ended by itself, whoever still waited for it: null for success.
  virtual void ActionEnded(const std::string& uuid, const Error* error) = 0;
};

// Reads an image of the pool. Closed by destruction.
class ImageReader {
 public:
  virtual ~ImageReader() = default;
  // Up to `size` bytes from `offset`; fewer at the end alone.
  virtual void Read(uint64_t offset, size_t size, Reply<std::string> reply) = 0;
};

// Writes a new image into the pool, front to back; a gap is filled with zeros.
// Destroyed before Finish succeeded, it leaves nothing behind.
class ImageWriter {
 public:
  virtual ~ImageWriter() = default;
  // Answers once the bytes are taken. ESPIPE for an offset that lies behind.
  virtual void Write(uint64_t offset, std::string bytes, Reply<Done> reply) = 0;
  // Pads with zeros up to `size`.
  virtual void Truncate(uint64_t size, Reply<Done> reply) = 0;
  // Checks the image and makes it visible. EINVAL when it is none.
  virtual void Finish(Reply<Done> reply) = 0;
  [[nodiscard]] virtual uint64_t Written() const = 0;
};

// An ssh certificate that was issued.
struct Certificate {
  std::string text;  // a line
  std::string note;  // what logs say of it
};

// What single files of a sandbox set.
enum class Setting {
  kConfig,  // the whole text; EINVAL keeps it as `rejected`
  kCpus,
  kMemory,
  kDisk,
  kDescription,
  kAutostart,
  kSshPort,
  kAuthorizedKeys,
};

// Directories of a sandbox with a file for each entry, which holds its value.
enum class Collection { kMounts, kPorts, kSecrets };
[[nodiscard]] std::string_view CollectionName(Collection collection);

// What Refresh brings up to date.
enum class Facet {
  kUsage,
  kAddresses,
  kConsole,
  kDomainXml,
  kProvisionLog,
  kSnapshots,
  kNetworks,  // this and what follows of the hypervisor: `uuid` is empty
  kCapacity,
  kWarm
};

// All functions may be called from any thread. Those without a Reply answer
// from memory and never wait; those with one return at once and answer later,
// exactly once, with an Error or a value. Names are given as in the tree;
// what is known of a sandbox is asked by uuid, so that a rename or a
// replacement behind one's back cannot hit another.
class Backend {
 public:
  virtual ~Backend() = default;

  // `observer` must outlive the backend, or be taken off with null.
  virtual void SetObserver(Observer* observer) = 0;

  // All that are not in the trash, sorted by name.
  [[nodiscard]] virtual std::vector<SandboxPtr> List() const = 0;
  [[nodiscard]] virtual std::vector<SandboxPtr> ListTrash() const = 0;
  // Null when there is none. Find looks outside the trash, Get everywhere.
  [[nodiscard]] virtual SandboxPtr Find(std::string_view name) const = 0;
  [[nodiscard]] virtual SandboxPtr FindTrash(std::string_view name) const = 0;
  [[nodiscard]] virtual SandboxPtr Get(const std::string& uuid) const = 0;
  [[nodiscard]] virtual HostPtr GetHost() const = 0;

  // What goes on in this process alone, though nobody may wait for it, and
  // would end with it: "start of 'box'", say. Empty: nothing.
  [[nodiscard]] virtual std::string UnderWay() const = 0;
  // What only this process knows and another that goes on with its mount needs,
  // jobs, as bytes; and the taking over of that, once and before all else.
  // Throws Error(EPROTO) for other bytes.
  [[nodiscard]] virtual std::string Remember() const = 0;
  virtual void Recall(const std::string& bytes) = 0;

  // The names of several hypervisors behind one backend, in their order. What
  // belongs to no sandbox is the first one's. None: there is but one.
  [[nodiscard]] virtual std::vector<std::string> Members() const { return {}; }
  // One of them alone, as long as this lives; null when there is none.
  [[nodiscard]] virtual Backend* Member(const std::string&) { return nullptr; }
  // Moves the sandbox, with its snapshots, to the hypervisor of that name.
  // EBUSY unless it runs or is off, EINVAL for no such name.
  virtual void SetHost(const Caller&, const std::string& uuid,
                       const std::string& name, Reply<Done>);

  // Provisions a stopped sandbox; `config` empty: the commented skeleton.
  // `mode` is mkdir's, umask applied. All or nothing. EEXIST, EINVAL, ENOSPC,
  // EADDRINUSE, ETIMEDOUT after 2 s (then undone behind the scenes),
  // EHOSTDOWN.
  virtual void Create(const Caller& caller, const std::string& name,
                      const std::string& config, mode_t mode,
                      Reply<SandboxPtr> reply) = 0;
  // rmdir: to the trash, or for good when the trash is off. EBUSY while it
  // runs, EPERM when protected or not ours.
  virtual void Remove(const Caller& caller, const std::string& uuid,
                      Reply<Done> reply) = 0;
  // rmdir in the trash: for good.
  virtual void Purge(const Caller& caller, const std::string& uuid,
                     Reply<Done> reply) = 0;
  // mv, out of the trash too. EEXIST when taken, EBUSY while it runs.
  virtual void Rename(const Caller& caller, const std::string& uuid,
                      const std::string& name, Reply<Done> reply) = 0;
  // Of the sandbox's directory (`file` empty) or of a file in it.
  virtual void SetRights(const Caller& caller, const std::string& uuid,
                         const std::string& file, const FileRights& rights,
                         Reply<Done> reply) = 0;

  // Answers when the verb's state is reached or has failed; with `wait` off
  // once the action is taken on. A verb whose state holds succeeds at once;
  // the same verb again joins. ECANCELED when overtaken, EBUSY in the wrong
  // state, ETIMEDOUT. The reply's cancel ends the waiting alone.
  virtual void Act(const Caller& caller, const std::string& uuid, Verb verb,
                   bool wait, Reply<Done> reply) = 0;
  // Answers when the sandbox is in `state`.
  virtual void WaitFor(const std::string& uuid, State state,
                       Reply<Done> reply) = 0;

  // EINVAL for a value not acceptable, EADDRINUSE for a port taken, EBUSY
  // when it cannot be changed now.
  virtual void Set(const Caller& caller, const std::string& uuid,
                   Setting setting, const std::string& value,
                   Reply<Done> reply) = 0;
  // Makes the entry, or changes its value; an empty value removes it. EINVAL
  // for a name or value not acceptable, EADDRINUSE, EACCES, EPERM.
  virtual void SetItem(const Caller& caller, const std::string& uuid,
                       Collection collection, const std::string& name,
                       const std::string& value, Reply<Done> reply) = 0;
  // mkdir, rmdir, mv in snapshots/. EEXIST, ENOENT; EBUSY in a state that
  // forbids it, or while a clone needs it.
  virtual void TakeSnapshot(const Caller& caller, const std::string& uuid,
                            const std::string& tag, Reply<Done> reply) = 0;
  virtual void RemoveSnapshot(const Caller& caller, const std::string& uuid,
                              const std::string& tag, Reply<Done> reply) = 0;
  virtual void RenameSnapshot(const Caller& caller, const std::string& uuid,
                              const std::string& tag,
                              const std::string& new_tag,
                              Reply<Done> reply) = 0;
  virtual void DescribeSnapshot(const Caller& caller, const std::string& uuid,
                                const std::string& tag, const std::string& text,
                                Reply<Done> reply) = 0;
  // mkdir in clones/: a stopped sandbox that stands on the snapshot, or for an
  // empty tag on the disk as it is now. The errors of Create and TakeSnapshot.
  virtual void Clone(const Caller& caller, const std::string& uuid,
                     const std::string& tag, const std::string& name,
                     mode_t mode, Reply<SandboxPtr> reply) = 0;
  // Makes the disk as it is now an image of that name; answers when it is
  // there. EEXIST.
  virtual void Commit(const Caller& caller, const std::string& uuid,
                      const std::string& image, Reply<Done> reply) = 0;
  // Puts the disk back to where the snapshot has it; what is there is kept as
  // `.undo`. `force`: without that, and also when it stands there already. An
  // action like the verbs', with their errors and waiting.
  virtual void Revert(const Caller& caller, const std::string& uuid,
                      const std::string& tag, bool force, bool wait,
                      Reply<Done> reply) = 0;
  // rm config.yaml.rejected.
  virtual void ForgetRejected(const Caller& caller, const std::string& uuid,
                              Reply<Done> reply) = 0;
  // After success Get shows the facet as it is now.
  virtual void Refresh(const std::string& uuid, Facet facet,
                       Reply<Done> reply) = 0;

  // effective.yaml: all settings that hold, and where each is from.
  [[nodiscard]] virtual std::string Effective(
      const std::string& uuid) const = 0;

  // Documents of .host, checked, then stored whole: "defaults.yaml",
  // "override.yaml", "templates/PATH.yaml"; and folders, "templates/PATH/",
  // which have no text. Nothing removes one.
  virtual void SetDocument(const Caller& caller, const std::string& name,
                           const std::optional<std::string>& text,
                           Reply<Done> reply) = 0;
  // .host/authorized_keys.
  virtual void SetAuthorizedKeys(const Caller& caller, const std::string& text,
                                 Reply<Done> reply) = 0;
  // .host/uri: another way to the same hypervisor. EBUSY for another one.
  virtual void SetUri(const Caller& caller, const std::string& uri,
                      Reply<Done> reply) = 0;

  // A short-lived certificate for the ssh of a sandbox that has ssh.ca, of a
  // public key; for an empty one of that which the caller logs in with. EINVAL
  // for what is no key, ENOKEY where the caller has none.
  virtual void Certify(const Caller& caller, const std::string& uuid,
                       const std::string& key, Reply<Certificate> reply) = 0;
  // All that were issued are void when it answers; a guest that is paused or
  // saved learns of it when it goes on.
  virtual void RevokeCertificates(const Caller& caller, const std::string& uuid,
                                  Reply<Done> reply) = 0;

  // exec/: commands in the guests.
  [[nodiscard]] virtual Jobs& GetJobs() = 0;
  // fs/: the files in the guests.
  [[nodiscard]] virtual GuestFiles& GetFiles() = 0;

  virtual void OpenImage(const std::string& name,
                         Reply<std::shared_ptr<ImageReader>> reply) = 0;
  // EEXIST when there is one.
  virtual void CreateImage(const Caller& caller, const std::string& name,
                           Reply<std::shared_ptr<ImageWriter>> reply) = 0;
  // EBUSY while a sandbox stands on it.
  virtual void RemoveImage(const Caller& caller, const std::string& name,
                           Reply<Done> reply) = 0;

  // .host/disks: makes one of that size, or grows it. EINVAL for what is no
  // size, or smaller than it is.
  virtual void SetDisk(const Caller& caller, const std::string& name,
                       const std::string& size, Reply<Done> reply) = 0;
  // EBUSY while a sandbox has it.
  virtual void RemoveDisk(const Caller& caller, const std::string& name,
                          Reply<Done> reply) = 0;

  // .host/networks: makes one that is shared. EEXIST.
  virtual void MakeNetwork(const Caller& caller, const std::string& name,
                           Reply<Done> reply) = 0;
  // The text of its config.yaml; a running one takes it when it begins anew.
  // EINVAL for what is none, EPERM for a network of others.
  virtual void SetNetwork(const Caller& caller, const std::string& name,
                          const std::string& config, Reply<Done> reply) = 0;
  // EBUSY while a sandbox has it, EPERM for a network of others.
  virtual void RemoveNetwork(const Caller& caller, const std::string& name,
                             Reply<Done> reply) = 0;
};

// What the sandboxes of one user may take together; 0: there is no limit.
struct UserLimits {
  uint64_t sandboxes = 0;  // those in the trash too
  uint64_t memory = 0;     // bytes, of guests that run
  uint64_t disk = 0;       // bytes, `disk` once for itself and each snapshot
  uint64_t ports = 0;      // forwards, those of ssh too
  uint64_t jobs = 0;
  bool operator==(const UserLimits&) const = default;
};

struct BackendOptions {
  std::string hypervisor;  // its name, among several
  std::string uri;         // empty: libvirt's own default, else qemu:///session
  std::string ssh_config;  // for ssh -F; empty: ssh's own
  bool insecure_tcp = false;  // qemu+tcp is allowed
  std::string pool = "sbxfs";
  std::string disk_pool;  // of additional disks; empty: the same
  std::chrono::seconds stop_timeout{60};
  std::chrono::seconds start_timeout{600};
  std::chrono::seconds trash{86400};  // 0: rmdir deletes at once
  bool start = false;                 // boot at mkdir
  bool all = false;                   // show domains made by others
  // How long a volume of an unfinished mkdir, rmdir or document must have been
  // left alone before it is taken for abandoned.
  std::chrono::seconds orphan_age{600};
  // How often it is looked for chains that can be shorter.
  std::chrono::seconds pull_pause{60};
  bool no_warm = false;  // no memory template is made or gone on from
  UserLimits limits;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_BACKEND_H_
