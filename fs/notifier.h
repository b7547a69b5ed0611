#ifndef SBXFS_FS_NOTIFIER_H_
#define SBXFS_FS_NOTIFIER_H_

#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include "backend/util/mutex.h"

namespace sbxfs {

// One thread for what no request handler may do itself: poll wake-ups (the
// kernel may hold the lock that a notification needs), looking at interrupted
// callers, and time limits. All functions may be called from any thread and
// with locks held; tasks run one after another with none held, and are short.
class Notifier {
 public:
  Notifier();
  ~Notifier();  // Stop()
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  void Post(std::function<void()> task) { After({}, std::move(task)); }
  void After(std::chrono::milliseconds delay, std::function<void()> task)
      EXCLUDES(mutex_);

  // Ends the thread; tasks that are not due are dropped, later ones ignored.
  void Stop() EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  void Loop() EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar changed_;
  bool stopped_ GUARDED_BY(mutex_) = false;
  std::multimap<Clock::time_point, std::function<void()>> tasks_
      GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_NOTIFIER_H_
