#ifndef SBXFS_BACKEND_PORTS_H_
#define SBXFS_BACKEND_PORTS_H_

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "backend/core.h"
#include "backend/forwards.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

// The host ports of sandboxes. Ssh's is a sandbox's from mkdir to its end,
// whether it runs or not; the others while it runs. Thread-safe.
class Ports {
 public:
  explicit Ports(Core& core) : core_(core) {}

  // A port for the sandbox's ssh until it is in the catalog: `wanted`, or one
  // chosen from its uuid, so that two mounts do not choose one port for two.
  // Throws Error(EADDRINUSE) naming the holder.
  [[nodiscard]] int Reserve(const std::string& uuid, int wanted,
                            std::string_view what) EXCLUDES(mutex_);
  void Release(int port) EXCLUDES(mutex_);

  // Who has the host's side of it: "sandbox 'other'", "process 'sshd' (pid
  // 12)", "another process", or empty when it is free. Blocks shortly.
  // `now`: a stopped sandbox's ssh port is no bar (virsh can make two of one).
  [[nodiscard]] std::string Holder(const std::string& uuid,
                                   const Forward& wanted, bool now);
  // Throws Error, EADDRINUSE or EACCES, when one of `wanted` that is not in
  // `had` cannot be had. Blocks
  // shortly.
  void Check(const std::string& uuid, const std::vector<Forward>& wanted,
             const std::vector<Forward>& had, std::string_view what);
  // Throws Error(EOPNOTSUPP) for addresses that a remote hypervisor's guests
  // cannot have here.
  void CheckAddresses(const Spec& spec, std::string_view what) const;
  // As Check, for all that a guest is to be started with.
  void CheckStart(const std::string& uuid, const std::vector<Forward>& wanted,
                  std::string_view what);

  // Blocks: `wanted` is what the guest forwards, now if it runs, and at every
  // start from now on. All or nothing. Callers hold the sandbox's turn.
  void Change(const std::string& uuid, const std::vector<Forward>& wanted,
              std::string_view what);

  // Brings a running guest's forwards, on a worker, in step with config.yaml:
  // virsh may have brought back one that was saved with others.
  void Look(const std::string& uuid) EXCLUDES(mutex_);

 private:
  // Opened on a hypervisor that is another machine.
  [[nodiscard]] bool IsElsewhere(const Forward& wanted) const;
  void CheckOne(const std::string& uuid, const Forward& wanted,
                std::string_view what);
  void CheckRights(const std::string& uuid, const Forward& wanted,
                   std::string_view what);
  [[nodiscard]] std::string Wish(const std::string& uuid,
                                 std::vector<Forward>& wanted);
  void FollowLater(const std::string& uuid, const std::string& wish,
                   std::chrono::milliseconds delay);
  void Follow(const std::string& uuid, const std::string& wish)
      EXCLUDES(mutex_);

  Core& core_;
  Mutex mutex_;
  std::set<int> reserved_ GUARDED_BY(mutex_);
  struct Followed {
    std::string wish;
    std::string failure;  // that was told
  };
  std::map<std::string, Followed> followed_ GUARDED_BY(mutex_);
};

// A socket bound to the host's side; `error` is bind's errno, or 0.
[[nodiscard]] UniqueFd BindTo(const Forward& wanted, int& error);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_PORTS_H_
