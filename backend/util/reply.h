#ifndef SBXFS_BACKEND_UTIL_REPLY_H_
#define SBXFS_BACKEND_UTIL_REPLY_H_

#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "backend/util/error.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// What an operation without a value answers with.
struct Done {};

// The value an operation came to, or why it did not.
template <typename T>
using Outcome = std::variant<T, Error>;

// The promise of exactly one answer to an asker who may give up.
//
// Copies share the promise; any thread may answer, the first answer counts and
// later ones are dropped, so that a worker that finishes after its asker left
// needs no special case. When the last copy goes unanswered the asker is told
// EIO. The asker's function runs on the answering thread, with no lock held.
template <typename T>
class Reply {
 public:
  using Asker = std::function<void(Outcome<T>)>;

  // A reply nobody listens to.
  Reply() : Reply([](Outcome<T>) {}) {}
  explicit Reply(Asker asker)
      : state_(std::make_shared<State>(std::move(asker))) {}

  void Ok(T value) const { state_->Answer(Outcome<T>(std::move(value))); }
  void Ok() const requires std::is_same_v<T, Done> { Ok(Done{}); }
  void Fail(Error error) const { state_->Answer(Outcome<T>(std::move(error))); }
  void Give(Outcome<T> outcome) const { state_->Answer(std::move(outcome)); }

  // Whether an answer was given already (by a cancel, say).
  [[nodiscard]] bool Answered() const { return state_->Answered(); }

  // `gone` runs once, after the asker gave up, on the asker's thread; at once
  // when that has happened already. It replaces an earlier one.
  void OnCancel(std::function<void()> gone) const {
    state_->OnCancel(std::move(gone));
  }

  // For the asker: answers EINTR, then tells the worker through OnCancel.
  // Does nothing once answered. Does not keep the promise alive by itself.
  [[nodiscard]] std::function<void()> Canceller() const {
    return [weak = std::weak_ptr<State>(state_)] {
      if (auto state = weak.lock()) {
        state->GiveUp(
            Error(EINTR, "Stopped waiting: interrupted; the action goes on"));
      }
    };
  }

  // For the asker, who waits no longer (a time limit, say): answers `error`,
  // then tells the worker through OnCancel.
  void GiveUp(Error error) const { state_->GiveUp(std::move(error)); }

  // Runs `work` with the reply's errors taken care of: what it throws is the
  // answer. `work` answers success itself.
  template <typename F>
  void Guard(F&& work) const noexcept {
    try {
      std::forward<F>(work)();
    } catch (...) {
      Fail(CurrentError());
    }
  }

  // The same for `what`, as a person knows it: what failed in the machine below
  // is told as its failure.
  template <typename F>
  void Guard(const std::string& what, F&& work) const noexcept {
    Guard([&] {
      try {
        std::forward<F>(work)();
      } catch (...) {
        throw CurrentError().Of(what);
      }
    });
  }

  // A Reply<U> whose success is turned into ours by `convert` (which may
  // throw); its failure is ours, and our asker's giving up is its.
  template <typename U, typename F>
  [[nodiscard]] Reply<U> Then(F convert) const {
    Reply<U> inner([outer = *this,
                    convert = std::move(convert)](Outcome<U> outcome) mutable {
      if (auto* error = std::get_if<Error>(&outcome)) {
        outer.Fail(std::move(*error));
        return;
      }
      outer.Guard([&] { outer.Ok(convert(std::move(std::get<U>(outcome)))); });
    });
    OnCancel(inner.Canceller());
    return inner;
  }

 private:
  class State {
   public:
    explicit State(Asker asker) : asker_(std::move(asker)) {}
    ~State() {
      Answer(Outcome<T>(Error(EIO,
                              "Cannot finish the request: it was dropped "
                              "unanswered (an error in sbxfs; see the log)")));
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    void Answer(Outcome<T> outcome) EXCLUDES(mutex_) {
      Asker asker;
      std::function<void()> gone;  // freed outside the lock
      {
        MutexLock lock(mutex_);
        if (answered_) return;
        answered_ = true;
        asker = std::move(asker_);
        asker_ = nullptr;
        gone = std::move(gone_);
        gone_ = nullptr;
      }
      asker(std::move(outcome));
    }

    [[nodiscard]] bool Answered() EXCLUDES(mutex_) {
      MutexLock lock(mutex_);
      return answered_;
    }

    void OnCancel(std::function<void()> gone) EXCLUDES(mutex_) {
      {
        MutexLock lock(mutex_);
        if (!answered_) {
          gone_.swap(gone);
          return;
        }
        if (!cancelled_) return;
      }
      gone();
    }

    void GiveUp(Error error) EXCLUDES(mutex_) {
      Asker asker;
      std::function<void()> gone;
      {
        MutexLock lock(mutex_);
        if (answered_) return;
        answered_ = true;
        cancelled_ = true;
        asker = std::move(asker_);
        asker_ = nullptr;
        gone = std::move(gone_);
        gone_ = nullptr;
      }
      asker(Outcome<T>(std::move(error)));
      if (gone) gone();
    }

   private:
    Mutex mutex_;
    bool answered_ GUARDED_BY(mutex_) = false;
    bool cancelled_ GUARDED_BY(mutex_) = false;
    Asker asker_ GUARDED_BY(mutex_);
    std::function<void()> gone_ GUARDED_BY(mutex_);
  };

  std::shared_ptr<State> state_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_REPLY_H_
