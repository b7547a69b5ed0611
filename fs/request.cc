#include "fs/request.h"

#include <spdlog/spdlog.h>

#include <cerrno>
#include <vector>

#include "fs/process.h"
#include "fs/server.h"

namespace sbxfs {
namespace {

Caller CallerOf(fuse_req_t raw) {
  const fuse_ctx* context = fuse_req_ctx(raw);
  return {context->uid, context->gid, context->pid, Channel::IsRepeated()};
}

// Gives libfuse's callback nothing that could be freed meanwhile: the number
// of the request, and the registry by way of the server.
void OnInterrupt(fuse_req_t raw, void* data) {
  // libfuse clears the data of a request that is being answered.
  if (data == nullptr) return;
  static_cast<Server*>(fuse_req_userdata(raw))
      ->requests->Interrupted(reinterpret_cast<uintptr_t>(data));
}

}  // namespace

Request::Request(Requests& requests, fuse_req_t raw)
    : caller(CallerOf(raw)),
      left_over(Channel::IsLeftOver()),
      requests_(requests),
      raw_(raw) {}

Request::~Request() {
  if (answered_) return;
  Fail(Error(EIO,
             "Cannot finish the request: it was dropped unanswered (an error "
             "in sbxfs; see the log)"));
}

bool Request::Take() {
  // The registry decides: a thread that is to answer and has not come to it yet
  // is none that Close could wait for.
  if (answered_ || !requests_.Take(id_)) return false;
  answered_ = true;
  held_.reset();
  return true;
}

void Request::Sent() { requests_.Sent(); }

void Request::Fail(const Error& error) {
  if (!Take()) return;
  if (failed_) failed_(error);
  int code = error.Errno();
  // Both would be taken for something else by the kernel or its users.
  if (code <= 0 || code == ENOSYS || code == ENOTCONN) code = EIO;
  if (ended_) ended_(code);
  if (code == EIO) {
    spdlog::error("{}", error.Sentence());
  } else {
    spdlog::debug("{} [{}]", error.Sentence(), code);
  }
  fuse_reply_err(raw_, code);
  Sent();
}

void Request::Interruptible(std::function<void()> cancel) {
  requests_.SetCancel(id_, std::move(cancel));
  fuse_req_interrupt_func(raw_, OnInterrupt, reinterpret_cast<void*>(id_));
  // The kernel may have told the daemon before, and does not tell again.
  if (left_over) requests_.Interrupted(id_);
}

RequestPtr Requests::Begin(fuse_req_t raw) {
  // The registry lives as long as its requests.
  auto request = std::shared_ptr<Request>(
      new Request(*this, raw),
      [self = shared_from_this()](Request* one) { delete one; });
  MutexLock lock(mutex_);
  request->id_ = ++last_;
  live_[request->id_] = {request, nullptr, request->caller.pid};
  return request;
}

void Requests::SetCancel(uint64_t id, std::function<void()> cancel) {
  MutexLock lock(mutex_);
  const auto found = live_.find(id);
  if (found != live_.end()) found->second.cancel = std::move(cancel);
}

bool Requests::Take(uint64_t id) {
  Entry freed;
  MutexLock lock(mutex_);
  const auto found = live_.find(id);
  if (found == live_.end()) return false;
  freed = std::move(found->second);
  live_.erase(found);
  ++sending_;
  return true;
}

void Requests::Sent() {
  MutexLock lock(mutex_);
  if (--sending_ == 0) idle_.NotifyAll();
}

void Requests::Interrupted(uint64_t id) {
  timer_.After({}, [self = shared_from_this(), id] { self->Look(id); });
}

void Requests::Look(uint64_t id) {
  std::function<void()> cancel;
  pid_t tid = 0;
  {
    MutexLock lock(mutex_);
    const auto found = live_.find(id);
    if (found == live_.end() || !found->second.cancel) return;
    cancel = found->second.cancel;
    tid = found->second.tid;
  }
  if (WantsOut(ReadProcess(tid))) {
    cancel();
    return;
  }
  // The kernel interrupts a request once; a signal that ends the caller may
  // come later.
  timer_.After(std::chrono::milliseconds(100),
               [self = shared_from_this(), id] { self->Look(id); });
}

void Requests::Close() {
  std::vector<Entry> left;
  {
    MutexLock lock(mutex_);
    for (auto& [id, entry] : live_) left.push_back(entry);
  }
  for (const Entry& entry : left) {
    if (entry.cancel) entry.cancel();
    if (const auto request = entry.request.lock()) {
      request->Fail(
          Error(EINTR, "Stopped waiting: the mount ends; the action goes on"));
    }
  }
  // One that is gone but not answered is being destroyed, which answers it.
  MutexLock lock(mutex_);
  while (sending_ > 0 || !live_.empty()) idle_.Wait(mutex_);
}

}  // namespace sbxfs
