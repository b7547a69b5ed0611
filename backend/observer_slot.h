#ifndef SBXFS_BACKEND_OBSERVER_SLOT_H_
#define SBXFS_BACKEND_OBSERVER_SLOT_H_

#include "backend/backend.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// The observer that is told of changes, by any thread. Who takes it away, to
// destroy it, waits until nobody is telling it anything.
class ObserverSlot {
 public:
  // Not to be called by the observer while it is told something.
  void Set(Observer* observer) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    observer_ = observer;
    while (telling_ > 0) told_.Wait(mutex_);
  }

  // The observer, if there is one, for as long as this lives.
  class Telling {
   public:
    explicit Telling(ObserverSlot& slot) : slot_(slot) {
      MutexLock lock(slot_.mutex_);
      observer_ = slot_.observer_;
      if (observer_ != nullptr) ++slot_.telling_;
    }
    ~Telling() {
      if (observer_ == nullptr) return;
      MutexLock lock(slot_.mutex_);
      if (--slot_.telling_ == 0) slot_.told_.NotifyAll();
    }
    Telling(const Telling&) = delete;
    Telling& operator=(const Telling&) = delete;
    explicit operator bool() const { return observer_ != nullptr; }
    Observer* operator->() const { return observer_; }

   private:
    ObserverSlot& slot_;
    Observer* observer_ = nullptr;
  };

 private:
  Mutex mutex_;
  CondVar told_;
  Observer* observer_ GUARDED_BY(mutex_) = nullptr;
  int telling_ GUARDED_BY(mutex_) = 0;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_OBSERVER_SLOT_H_
