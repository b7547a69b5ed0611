#ifndef SBXFS_BACKEND_IDLE_H_
#define SBXFS_BACKEND_IDLE_H_

#include <chrono>
#include <map>
#include <string>

#include "backend/actions.h"
#include "backend/core.h"
#include "backend/exec.h"
#include "backend/wake_ports.h"

namespace sbxfs {

// Saves running sandboxes that nobody has used for as long as their `idle`
// says, and has the ports of those that are saved wake them. What is use: a job
// in exec, a TCP connection of the user-mode network that is not of sbxfs's
// own making, and more than a little work of the processors. Thread-safe.
class Idle {
 public:
  Idle(Core& core, Actions& actions, const Exec& exec, WakePorts& ports)
      : core_(core), actions_(actions), exec_(exec), ports_(ports) {}

  // The sandbox changed. Returns at once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Watched {
    Clock::time_point used, looked;
    // What its processors had done by then, ns.
    uint64_t worked = 0, worked_at_use = 0;
  };

  void Plan() EXCLUDES(mutex_);
  void Round() EXCLUDES(mutex_);
  // Blocks.
  void LookAt(const Sandbox& sandbox) EXCLUDES(mutex_);
  [[nodiscard]] bool IsUsed(const Sandbox& sandbox, Watched& watched);
  void Save(const Sandbox& sandbox);

  Core& core_;
  Actions& actions_;
  const Exec& exec_;
  WakePorts& ports_;
  Mutex mutex_;
  bool planned_ GUARDED_BY(mutex_) = false;
  std::map<std::string, Watched> watched_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IDLE_H_
