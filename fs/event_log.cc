#include "fs/event_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace sbxfs {

std::string FormatTime(Time time) {
  using std::chrono::milliseconds;
  const auto since = std::chrono::floor<milliseconds>(time.time_since_epoch());
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  const std::time_t whole = seconds.count();
  std::tm parts{};
  gmtime_r(&whole, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
                     parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec,
                     (since - seconds).count());
}

std::string FormatEvent(const Event& event) {
  std::string line =
      fmt::format("{} {} {}", FormatTime(event.time),
                  event.name.empty() ? ".host" : event.name, event.what);
  if (!event.detail.empty()) line += ' ' + event.detail;
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line + '\n';
}

void EventLog::Append(Stream& stream, const std::string& line, Time time) {
  stream.text += line;
  stream.last = time;
  if (stream.text.size() <= kLongest) return;
  const auto cut = stream.text.find('\n', stream.text.size() / 2) + 1;
  stream.text.erase(0, cut);
  stream.begin += cut;
}

void EventLog::Add(const Event& event) {
  const std::string line = FormatEvent(event);
  MutexLock lock(mutex_);
  Append(streams_[""], line, event.time);
  if (!event.uuid.empty()) Append(streams_[event.uuid], line, event.time);
}

void EventLog::Drop(const std::string& uuid) {
  MutexLock lock(mutex_);
  streams_.erase(uuid);
}

EventLog::Span EventLog::Extent(const std::string& stream) {
  MutexLock lock(mutex_);
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return {};
  const Stream& one = found->second;
  return {one.begin, one.begin + one.text.size(), one.last};
}

std::string EventLog::Read(const std::string& stream, uint64_t position,
                           std::size_t size) {
  MutexLock lock(mutex_);
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return {};
  const Stream& one = found->second;
  const uint64_t from = std::max(position, one.begin) - one.begin;
  if (from >= one.text.size()) return {};
  return one.text.substr(from, size);
}

}  // namespace sbxfs
