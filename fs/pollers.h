#ifndef SBXFS_FS_POLLERS_H_
#define SBXFS_FS_POLLERS_H_

#include <fuse_lowlevel.h>

#include <atomic>
#include <map>
#include <memory>

#include "backend/util/mutex.h"
#include "backend/util/timer.h"
#include "fs/node.h"

namespace sbxfs {

struct PollHandleDeleter {
  void operator()(fuse_pollhandle* handle) const {
    fuse_pollhandle_destroy(handle);
  }
};
using PollHandle = std::unique_ptr<fuse_pollhandle, PollHandleDeleter>;

// Those who wait in poll(2), and their waking. A wake-up only makes the kernel
// ask again, so one too many does no harm. May be used from any thread.
class Pollers {
 public:
  explicit Pollers(Timer& timer) : timer_(timer) {}

  // In the place of an earlier one of the same open file.
  void Arm(uint64_t file, OpenFilePtr open, const Caller& caller,
           PollHandle handle) EXCLUDES(mutex_);
  void Disarm(uint64_t file) EXCLUDES(mutex_);
  // Something changed: wakes, on the timer's thread, who has something to
  // read.
  void Wake();
  void Clear() EXCLUDES(mutex_);

 private:
  struct Armed {
    OpenFilePtr open;
    Caller caller;
    PollHandle handle;
  };
  void WakeNow() EXCLUDES(mutex_);

  Timer& timer_;
  std::atomic<bool> posted_ = false;
  Mutex mutex_;
  std::map<uint64_t, Armed> armed_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_POLLERS_H_
