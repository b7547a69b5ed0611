#ifndef SBXFS_BACKEND_MOUNTS_H_
#define SBXFS_BACKEND_MOUNTS_H_

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/core.h"
#include "backend/mount/host_directory.h"

namespace sbxfs {

// Begins Sandbox::failed where one of the mounts is why.
inline constexpr char kMountFailed[] = "a mount failed: ";

// Host directories in running guests, as config.yaml's mounts have them. Each
// is served by a process of its own (mount/server.h) with the rights of the
// sandbox's owner; between looks at them no thread waits. A sandbox that is not
// this daemon's to serve is left alone: its owner's does that.
class Mounts {
 public:
  explicit Mounts(Core& core) : core_(core) {}

  // Throws Error when `caller` may not give the sandbox what `wanted` mounts
  // and `before` did not: another user's sandbox, or a location that its owner
  // could not reach, read or write. `what` begins the sentence.
  struct Owned {
    uid_t uid = 0;
    std::string name;
  };
  void Check(const Caller& caller, const Owned& sandbox, const Spec& before,
             const Spec& wanted, std::string_view what) const;

  // Blocks: brings the mounts of a running guest in step, and waits for them
  // in the guest. After all were tried throws Error for the first that failed,
  // or, with `name`, for that one alone.
  void Settle(const std::string& uuid, const std::string* name = nullptr);
  // Blocks: throws Error where QEMU could not open what it is to serve by 9p.
  void CheckStart(const std::string& uuid, std::string_view what) const;
  // Blocks: QEMU saves no guest that has one mounted by 9p. Until the turn
  // ends they stay unmounted. Throws Error(EBUSY) where one is in use.
  [[nodiscard]] Turns::Turn Release(const std::string& uuid,
                                    std::string_view what) const;
  // Keeps them so from now on, as long as it runs. Returns at once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);

 private:
  struct Watched {
    std::string failure;  // the sentence that was told
    unsigned failures = 0;
  };
  // What a guest says of itself. It may lie: that harms only itself.
  struct Guest {
    // Its user's; none where it has no such user.
    std::optional<uid_t> uid;
    std::optional<gid_t> gid;
    bool has_sshfs = false;
    std::set<std::string> mounted;            // mount points of sshfs
    std::map<std::string, std::string> tags;  // by mount points, of ours
  };

  // Begins a sentence.
  [[nodiscard]] static std::string What(const Sandbox& sandbox,
                                        const MountSpec& mount);
  [[nodiscard]] Turns::Turn TakeTurn(const std::string& uuid) const;
  [[nodiscard]] bool Serves(const Sandbox* sandbox) const;
  [[nodiscard]] bool IsIdle(const Sandbox& sandbox) const;
  void Watch(const std::string& uuid) EXCLUDES(mutex_);
  // Those that failed, by name.
  using Failures = std::map<std::string, Error>;
  [[nodiscard]] Failures SettleTurn(const Sandbox& sandbox, const Spec& spec);
  [[nodiscard]] Guest AskGuest(const Sandbox& sandbox) const;
  // The guest once what stood in the slips `ended` is mounted there no more.
  [[nodiscard]] Guest AwaitEnd(const Sandbox& sandbox,
                               const std::set<std::string>& ended) const;
  static void Forget(const std::string& uuid);
  void InstallSshfs(const Sandbox& sandbox) const;
  // Of the directories that the hypervisor serves to that guest, or would.
  [[nodiscard]] std::set<std::string> Tags(const std::string& uuid) const;
  // What the hypervisor serves: plugged in, mounted, and undone where it is
  // not wanted. The rest of `wanted` is for sshfs.
  void SettleDirectories(const Sandbox& sandbox, const Guest& guest,
                         std::map<std::string, const MountSpec*>& wanted,
                         Failures& failures) const;
  // Whose files are whose by virtiofs; none where the guest has no other way.
  [[nodiscard]] std::optional<IdMap> VirtiofsIds(const Sandbox& sandbox,
                                                 const Guest& guest) const;
  void PlugIn(const Sandbox& sandbox, const MountSpec& mount,
              const IdMap& ids) const;
  void MountDirectory(const Sandbox& sandbox, const MountSpec& mount,
                      const std::string& tag) const;
  void Unplug(const Sandbox& sandbox, const std::string& tag) const;
  void Start(const Sandbox& sandbox, const MountSpec& mount, const Guest& guest,
             const std::filesystem::path& slip, const std::string& digest);
  void Await(const Sandbox& sandbox, const MountSpec& mount,
             const std::filesystem::path& slip) const;
  void Note(const std::string& uuid, const std::string& digest);

  Core& core_;
  Mutex mutex_;
  std::map<std::string, Watched> watched_ GUARDED_BY(mutex_);
};

// Those that a guest is to have.
[[nodiscard]] const std::vector<MountSpec>& MountsOf(const Spec& spec);
// A short text for all that a spec's mounts are; empty for none.
[[nodiscard]] std::string MountsDigest(const Spec& spec);
// The digest of what a running guest has, as noted in its definition.
[[nodiscard]] std::string NotedMounts(std::string_view domain_xml);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOUNTS_H_
