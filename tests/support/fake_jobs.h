#ifndef SBXFS_TESTS_SUPPORT_FAKE_JOBS_H_
#define SBXFS_TESTS_SUPPORT_FAKE_JOBS_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/jobs.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// Jobs in memory, which say and end what the test tells them. Thread-safe.
class FakeJobs : public Jobs {
 public:
  // `changed` is told the sandbox's uuid after each change, with no lock held.
  explicit FakeJobs(std::function<void(const std::string&)> changed)
      : changed_(std::move(changed)) {}

  // Test's side: what a running job said, and that it ended.
  void Say(const std::string& id, const std::string& out,
           const std::string& err) EXCLUDES(mutex_);
  void End(const std::string& id, int exit_code) EXCLUDES(mutex_);
  // The id of the job made last.
  [[nodiscard]] std::string Last() const EXCLUDES(mutex_);
  [[nodiscard]] int Watched(const std::string& id) const EXCLUDES(mutex_);

  std::vector<JobPtr> List(const std::string& uuid) const override
      EXCLUDES(mutex_);
  JobPtr Find(const std::string& uuid, const std::string& name) const override
      EXCLUDES(mutex_);
  JobPtr Get(const std::string& id) const override EXCLUDES(mutex_);
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

 private:
  struct Entry {
    JobPtr job;
    std::vector<Reply<Done>> waiting;
    int watchers = 0;
  };
  void Change(const std::string& id, const std::function<void(Job&)>& change)
      EXCLUDES(mutex_);

  const std::function<void(const std::string&)> changed_;
  mutable Mutex mutex_;
  int last_ GUARDED_BY(mutex_) = 0;
  std::map<std::string, Entry> entries_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_FAKE_JOBS_H_
