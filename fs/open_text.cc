#include "fs/open_text.h"

#include <fcntl.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace sbxfs {
namespace {

std::string Part(const std::string& text, uint64_t offset, size_t size) {
  return offset >= text.size() ? std::string() : text.substr(offset, size);
}

// A value: the text of one moment. Read again from the start it is the text of
// a new one, which is what poll(2) asks its users to do.
class OpenValue : public OpenFile,
                  public std::enable_shared_from_this<OpenValue> {
 public:
  explicit OpenValue(std::shared_ptr<TextFile> file) : file_(std::move(file)) {}

  void Render(const Caller& caller) EXCLUDES(mutex_) {
    View view = file_->ViewFor(caller);
    std::string text = file_->row().show(view);
    std::string steady = Steady(view, text);
    MutexLock lock(mutex_);
    text_ = std::move(text);
    steady_ = std::move(steady);
    rendered_ = true;
  }

  void Read(const Caller& caller, uint64_t offset, size_t size,
            Reply<std::string> reply) override EXCLUDES(mutex_) {
    if (Stale(offset)) Render(caller);
    reply.Ok(Take(offset, size));
  }

  void Write(const Caller& caller, uint64_t, std::string bytes, int flags,
             Reply<Done> reply) override EXCLUDES(mutex_) {
    // The verdict is kept for a reader of this same open file.
    Reply<Done> told([self = shared_from_this(), reply](Outcome<Done> outcome) {
      const auto* error = std::get_if<Error>(&outcome);
      self->Judge(error);
      if (error == nullptr) {
        self->file_->tree().errors.Succeeded(self->file_->subject);
      }
      reply.Give(std::move(outcome));
    });
    reply.OnCancel(told.Canceller());
    told.Guard([&] {
      file_->Command(caller, bytes, (flags & O_NONBLOCK) == 0, told);
    });
  }

  bool Pollable() const override { return file_->row().poll; }

  bool Unread(const Caller& caller) override EXCLUDES(mutex_) {
    View view = file_->ViewFor(caller);
    const std::string now = Steady(view, file_->row().show(view));
    MutexLock lock(mutex_);
    return !seen_ || *seen_ != now;
  }

 private:
  std::string Steady(View& view, const std::string& text) const {
    if (!file_->row().poll) return {};
    view.steady = true;
    std::string steady = file_->row().show(view);
    view.steady = false;
    return steady == text ? text : steady;
  }

  bool Stale(uint64_t offset) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (verdict_) return false;
    return !rendered_ || (offset == 0 && seen_);
  }

  std::string Take(uint64_t offset, size_t size) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (verdict_) {
      // A failed write left the position where it was: begin there.
      if (!verdict_at_) verdict_at_ = offset;
      return offset < *verdict_at_
                 ? std::string()
                 : Part(*verdict_, offset - *verdict_at_, size);
    }
    seen_ = steady_;
    return Part(text_, offset, size);
  }

  void Judge(const Error* error) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    verdict_.reset();
    verdict_at_.reset();
    if (error != nullptr) verdict_ = error->Sentence() + '\n';
    rendered_ = false;
  }

  const std::shared_ptr<TextFile> file_;
  Mutex mutex_;
  bool rendered_ GUARDED_BY(mutex_) = false;
  std::string text_ GUARDED_BY(mutex_);
  std::string steady_ GUARDED_BY(mutex_);  // for comparison, if polled
  std::optional<std::string> seen_ GUARDED_BY(mutex_);
  std::optional<std::string> verdict_ GUARDED_BY(mutex_);
  std::optional<uint64_t> verdict_at_ GUARDED_BY(mutex_);
};

// An events file: begins where the log began at open, and grows.
class OpenEvents : public OpenFile {
 public:
  explicit OpenEvents(std::shared_ptr<TextFile> file)
      : file_(std::move(file)),
        base_(Log().Extent(file_->subject).begin),
        read_to_(base_) {}

  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override EXCLUDES(mutex_) {
    const auto span = Log().Extent(file_->subject);
    std::string text;
    {
      MutexLock lock(mutex_);
      base_ = std::max(base_, span.begin);
      const uint64_t from = base_ + offset;
      text = Log().Read(file_->subject, from, size);
      read_to_ = std::max(read_to_, from + text.size());
    }
    reply.Ok(std::move(text));
  }
  bool Pollable() const override { return true; }
  bool Unread(const Caller&) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return Log().Extent(file_->subject).end > read_to_;
  }

 private:
  EventLog& Log() { return file_->tree().events; }

  const std::shared_ptr<TextFile> file_;
  Mutex mutex_;
  uint64_t base_ GUARDED_BY(mutex_);
  uint64_t read_to_ GUARDED_BY(mutex_);
};

// The console: what there was at open, and when that is read up, what has come
// since, so that `tail -f` gets on.
class OpenConsole : public OpenFile {
 public:
  explicit OpenConsole(std::shared_ptr<TextFile> file)
      : file_(std::move(file)), text_(Now()) {}

  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override EXCLUDES(mutex_) {
    const auto now = Now();
    std::string part;
    {
      MutexLock lock(mutex_);
      if (now &&
          (!text_ || offset >= text_->size() || (offset == 0 && read_))) {
        text_ = now;
      }
      read_ = true;
      if (text_) part = Part(*text_, offset, size);
    }
    reply.Ok(std::move(part));
  }

 private:
  using Text = std::shared_ptr<const std::string>;
  Text Now() const {
    const auto sandbox = file_->tree().backend.Get(file_->subject);
    return sandbox ? sandbox->console : nullptr;
  }

  const std::shared_ptr<TextFile> file_;
  Mutex mutex_;
  bool read_ GUARDED_BY(mutex_) = false;
  Text text_ GUARDED_BY(mutex_);
};

}  // namespace

OpenFilePtr OpenRow(const std::shared_ptr<TextFile>& file, const Caller& caller,
                    int flags) {
  switch (file->row().form) {
    case Form::kLog:
      return std::make_shared<OpenEvents>(file);
    case Form::kConsole:
      return std::make_shared<OpenConsole>(file);
    default:
      break;
  }
  auto open = std::make_shared<OpenValue>(file);
  if ((flags & O_ACCMODE) != O_WRONLY) open->Render(caller);
  return open;
}

}  // namespace sbxfs
