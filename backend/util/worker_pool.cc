#include "backend/util/worker_pool.h"

#include <fmt/format.h>

#include <cerrno>
#include <exception>

#include "backend/util/error.h"
#include "backend/util/log.h"

namespace sbxfs {

void WorkerPool::Stop() {
  std::list<std::thread> threads;
  {
    MutexLock lock(mutex_);
    stop_ = true;
    threads.swap(threads_);
  }
  changed_.NotifyAll();
  for (auto& thread : threads) thread.join();
}

void WorkerPool::Run(std::function<void()> job) {
  MutexLock lock(mutex_);
  if (stop_) return;
  jobs_.push_back(std::move(job));
  if (idle_ >= jobs_.size() || threads_.size() >= most_) {
    changed_.NotifyOne();
    return;
  }
  threads_.emplace_back([this] { Loop(); });
}

void WorkerPool::Loop() {
  for (;;) {
    std::function<void()> job;
    {
      MutexLock lock(mutex_);
      ++idle_;
      while (jobs_.empty() && !stop_) changed_.Wait(mutex_);
      --idle_;
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    try {
      job();
    } catch (const std::exception& error) {
      spdlog::error("A worker's job failed: {}", error.what());
    }
    job = nullptr;  // what it owns may want to call, too
    if (after_job_ != nullptr) after_job_();
  }
}

Turns::Turn Turns::Take(const std::string& key, std::string_view what,
                        std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  MutexLock lock(mutex_);
  while (taken_.contains(key)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      throw Error(ETIMEDOUT,
                  fmt::format("Cannot {}: another operation on it has not "
                              "ended yet; try again",
                              what));
    }
    changed_.WaitUntil(mutex_, deadline);
  }
  taken_[key] = ++last_;
  return Turn(*this, key, last_);
}

void Turns::Forget() {
  {
    MutexLock lock(mutex_);
    taken_.clear();
  }
  changed_.NotifyAll();
}

void Turns::Give(const std::string& key, uint64_t number) {
  {
    MutexLock lock(mutex_);
    const auto found = taken_.find(key);
    if (found != taken_.end() && found->second == number) taken_.erase(found);
  }
  changed_.NotifyAll();
}

}  // namespace sbxfs
