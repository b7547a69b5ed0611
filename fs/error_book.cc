#include "fs/error_book.h"

#include <fmt/format.h>

#include "fs/event_log.h"

namespace sbxfs {

void ErrorBook::Failed(const std::string& uuid, uid_t uid,
                       const std::string& sentence) {
  MutexLock lock(mutex_);
  if (!uuid.empty()) {
    sandboxes_[uuid] = sentence;
    return;
  }
  auto& lines = callers_[uid];
  lines.push_front(fmt::format(
      "{} {}\n", FormatTime(std::chrono::system_clock::now()), sentence));
  if (lines.size() > kKept) lines.pop_back();
}

void ErrorBook::Succeeded(const std::string& uuid) {
  MutexLock lock(mutex_);
  sandboxes_.erase(uuid);
}

std::string ErrorBook::OfSandbox(const std::string& uuid) {
  MutexLock lock(mutex_);
  const auto found = sandboxes_.find(uuid);
  return found == sandboxes_.end() ? std::string() : found->second;
}

std::string ErrorBook::OfCaller(uid_t uid) {
  MutexLock lock(mutex_);
  std::string text;
  const auto found = callers_.find(uid);
  if (found == callers_.end()) return text;
  for (const auto& line : found->second) text += line;
  return text;
}

}  // namespace sbxfs
