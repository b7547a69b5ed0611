#ifndef SBXFS_FS_HANDLE_TABLE_H_
#define SBXFS_FS_HANDLE_TABLE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend/util/mutex.h"

namespace sbxfs {

// The numbers the kernel knows open files and directories by; never reused, nor
// by another daemon of the same mount. May be used from any thread.
template <typename T>
class HandleTable {
 public:
  [[nodiscard]] uint64_t Add(std::shared_ptr<T> open) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    open_[++last_] = std::move(open);
    return last_;
  }
  // Null for a number that is not open.
  [[nodiscard]] std::shared_ptr<T> Find(uint64_t handle) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const auto found = open_.find(handle);
    return found == open_.end() ? nullptr : found->second;
  }
  // Opened again for that number, which a daemon before gave; what is there
  // already wins.
  [[nodiscard]] std::shared_ptr<T> Adopt(uint64_t handle,
                                         std::shared_ptr<T> open)
      EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return open_.try_emplace(handle, std::move(open)).first->second;
  }
  template <typename F>
  void ForEach(F&& look) EXCLUDES(mutex_) {
    std::vector<std::shared_ptr<T>> all;
    {
      MutexLock lock(mutex_);
      for (const auto& [handle, open] : open_) all.push_back(open);
    }
    for (const auto& open : all) look(*open);
  }
  std::shared_ptr<T> Remove(uint64_t handle) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const auto found = open_.find(handle);
    if (found == open_.end()) return nullptr;
    auto open = std::move(found->second);
    open_.erase(found);
    return open;
  }
  void Clear() EXCLUDES(mutex_) {
    std::unordered_map<uint64_t, std::shared_ptr<T>> freed;
    MutexLock lock(mutex_);
    freed.swap(open_);
  }

 private:
  Mutex mutex_;
  uint64_t last_ GUARDED_BY(mutex_) = static_cast<uint64_t>(
      std::chrono::steady_clock::now().time_since_epoch().count());
  std::unordered_map<uint64_t, std::shared_ptr<T>> open_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_HANDLE_TABLE_H_
