#ifndef SBXFS_BACKEND_READINESS_H_
#define SBXFS_BACKEND_READINESS_H_

#include <chrono>
#include <map>
#include <string>

#include "backend/core.h"
#include "backend/provision.h"

namespace sbxfs {

// Finds out when a running guest can be used: its ssh answers, its cloud-init
// is done, its keys are the wanted ones. Whoever started it: the check begins
// when a domain is seen running and not ready. Between checks no thread waits.
class Readiness {
 public:
  Readiness(Core& core, Provision& provision)
      : core_(core), provision_(provision) {}

  // Begins to check where that is due. Returns at once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);
  // Gives a ready guest the keys that hold now. Returns at once.
  void PushKeysSoon(const std::string& uuid);

 private:
  using Clock = std::chrono::steady_clock;

  void Check(const std::string& uuid) EXCLUDES(mutex_);
  void CheckNow(const Sandbox& sandbox, Clock::duration age);
  // Blocks: writes the keys where the guest has others.
  void PushKeys(const std::string& uuid);
  [[nodiscard]] bool IsSilent(const std::string& uuid);

  Core& core_;
  Provision& provision_;
  Mutex mutex_;
  std::map<std::string, Clock::time_point> checking_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_READINESS_H_
