#ifndef SBXFS_FS_EVENT_LOG_H_
#define SBXFS_FS_EVENT_LOG_H_

#include <cstdint>
#include <string>
#include <unordered_map>

#include "backend/backend.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// "2026-11-24T20:01:02.123Z"
[[nodiscard]] std::string FormatTime(Time time);

// "2026-11-24T20:01:02.123Z box state running …\n"; the hypervisor's own
// events have `.host` in the place of a name.
[[nodiscard]] std::string FormatEvent(const Event& event);

// The text of the events files: one stream for all (""), and one for each
// sandbox. A stream grows; when it has grown too long its older half goes.
// Positions count from the stream's first byte ever. May be used from any
// thread.
class EventLog {
 public:
  static constexpr std::size_t kLongest = 1 << 20;

  void Add(const Event& event) EXCLUDES(mutex_);
  void Drop(const std::string& uuid) EXCLUDES(mutex_);

  struct Span {
    uint64_t begin = 0;
    uint64_t end = 0;
    Time last;  // of the newest event
  };
  [[nodiscard]] Span Extent(const std::string& stream) EXCLUDES(mutex_);
  // From `position`, which must not lie before the stream's begin.
  [[nodiscard]] std::string Read(const std::string& stream, uint64_t position,
                                 std::size_t size) EXCLUDES(mutex_);

 private:
  struct Stream {
    std::string text;
    uint64_t begin = 0;
    Time last;
  };
  static void Append(Stream& stream, const std::string& line, Time time);

  Mutex mutex_;
  std::unordered_map<std::string, Stream> streams_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_EVENT_LOG_H_
