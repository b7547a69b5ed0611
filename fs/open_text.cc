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
  return OpenValueFile(file, caller, flags);
}

}  // namespace sbxfs
