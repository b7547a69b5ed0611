#ifndef SBXFS_BACKEND_UTIL_MUTEX_H_
#define SBXFS_BACKEND_UTIL_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

// Clang's thread-safety analysis knows libstdc++'s mutex as no capability, so
// the annotations need a mutex and a lock of our own.
#if defined(__clang__)
#define SBXFS_ATTRIBUTE(x) __attribute__((x))
#else
#define SBXFS_ATTRIBUTE(x)
#endif
#define GUARDED_BY(x) SBXFS_ATTRIBUTE(guarded_by(x))
#define REQUIRES(...) SBXFS_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) SBXFS_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS SBXFS_ATTRIBUTE(no_thread_safety_analysis)

namespace sbxfs {

class SBXFS_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void Lock() SBXFS_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void Unlock() SBXFS_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds a Mutex for a scope.
class SBXFS_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) SBXFS_ATTRIBUTE(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() SBXFS_ATTRIBUTE(release_capability()) { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// A condition variable for Mutex. Waits may wake without cause: loop.
class CondVar {
 public:
  void Wait(Mutex& mutex) REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // False when `deadline` passed without a wake-up.
  bool WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    // wait_until on the steady clock is not intercepted by TSan with g++ 12's
    // runtime; the system clock's is, and a step of the clock only wakes early.
    const auto status = condition_.wait_until(
        lock, std::chrono::system_clock::now() +
                  (deadline - std::chrono::steady_clock::now()));
    lock.release();
    return status == std::cv_status::no_timeout;
  }
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_MUTEX_H_
