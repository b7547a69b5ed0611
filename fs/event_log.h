#ifndef SBXFS_FS_EVENT_LOG_H_
#define SBXFS_FS_EVENT_LOG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/backend.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// "2026-11-24T20:01:02.123Z"
[[nodiscard]] std::string FormatTime(Time time);

// "2026-11-24T20:01:02.123Z box state running …\n"; the hypervisor's own
// events have `.host` in the place of a name.
[[nodiscard]] std::string FormatEvent(const Event& event);

// A line of a log, newline included, and whom it is for.
struct LogLine {
  std::string text;
  Time time;
  std::string uuid;  // of whose users may read it; empty: see `everyone`
  // The sandbox's rights then, for when it is gone.
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0;
  bool everyone = false;
  std::optional<uid_t> by;  // who did it may read it
};
using LogLinePtr = std::shared_ptr<const LogLine>;

// A stream of lines. It grows; when it has grown too long its older half goes.
// May be used from any thread.
class LineLog {
 public:
  static constexpr std::size_t kLongest = 1 << 20;

  void Add(LogLinePtr line) EXCLUDES(mutex_);

  struct Part {
    std::vector<LogLinePtr> lines;
    uint64_t next = 0;  // the number of the line to come
  };
  // From line number `first`, counted from the first ever, or the oldest kept.
  [[nodiscard]] Part Since(uint64_t first) const EXCLUDES(mutex_);
  [[nodiscard]] Time Last() const EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  // No deque, which takes half a KiB for its first line: there is one of these
  // for each sandbox.
  std::vector<LogLinePtr> lines_ GUARDED_BY(mutex_);
  uint64_t begin_ GUARDED_BY(mutex_) = 0;
  std::size_t bytes_ GUARDED_BY(mutex_) = 0;
  Time last_ GUARDED_BY(mutex_);
};
using LineLogPtr = std::shared_ptr<LineLog>;

// The events files: one stream for all (""), and one for each sandbox. May be
// used from any thread.
class EventLog {
 public:
  void Add(const Event& event, const LogLine& rights) EXCLUDES(mutex_);
  void Drop(const std::string& uuid) EXCLUDES(mutex_);
  [[nodiscard]] LineLogPtr Stream(const std::string& uuid) EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  std::unordered_map<std::string, LineLogPtr> streams_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_EVENT_LOG_H_
