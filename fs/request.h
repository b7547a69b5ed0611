#ifndef SBXFS_FS_REQUEST_H_
#define SBXFS_FS_REQUEST_H_

#include <fuse_lowlevel.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <variant>

#include "backend/backend.h"
#include "backend/util/mutex.h"
#include "backend/util/timer.h"

namespace sbxfs {

class Requests;

// One request of the kernel, answered exactly once, from any thread: the first
// answer counts. One that is dropped unanswered is answered EIO and logged.
class Request : public std::enable_shared_from_this<Request> {
 public:
  Request(Requests& requests, fuse_req_t raw);
  ~Request();
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  const Caller caller;
  // A daemon before this one had it, and may not have begun it.
  const bool left_over;

  // `send` gets the fuse_req_t and calls one of fuse_reply_*, unless the
  // request is answered already.
  template <typename F>
  void Answer(F&& send);
  void Fail(const Error& error);

  // Told of the failure that is sent. To be set before work begins.
  void OnFailure(std::function<void(const Error&)> failed) {
    failed_ = std::move(failed);
  }
  // Told 0 or the errno when it is answered. To be set before work begins.
  void OnEnd(std::function<void(int)> ended) { ended_ = std::move(ended); }
  // Held until the answer.
  void Hold(std::shared_ptr<void> held) { held_ = std::move(held); }
  // Lets a signal that would end the caller call `cancel`. To be called before
  // any other thread can answer.
  void Interruptible(std::function<void()> cancel);

 private:
  friend class Requests;
  bool Take();  // true for the one who may send
  void Sent();

  Requests& requests_;
  const fuse_req_t raw_;
  uint64_t id_ = 0;
  std::atomic<bool> answered_ = false;
  std::function<void(const Error&)> failed_;
  std::function<void(int)> ended_;
  std::shared_ptr<void> held_;
};
using RequestPtr = std::shared_ptr<Request>;

// All requests that are not answered yet: finds them when they are interrupted
// and when the mount ends. Shared by its requests, which may outlive a mount.
class Requests : public std::enable_shared_from_this<Requests> {
 public:
  explicit Requests(Timer& timer) : timer_(timer) {}

  [[nodiscard]] RequestPtr Begin(fuse_req_t raw) EXCLUDES(mutex_);
  // From libfuse's callback, which holds locks of libfuse.
  void Interrupted(uint64_t id);
  // Ends all waiting with EINTR and returns when no answer is being sent, so
  // that the session can be destroyed.
  void Close() EXCLUDES(mutex_);

 private:
  friend class Request;
  struct Entry {
    std::weak_ptr<Request> request;
    std::function<void()> cancel;
    pid_t tid = 0;
  };
  void Look(uint64_t id) EXCLUDES(mutex_);
  void SetCancel(uint64_t id, std::function<void()> cancel) EXCLUDES(mutex_);
  bool Take(uint64_t id) EXCLUDES(mutex_);
  void Sent() EXCLUDES(mutex_);

  Timer& timer_;
  Mutex mutex_;
  CondVar idle_;
  int sending_ GUARDED_BY(mutex_) = 0;
  uint64_t last_ GUARDED_BY(mutex_) = 0;
  std::unordered_map<uint64_t, Entry> live_ GUARDED_BY(mutex_);
};

template <typename F>
void Request::Answer(F&& send) {
  if (!Take()) return;
  if (ended_) ended_(0);
  std::forward<F>(send)(raw_);
  Sent();
}

// The one place where what a handler throws becomes an errno.
template <typename F>
void Run(const RequestPtr& request, F&& work) noexcept {
  try {
    std::forward<F>(work)();
  } catch (...) {
    request->Fail(CurrentError());
  }
}

// A reply whose value goes to `send(value)`, which answers `request`, and whose
// failure fails it.
template <typename T, typename F>
[[nodiscard]] Reply<T> ReplyFor(const RequestPtr& request, F send) {
  return Reply<T>([request, send = std::move(send)](Outcome<T> outcome) {
    if (const auto* error = std::get_if<Error>(&outcome)) {
      request->Fail(*error);
      return;
    }
    Run(request, [&] { send(std::move(std::get<T>(outcome))); });
  });
}

}  // namespace sbxfs

#endif  // SBXFS_FS_REQUEST_H_
