#ifndef SBXFS_BACKEND_CONVEYOR_H_
#define SBXFS_BACKEND_CONVEYOR_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "backend/util/mutex.h"

namespace sbxfs {

// Hands things from one thread to others, in their order and no more than
// `most` ahead of them. Thread-safe.
template <typename Thing>
class Conveyor {
 public:
  explicit Conveyor(size_t most) : most_(most) {}

  // Blocks while `most` things wait.
  void Put(Thing thing) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (things_.size() >= most_) changed_.Wait(mutex_);
    things_.push_back(std::move(thing));
    changed_.NotifyAll();
  }
  // No more come.
  void End() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    ended_ = true;
    changed_.NotifyAll();
  }
  // Blocks for one; nothing at the end.
  [[nodiscard]] std::optional<Thing> Take() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (things_.empty() && !ended_) changed_.Wait(mutex_);
    if (things_.empty()) return std::nullopt;
    std::optional<Thing> thing(std::move(things_.front()));
    things_.pop_front();
    changed_.NotifyAll();
    return thing;
  }

 private:
  const size_t most_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Thing> things_ GUARDED_BY(mutex_);
  bool ended_ GUARDED_BY(mutex_) = false;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_CONVEYOR_H_
