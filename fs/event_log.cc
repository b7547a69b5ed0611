#include "fs/event_log.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/util/utc.h"

namespace sbxfs {

std::string FormatTime(Time time) {
  using std::chrono::milliseconds;
  const auto since = std::chrono::floor<milliseconds>(time.time_since_epoch());
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  return fmt::format("{}.{:03}Z", FormatUtc(time), (since - seconds).count());
}

std::string FormatEvent(const Event& event) {
  std::string line =
      fmt::format("{} {} {}", FormatTime(event.time),
                  event.name.empty() ? ".host" : event.name, event.what);
  if (!event.detail.empty()) line += ' ' + event.detail;
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line + '\n';
}

void LineLog::Add(LogLinePtr line) {
  std::vector<LogLinePtr> gone;  // freed outside the lock
  MutexLock lock(mutex_);
  last_ = line->time;
  bytes_ += line->text.size();
  lines_.push_back(std::move(line));
  if (bytes_ <= kLongest) return;
  std::ptrdiff_t count = 0;
  while (bytes_ > kLongest / 2 &&
         count + 1 < static_cast<std::ptrdiff_t>(lines_.size())) {
    bytes_ -= lines_[static_cast<size_t>(count++)]->text.size();
  }
  gone.assign(lines_.begin(), lines_.begin() + count);
  lines_.erase(lines_.begin(), lines_.begin() + count);
  begin_ += static_cast<uint64_t>(count);
}

LineLog::Part LineLog::Since(uint64_t first) const {
  MutexLock lock(mutex_);
  const uint64_t skip =
      std::min<uint64_t>(first > begin_ ? first - begin_ : 0, lines_.size());
  return {{lines_.begin() + static_cast<std::ptrdiff_t>(skip), lines_.end()},
          begin_ + lines_.size()};
}

Time LineLog::Last() const {
  MutexLock lock(mutex_);
  return last_;
}

void EventLog::Add(const Event& event, const LogLine& rights) {
  LogLine line = rights;
  line.text = FormatEvent(event);
  line.time = event.time;
  const auto kept = std::make_shared<const LogLine>(std::move(line));
  if (!event.uuid.empty()) Stream(event.uuid)->Add(kept);
  Stream("")->Add(kept);
}

void EventLog::Drop(const std::string& uuid) {
  MutexLock lock(mutex_);
  streams_.erase(uuid);
}

LineLogPtr EventLog::Stream(const std::string& uuid) {
  MutexLock lock(mutex_);
  LineLogPtr& stream = streams_[uuid];
  if (!stream) stream = std::make_shared<LineLog>();
  return stream;
}

}  // namespace sbxfs
