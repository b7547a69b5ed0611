#ifndef SBXFS_BACKEND_ACTIONS_H_
#define SBXFS_BACKEND_ACTIONS_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/core.h"
#include "backend/images.h"
#include "backend/provision.h"
#include "backend/snapshots.h"
#include "backend/wake_ports.h"
#include "backend/warm.h"

namespace sbxfs {

// The verbs of NAME/status. A sandbox has one action at a time; those who
// write the same verb meanwhile join it, and kill (and stop, while a start
// only waits for its guest) overtakes it: the overtaken one's waiters get
// ECANCELED at once. An asker who gives up ends the waiting, never the action.
class Actions {
 public:
  Actions(Core& core, Images& images, Provision& provision, Warm& warm,
          WakePorts& wake_ports)
      : core_(core),
        images_(images),
        provision_(provision),
        warm_(warm),
        wake_ports_(wake_ports),
        snapshots_(core) {}

  // `argument` of a revert: the tag, with a '!' behind it when forced.
  void Act(const std::string& uuid, Verb verb, bool wait, Reply<Done> reply,
           const std::string& argument = "") EXCLUDES(mutex_);
  void WaitFor(const std::string& uuid, State state, Reply<Done> reply);
  // Starts it if it is saved, or being saved. Who connected to another's port
  // that was just being closed starts nothing: EHOSTDOWN.
  void Wake(const std::string& uuid, const Reply<Done>& reply, int tries = 0);

  // See Backend. One that only waits for its guest is none.
  [[nodiscard]] std::string UnderWay() const EXCLUDES(mutex_);

  // Ends all waits; the guests go on.
  void Stop() EXCLUDES(mutex_);

 private:
  struct Action {
    Verb verb;
    std::string uuid;
    std::string argument;
    std::string what;  // "Cannot start 'box'"
    std::atomic<bool> overtaken = false;
    std::atomic<bool> waiting = false;  // only waits for the guest now
    bool leaves_template = false;       // it boots, and others need not
    std::string cold;                   // why, as `progress` has it
    std::shared_ptr<Action> before;     // what it overtook
    std::atomic<bool> ended = false;
    std::vector<Reply<Done>> askers;  // guarded by Actions::mutex_
  };
  using ActionPtr = std::shared_ptr<Action>;

  [[nodiscard]] static bool Holds(Verb verb, const Sandbox& sandbox);
  static void CheckState(Verb verb, const Sandbox& sandbox,
                         const std::string& what);
  [[nodiscard]] static bool Overtakes(Verb verb, const Action& current);
  void Run(const ActionPtr& action) EXCLUDES(mutex_);
  void Perform(Action& action);
  void Start(Action& action);
  void Boot(Action& action);
  [[nodiscard]] bool AnotherWakes(Action& action,
                                  const std::vector<Forward>& forwards);
  // Whether it goes on from a memory template; `why` it does not.
  [[nodiscard]] bool StartWarm(Action& action, std::string& why);
  void AwaitReady(Action& action, std::chrono::steady_clock::time_point until);
  void WaitReady(Action& action, std::chrono::steady_clock::time_point until);
  // Blocks: whether others ended the guest under a call that failed with
  // `error`.
  [[nodiscard]] bool EndedMeanwhile(const std::string& uuid,
                                    const Error& error);
  void AskToShutDown(const std::string& uuid, const std::string& what,
                     bool agent);
  void StopGuest(Action& action);
  void Kill(Action& action);
  void Revert(Action& action);
  void FactoryReset(Action& action);
  // Runs `work`, which changes the disk, with the sandbox's turn held while
  // the guest is down; one that was on is then started again, and is as usable
  // as it was. `work` is told whether its file systems were at rest.
  // `resume`, where given, takes the place of that start.
  void WithGuestDown(Action& action,
                     const std::function<void(bool quiesced)>& work,
                     const std::function<void(bool paused)>& resume = {});
  void EndQemu(Action& action, virDomainPtr domain);
  void BringBack(Action& action, const Sandbox& before,
                 std::chrono::steady_clock::time_point until,
                 const std::function<void(bool paused)>& resume = {});
  void Doing(const Action& action, std::optional<State> state,
             std::string progress);
  void MustGoOn(const Action& action) const;
  // Waits for `done`; throws ETIMEDOUT with `late`, ECANCELED when overtaken.
  void Await(Action& action, const std::function<bool(const Sandbox*)>& done,
             std::chrono::steady_clock::time_point until,
             const std::string& late);

  Core& core_;
  Images& images_;
  Provision& provision_;
  Warm& warm_;
  WakePorts& wake_ports_;
  Snapshots snapshots_;
  std::atomic<bool> stopping_ = false;
  mutable Mutex mutex_;
  std::map<std::string, ActionPtr> current_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_ACTIONS_H_
