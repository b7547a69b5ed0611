#include "fs/open_text.h"

#include <fcntl.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

// A log: the lines there were at open that the opener may see, and what comes.
class OpenLog : public OpenFile {
 public:
  OpenLog(std::shared_ptr<TextFile> file, const Caller& opener,
          bool continued = false)
      : continued_(continued),
        file_(std::move(file)),
        log_(LogOf(file_->ViewFor(opener), file_->row())),
        access_(opener) {}

  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override EXCLUDES(mutex_) {
    std::string part;
    {
      MutexLock lock(mutex_);
      if (continued_ && offset > begin_ + text_.size()) begin_ = offset;
      if (offset == 0 && read_to_ != 0) {  // a new moment
        next_ = begin_ = read_to_ = 0;
        text_.clear();
      }
      Pull();
      part =
          offset < begin_ ? std::string() : Part(text_, offset - begin_, size);
      read_to_ = std::max(read_to_, offset + part.size());
      Trim(offset);
    }
    reply.Ok(std::move(part));
  }
  bool Pollable() const override { return true; }
  // Never less than what was read, which `tail -f` would take for a new file.
  std::optional<uint64_t> Size() const override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!continued_) return std::nullopt;
    return begin_ + text_.size();
  }
  bool Unread(const Caller&) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    Pull();
    return begin_ + text_.size() > read_to_;
  }

 private:
  void Pull() REQUIRES(mutex_) {
    const auto part = log_->Since(next_);
    for (const auto& line : part.lines) {
      // Who got into a sandbox's directory may see what is in it.
      if (!file_->subject.empty() || access_.MaySee(file_->tree(), *line))
        text_ += line->text;
    }
    next_ = part.next;
  }

  // What lies far behind the reader is not kept for it.
  void Trim(uint64_t offset) REQUIRES(mutex_) {
    if (text_.size() < 4 * LineLog::kLongest) return;
    if (offset < begin_ + 2 * LineLog::kLongest) return;
    const uint64_t cut = offset - LineLog::kLongest - begin_;
    text_.erase(0, cut);
    begin_ += cut;
  }

  const bool continued_;  // another daemon had it up to where it is read
  const std::shared_ptr<TextFile> file_;
  const LineLogPtr log_;
  mutable Mutex mutex_;
  Access access_ GUARDED_BY(mutex_);
  uint64_t next_ GUARDED_BY(mutex_) = 0;   // the line to pull
  uint64_t begin_ GUARDED_BY(mutex_) = 0;  // the offset of text_
  std::string text_ GUARDED_BY(mutex_);
  uint64_t read_to_ GUARDED_BY(mutex_) = 0;
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

OpenFilePtr ContinueLog(const std::shared_ptr<TextFile>& file,
                        const Caller& caller) {
  return std::make_shared<OpenLog>(file, caller, true);
}

OpenFilePtr OpenRow(const std::shared_ptr<TextFile>& file, const Caller& caller,
                    int flags) {
  switch (file->row().form) {
    case Form::kLog:
      return std::make_shared<OpenLog>(file, caller);
    case Form::kConsole:
      return std::make_shared<OpenConsole>(file);
    default:
      break;
  }
  return OpenValueFile(file, caller, flags);
}

}  // namespace sbxfs
