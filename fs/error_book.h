#ifndef SBXFS_FS_ERROR_BOOK_H_
#define SBXFS_FS_ERROR_BOOK_H_

#include <sys/types.h>

#include <chrono>
#include <deque>
#include <string>
#include <unordered_map>

#include "backend/util/mutex.h"

namespace sbxfs {

// What the `error` files tell. May be used from any thread.
class ErrorBook {
 public:
  static constexpr std::size_t kKept = 20;

  // `uuid` empty: a failure that belongs to no sandbox, kept for its caller.
  void Failed(const std::string& uuid, uid_t uid, const std::string& sentence)
      EXCLUDES(mutex_);
  void Succeeded(const std::string& uuid) EXCLUDES(mutex_);

  // The sandbox's last failure; empty after a success.
  [[nodiscard]] std::string OfSandbox(const std::string& uuid) EXCLUDES(mutex_);
  // The caller's last failures, newest first, a line each with its time.
  [[nodiscard]] std::string OfCaller(uid_t uid) EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  std::unordered_map<std::string, std::string> sandboxes_ GUARDED_BY(mutex_);
  std::unordered_map<uid_t, std::deque<std::string>> callers_
      GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_ERROR_BOOK_H_
