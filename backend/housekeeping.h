#ifndef SBXFS_BACKEND_HOUSEKEEPING_H_
#define SBXFS_BACKEND_HOUSEKEEPING_H_

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backend/core.h"
#include "backend/documents.h"
#include "backend/images.h"
#include "backend/layers.h"
#include "backend/provision.h"

namespace sbxfs {

// What is done in the background on a hypervisor, by one mount at a time:
// emptying the trash of what lay there for too long, removing what daemons and
// libvirtds that were killed left in the pool, and keeping the chains of
// running guests short.
class Housekeeping {
 public:
  Housekeeping(Core& core, Documents& documents, Images& images,
               Provision& provision);

  // These return at once; the work comes again by itself as long as there is
  // some.
  void PlanTrash() { Plan(kTrash, std::chrono::milliseconds(0)); }
  // The same for its chain: a sandbox was read, and is `sandbox` by libvirt's
  // word.
  void LookAtChain(const Sandbox& sandbox) EXCLUDES(mutex_);
  void PlanSweep() { Plan(kSweep, std::chrono::milliseconds(200)); }

  // Has what is under way end where it is, and begins nothing more. Blocks for
  // a step of it, and no longer than kStep: the connection is closed next, over
  // which the lease is given back.
  void Stop() EXCLUDES(mutex_);

 private:
  enum Chore { kTrash, kSweep, kPull, kChores };
  // When to come again; nothing when there is nothing to come for.
  using Next = std::optional<std::chrono::milliseconds>;

  void Plan(Chore chore, std::chrono::milliseconds delay) EXCLUDES(mutex_);
  void Do(Chore chore) EXCLUDES(mutex_);
  [[nodiscard]] bool Stopping() EXCLUDES(mutex_);
  [[nodiscard]] Next EmptyTrash();
  [[nodiscard]] Next Sweep();
  [[nodiscard]] Next Pull() EXCLUDES(mutex_);
  // Layers that it runs on and that no snapshot of its names: a clone may.
  [[nodiscard]] std::set<std::string> UnnamedLayers(const Sandbox& sandbox);
  // Layers that it runs on, but for the one that it writes to.
  [[nodiscard]] std::set<std::string> FrozenLayers(const Sandbox& sandbox);
  [[nodiscard]] bool MayBeShorter(const Sandbox& sandbox) EXCLUDES(mutex_);
  // Takes away what the pulls that have ended left; whether some go on.
  [[nodiscard]] bool FinishPulls() EXCLUDES(mutex_);
  // Runs `work` with the time on the hypervisor while no other mount does the
  // like; false when one does.
  [[nodiscard]] bool WithLease(const std::function<void(Time)>& work);
  void WriteLease();
  [[nodiscard]] bool TakeLease() EXCLUDES(mutex_);
  [[nodiscard]] bool IsSpare(const std::string& volume,
                             const std::string& uuid);
  // Volumes of sandboxes that libvirt has no domain of, or whose domain names
  // others: what stands on them decides.
  [[nodiscard]] std::vector<std::string> WithoutDomain(
      const std::vector<std::string>& volumes);

  Core& core_;
  Documents& documents_;
  Images& images_;
  Provision& provision_;
  Layers layers_{core_};
  const std::string holder_;  // what our lease has in it
  Mutex mutex_;
  CondVar done_;
  int doing_ GUARDED_BY(mutex_) = 0;  // chores under way
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool holding_ GUARDED_BY(mutex_) = false;  // one of our chores has the lease
  Timer::Id due_[kChores] GUARDED_BY(mutex_) = {};  // of each chore
  bool pull_planned_ GUARDED_BY(mutex_) = false;
  // Layers that are being pulled out of chains, by sandbox.
  std::map<std::string, std::set<std::string>> pulls_ GUARDED_BY(mutex_);
  // Chains that were looked at in vain: by sandbox, what they had.
  std::map<std::string, std::set<std::string>> needed_ GUARDED_BY(mutex_);
  // The lease of another mount: when it was made, and when we first saw it.
  std::optional<std::pair<Time, std::chrono::steady_clock::time_point>> theirs_
      GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_HOUSEKEEPING_H_
