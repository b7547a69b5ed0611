#ifndef SBXFS_BACKEND_UTIL_TIMER_H_
#define SBXFS_BACKEND_UTIL_TIMER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <utility>

#include "backend/util/mutex.h"

namespace sbxfs {

// Runs functions later, on one thread of its own that sleeps in between. They
// must be quick: the next one waits. Thread-safe.
class Timer {
 public:
  using Id = uint64_t;

  Timer();
  ~Timer() { Stop(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  Id After(std::chrono::milliseconds delay, std::function<void()> function);
  // Ends the thread. Functions that are not due yet never run, nor do later
  // ones. Not to be called by a function of the timer's.
  void Stop();
  // Nothing happens when it ran already or runs just now.
  void Cancel(Id id);

 private:
  using Clock = std::chrono::steady_clock;
  void Loop();

  Mutex mutex_;
  CondVar changed_;
  bool stop_ GUARDED_BY(mutex_) = false;
  Id next_ GUARDED_BY(mutex_) = 1;
  std::map<std::pair<Clock::time_point, Id>, std::function<void()>> due_
      GUARDED_BY(mutex_);
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_TIMER_H_
