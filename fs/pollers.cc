#include "fs/pollers.h"

#include <spdlog/spdlog.h>

#include <utility>
#include <vector>

namespace sbxfs {
namespace {

bool HasNews(OpenFile& open, const Caller& caller) {
  try {
    return open.Unread(caller);
  } catch (const Error&) {
    return true;  // gone, which is news too
  }
}

}  // namespace

void Pollers::Arm(uint64_t file, OpenFilePtr open, const Caller& caller,
                  PollHandle handle) {
  Armed armed{std::move(open), caller, std::move(handle)};
  MutexLock lock(mutex_);
  std::swap(armed_[file], armed);
}

void Pollers::Disarm(uint64_t file) {
  Armed freed;
  MutexLock lock(mutex_);
  const auto found = armed_.find(file);
  if (found == armed_.end()) return;
  freed = std::move(found->second);
  armed_.erase(found);
}

void Pollers::Wake() {
  if (posted_.exchange(true)) return;
  timer_.After({}, [this] { WakeNow(); });
}

void Pollers::WakeNow() {
  posted_ = false;
  std::vector<std::pair<uint64_t, Armed>> candidates;
  {
    MutexLock lock(mutex_);
    for (auto& [file, armed] : armed_) {
      candidates.emplace_back(file, std::move(armed));
    }
    armed_.clear();
  }
  std::vector<std::pair<uint64_t, Armed>> left;
  for (auto& [file, armed] : candidates) {
    if (HasNews(*armed.open, armed.caller)) {
      fuse_lowlevel_notify_poll(armed.handle.get());
    } else {
      left.emplace_back(file, std::move(armed));
    }
  }
  MutexLock lock(mutex_);
  // One that came meanwhile is newer.
  for (auto& [file, armed] : left) armed_.try_emplace(file, std::move(armed));
}

void Pollers::Clear() {
  std::map<uint64_t, Armed> freed;
  MutexLock lock(mutex_);
  freed.swap(armed_);
}

}  // namespace sbxfs
