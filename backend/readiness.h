#ifndef SBXFS_BACKEND_READINESS_H_
#define SBXFS_BACKEND_READINESS_H_

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "backend/core.h"
#include "backend/guest/boot.h"
#include "backend/provision.h"
#include "backend/warm.h"

namespace sbxfs {

// Finds out when a running guest can be used: its ssh answers, its cloud-init
// and provision scripts are done, its keys are the wanted ones, its probes
// pass. Whoever started it: the check begins when a domain is seen running and
// not ready, and ends when a script has failed. Between checks no thread waits.
class Readiness {
 public:
  Readiness(Core& core, Provision& provision, Warm& warm)
      : core_(core), provision_(provision), warm_(warm) {}

  // Begins to check where that is due. Returns at once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);
  // The guest began anew in its running domain: it is not ready, and its memory
  // is empty. Returns at once.
  void Rebooted(const std::string& uuid);
  // A guest that was paused or saved goes on, with the keys of before. Returns
  // at once.
  void Resumed(const std::string& uuid, int round = 0);
  // Gives a ready guest the keys that hold now. Returns at once.
  void PushKeysSoon(const std::string& uuid);
  // The same; blocks, and throws Error.
  void PushKeysNow(const std::string& uuid);

 private:
  using Clock = std::chrono::steady_clock;

  // How far the checking of a running guest has come.
  struct Checked {
    Clock::time_point since;
    bool ssh = false;     // has answered; under load it may be late once more
    bool booted = false;  // cloud-init and scripts are done, without a failure
    bool probing = false;
    size_t probes = 0;             // so many have passed
    std::optional<size_t> probed;  // the one told of last
  };

  void Check(const std::string& uuid) EXCLUDES(mutex_);
  void CheckNow(const Sandbox& sandbox, Checked& checked);
  // Blocks, as those below. When it has none, that is told.
  [[nodiscard]] bool HasSsh(const Sandbox& sandbox, const Checked& checked);
  // Whether its boot is over and nothing of it failed; what has to follow one
  // is done then.
  [[nodiscard]] bool HasBooted(const Sandbox& sandbox);
  // Tells what is waited for.
  void WaitFor(const std::string& uuid, const std::string& what);
  void NoteUid(const std::string& uuid, const BootReport& report);
  // Blocks: why the guest will not become ready in this boot, or nothing.
  [[nodiscard]] std::string FailureOf(const std::string& uuid,
                                      const BootReport& report);
  // Blocks: runs the probes that have not passed yet, up to one that fails.
  [[nodiscard]] bool ProbesPass(const Sandbox& sandbox, Checked& checked);
  void NoteReady(const Sandbox& sandbox);
  void DropSeedKeySoon(const std::string& uuid);
  void FetchLog(const std::string& uuid);
  // Blocks: writes the keys where the guest has others.
  void PushKeys(const std::string& uuid);
  [[nodiscard]] bool IsSilent(const std::string& uuid);

  Core& core_;
  Provision& provision_;
  Warm& warm_;
  Mutex mutex_;
  std::map<std::string, Checked> checking_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_READINESS_H_
