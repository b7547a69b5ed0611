#ifndef SBXFS_BACKEND_UTIL_WORKER_POOL_H_
#define SBXFS_BACKEND_UTIL_WORKER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "backend/util/mutex.h"

namespace sbxfs {

// Threads for work that blocks. A thread is made when none is idle, so that
// work that waits for a guest never holds up other work; beyond `most` threads
// jobs queue. Idle threads sleep without waking. Thread-safe.
class WorkerPool {
 public:
  // `after_job` runs on the thread of each job when that has ended.
  explicit WorkerPool(size_t most, void (*after_job)() = nullptr)
      : most_(most), after_job_(after_job) {}
  ~WorkerPool() { Stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs what is queued, then ends the threads; later jobs are dropped. Not to
  // be called by a job.
  void Stop();
  // What `job` throws is logged as a bug: jobs answer their Reply themselves.
  void Run(std::function<void()> job);

 private:
  void Loop();

  const size_t most_;
  void (*const after_job_)();
  Mutex mutex_;
  CondVar changed_;
  bool stop_ GUARDED_BY(mutex_) = false;
  size_t idle_ GUARDED_BY(mutex_) = 0;
  std::deque<std::function<void()>> jobs_ GUARDED_BY(mutex_);
  std::list<std::thread> threads_ GUARDED_BY(mutex_);
};

// One operation at a time for each key: workers line up by Take. It is not a
// mutex of data; holding a turn across libvirt calls is its purpose.
class Turns {
 public:
  class Turn {
   public:
    Turn(Turns& turns, std::string key, uint64_t number)
        : turns_(&turns), key_(std::move(key)), number_(number) {}
    Turn(Turn&& other) noexcept
        : turns_(std::exchange(other.turns_, nullptr)),
          key_(std::move(other.key_)),
          number_(other.number_) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (turns_ != nullptr) turns_->Give(key_, number_);
    }

   private:
    Turns* turns_;
    std::string key_;
    uint64_t number_;
  };

  // Waits until nobody else has `key`'s turn. Throws Error(ETIMEDOUT) with
  // `what` in its sentence after `patience`.
  [[nodiscard]] Turn Take(const std::string& key, std::string_view what,
                          std::chrono::milliseconds patience);

  // Those who have a turn now keep nobody waiting any more: what they wait for
  // comes to nothing.
  void Forget();

 private:
  void Give(const std::string& key, uint64_t number);

  Mutex mutex_;
  CondVar changed_;
  uint64_t last_ GUARDED_BY(mutex_) = 0;
  std::map<std::string, uint64_t> taken_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_WORKER_POOL_H_
