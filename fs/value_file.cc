#include "fs/value_file.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

// A value: the text of one moment. Read again from the start it is the text of
// a new one, which is what poll(2) asks its users to do.
class OpenValue : public OpenFile,
                  public std::enable_shared_from_this<OpenValue> {
 public:
  explicit OpenValue(std::shared_ptr<ValueFile> file)
      : file_(std::move(file)) {}

  void Render(const Caller& caller) EXCLUDES(mutex_) {
    View view = file_->ViewFor(caller);
    std::string text = file_->Show(view);
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

  void Release() override { file_->Released(); }

  bool Commands() const override { return true; }
  bool MayRepeat(const std::string& bytes) override {
    return file_->MayRepeat(bytes);
  }
  bool Pollable() const override { return file_->Polled(); }

  bool Unread(const Caller& caller) override EXCLUDES(mutex_) {
    View view = file_->ViewFor(caller);
    const std::string now = Steady(view, file_->Show(view));
    MutexLock lock(mutex_);
    return !seen_ || *seen_ != now;
  }

 private:
  std::string Steady(View& view, const std::string& text) const {
    if (!file_->Polled()) return {};
    view.steady = true;
    std::string steady = file_->Show(view);
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

  const std::shared_ptr<ValueFile> file_;
  Mutex mutex_;
  bool rendered_ GUARDED_BY(mutex_) = false;
  std::string text_ GUARDED_BY(mutex_);
  std::string steady_ GUARDED_BY(mutex_);  // for comparison, if polled
  std::optional<std::string> seen_ GUARDED_BY(mutex_);
  std::optional<std::string> verdict_ GUARDED_BY(mutex_);
  std::optional<uint64_t> verdict_at_ GUARDED_BY(mutex_);
};

}  // namespace

std::string OneLine(std::string_view noun, std::string_view bytes) {
  std::string_view line = bytes;
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.size() >= ValueFile::kLongestLine) {
    throw Error(E2BIG, fmt::format("Cannot write '{}': a line has less than "
                                   "{} bytes",
                                   noun, ValueFile::kLongestLine));
  }
  if (line.find('\n') != std::string_view::npos) {
    throw Error(EINVAL, fmt::format("Cannot write '{}': these are several "
                                    "lines, and a line is a command; write "
                                    "one at a time",
                                    noun));
  }
  for (const char c : line) {
    if (c != '\t' && c != '\r' && static_cast<unsigned char>(c) < ' ') {
      throw Error(EINVAL, fmt::format("Cannot write '{}': there is a control "
                                      "character in it; write plain text",
                                      noun));
    }
  }
  return std::string(line);
}

void CheckNotTrashed(const View& view, std::string_view noun) {
  if (view.sandbox && view.sandbox->trashed) {
    throw Error(EACCES, fmt::format("Cannot write '{}': sandbox '{}' is in the "
                                    "trash; mv it out first",
                                    noun, view.sandbox->name));
  }
}

void ValueFile::Open(const Caller& caller, int flags,
                     Reply<OpenFilePtr> reply) {
  reply.Ok(OpenValueFile(
      std::static_pointer_cast<ValueFile>(shared_from_this()), caller, flags));
}

OpenFilePtr OpenValueFile(const std::shared_ptr<ValueFile>& file,
                          const Caller& caller, int flags) {
  auto open = std::make_shared<OpenValue>(file);
  if ((flags & O_ACCMODE) != O_WRONLY) open->Render(caller);
  return open;
}

}  // namespace sbxfs
