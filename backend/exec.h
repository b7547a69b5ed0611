#ifndef SBXFS_BACKEND_EXEC_H_
#define SBXFS_BACKEND_EXEC_H_

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backend/core.h"
#include "backend/guest/exec_script.h"
#include "backend/jobs.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// Jobs in guests that libvirt runs: begun by the guest's agent, else by ssh,
// and asked after at growing intervals, while there are some. No thread and no
// turn of the agent is held while a job runs.
class Exec : public Jobs {
 public:
  explicit Exec(Core& core) : core_(core) {}

  std::vector<JobPtr> List(const std::string& uuid) const override
      EXCLUDES(mutex_);
  JobPtr Find(const std::string& uuid, const std::string& name) const override
      EXCLUDES(mutex_);
  JobPtr Get(const std::string& id) const override EXCLUDES(mutex_);
  // How many the sandboxes of that user have.
  [[nodiscard]] size_t JobsOf(uid_t uid) const EXCLUDES(mutex_);
  // See Backend: a job that is being begun.
  [[nodiscard]] std::string UnderWay() const EXCLUDES(mutex_);
  [[nodiscard]] std::string Remember() const EXCLUDES(mutex_);
  void Recall(const std::string& bytes) EXCLUDES(mutex_);
  JobPtr Make(const std::string& uuid, const std::string& name) override
      EXCLUDES(mutex_);
  void Prepare(const std::string& id,
               const std::function<void(JobWish&)>& change) override
      EXCLUDES(mutex_);
  void Run(const std::string& id, const std::vector<std::string>& words,
           bool shell, bool wait, Reply<Done> reply) override EXCLUDES(mutex_);
  void Await(const std::string& id, Reply<Done> reply) override
      EXCLUDES(mutex_);
  void Refresh(const std::string& id, Reply<Done> reply) override;
  void Read(const std::string& id, JobStream stream, uint64_t offset,
            Reply<std::string> reply) override EXCLUDES(mutex_);
  std::shared_ptr<void> Watch(const std::string& id) override EXCLUDES(mutex_);
  void Remove(const std::string& id, Reply<Done> reply) override
      EXCLUDES(mutex_);

  // Has a saved sandbox started that may be woken. Set before the first Run.
  std::function<void(const std::string& uuid, Reply<Done>)> wake;

  // The sandbox changed: the jobs of a guest that stopped are lost. Returns at
  // once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr size_t kMost = 4096;  // jobs of a sandbox

  struct Entry {
    JobPtr job;
    bool by_ssh = false;
    bool begun = false;          // asked after
    std::optional<int64_t> pid;  // the agent's; none: reports alone tell
    Clock::time_point since;
    Clock::time_point due;                    // of the next question
    Clock::time_point reported;               // the last report on its output
    std::optional<Clock::time_point> silent;  // no answer since
    std::vector<Reply<Done>> waiting;
    int watchers = 0;
  };

  // Begins the sentence of what fails.
  [[nodiscard]] static std::string What(const Job& job);
  static void Answer(const Job& job, const Reply<Done>& reply);
  // Changes what is shown, tells of it and, once it is over, those who wait.
  void Change(const std::string& id, const std::function<void(Job&)>& change)
      EXCLUDES(mutex_);
  // Those who wait are told `error`.
  void Fail(const std::string& id, const Error& error) EXCLUDES(mutex_);

  // These block.
  void Begin(const std::string& id) EXCLUDES(mutex_);
  // Throws Error when there is no way to begin it. `agent`: what was wrong
  // with it; `asked`: it was, and may have begun the job or do so yet.
  void BeginBySsh(const Job& job, const std::string& agent, bool asked);
  void Began(const std::string& id, std::optional<int64_t> pid, bool by_ssh)
      EXCLUDES(mutex_);
  void Round(const std::string& uuid) EXCLUDES(mutex_);
  void Ask(const std::string& id) EXCLUDES(mutex_);
  void AskNow(const Job& job, const Entry& entry) EXCLUDES(mutex_);
  // What a script of root's says; its status does not count.
  [[nodiscard]] std::string InGuest(const std::string& uuid, bool by_ssh,
                                    const std::string& script);
  [[nodiscard]] JobReport Report(const Job& job, bool by_ssh, int wait);
  void Take(const std::string& id, const JobReport& report, const Job& asked);
  void Silent(const std::string& id, const Error& error) EXCLUDES(mutex_);
  // Soon removes what is left in the guest of jobs that are gone.
  void PlanClean(const std::string& uuid, const std::vector<std::string>& ids)
      REQUIRES(mutex_);
  void Clean(const std::string& uuid) EXCLUDES(mutex_);

  // When the next round of the sandbox is due; nothing runs: never.
  [[nodiscard]] std::optional<Clock::time_point> NextRound(
      const std::string& uuid) REQUIRES(mutex_);
  void PlanRound(const std::string& uuid) EXCLUDES(mutex_);

  Core& core_;
  mutable Mutex mutex_;
  uint64_t last_ GUARDED_BY(mutex_) = 0;
  std::map<std::string, Entry> entries_ GUARDED_BY(mutex_);  // by id
  // Sandbox and name to id.
  std::map<std::pair<std::string, std::string>, std::string> names_
      GUARDED_BY(mutex_);
  std::set<std::string> rounds_ GUARDED_BY(mutex_);  // due or under way
  // Guests whose agent did not answer: not to be asked until then.
  std::map<std::string, Clock::time_point> agentless_ GUARDED_BY(mutex_);
  // What is left in guests of jobs that are gone.
  std::map<std::string, std::vector<std::string>> dirty_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_EXEC_H_
