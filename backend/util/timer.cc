#include "backend/util/timer.h"

#include <algorithm>
#include <exception>

#include "backend/util/log.h"

namespace sbxfs {

Timer::Timer() : thread_([this] { Loop(); }) {}

void Timer::Stop() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

Timer::Id Timer::After(std::chrono::milliseconds delay,
                       std::function<void()> function) {
  MutexLock lock(mutex_);
  const Id id = next_++;
  if (stop_) return id;
  due_.emplace(std::pair(Clock::now() + delay, id), std::move(function));
  changed_.NotifyAll();
  return id;
}

void Timer::Cancel(Id id) {
  std::function<void()> dropped;  // freed outside the lock
  MutexLock lock(mutex_);
  auto entry = std::find_if(due_.begin(), due_.end(), [id](const auto& item) {
    return item.first.second == id;
  });
  if (entry == due_.end()) return;
  dropped = std::move(entry->second);
  due_.erase(entry);
}

void Timer::Loop() {
  for (;;) {
    std::function<void()> function;
    {
      MutexLock lock(mutex_);
      while (!stop_ &&
             (due_.empty() || due_.begin()->first.first > Clock::now())) {
        if (due_.empty()) {
          changed_.Wait(mutex_);
        } else {
          changed_.WaitUntil(mutex_, due_.begin()->first.first);
        }
      }
      if (stop_) return;
      function = std::move(due_.begin()->second);
      due_.erase(due_.begin());
    }
    try {
      function();
    } catch (const std::exception& error) {
      spdlog::error("A timer's function failed: {}", error.what());
    }
  }
}

}  // namespace sbxfs
