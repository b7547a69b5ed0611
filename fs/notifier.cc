#include "fs/notifier.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "backend/util/error.h"

namespace sbxfs {

Notifier::Notifier() : thread_([this] { Loop(); }) {}

Notifier::~Notifier() { Stop(); }

void Notifier::After(std::chrono::milliseconds delay,
                     std::function<void()> task) {
  MutexLock lock(mutex_);
  if (stopped_) return;
  tasks_.emplace(Clock::now() + delay, std::move(task));
  changed_.NotifyOne();
}

void Notifier::Stop() {
  std::multimap<Clock::time_point, std::function<void()>> dropped;
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    dropped.swap(tasks_);
    changed_.NotifyOne();
  }
  if (thread_.joinable()) thread_.join();
}

void Notifier::Loop() {
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      while (!stopped_ &&
             (tasks_.empty() || tasks_.begin()->first > Clock::now())) {
        if (tasks_.empty()) {
          changed_.Wait(mutex_);
        } else {
          changed_.WaitUntil(mutex_, tasks_.begin()->first);
        }
      }
      if (stopped_) return;
      task = std::move(tasks_.begin()->second);
      tasks_.erase(tasks_.begin());
    }
    try {
      task();
    } catch (...) {
      spdlog::error("{}", CurrentError().Sentence());
    }
  }
}

}  // namespace sbxfs
