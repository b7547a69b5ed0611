#include "fs/document.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <optional>

#include "fs/attributes.h"
#include "fs/process.h"
#include "fs/text_file.h"

namespace sbxfs {
namespace {

// close(2) cannot be interrupted, so it must not wait for ever.
constexpr std::chrono::seconds kFlushLimit{10};

void Overlay(std::string& text, uint64_t offset, const std::string& bytes) {
  if (offset + bytes.size() > DocumentFile::kLongest) {
    throw Error(E2BIG, fmt::format("Cannot write: a document has {} bytes at "
                                   "most",
                                   DocumentFile::kLongest));
  }
  if (text.size() < offset + bytes.size()) text.resize(offset + bytes.size());
  text.replace(offset, bytes.size(), bytes);
}

void Resize(std::string& text, uint64_t size) {
  if (size > DocumentFile::kLongest) {
    throw Error(E2BIG, fmt::format("Cannot truncate: a document has {} bytes "
                                   "at most",
                                   DocumentFile::kLongest));
  }
  text.resize(size);
}

class OpenDocument : public OpenFile,
                     public std::enable_shared_from_this<OpenDocument> {
 public:
  OpenDocument(std::shared_ptr<DocumentFile> file, const Caller& opener,
               int flags)
      : file_(std::move(file)),
        opener_(opener),
        process_(ReadProcess(opener.pid).tgid),
        pristine_((flags & O_TRUNC) == 0),
        staged_((flags & O_TRUNC) != 0 ? std::string() : file_->Text(opener)) {}

  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override EXCLUDES(mutex_) {
    std::string part;
    std::optional<std::string> seen;
    {
      MutexLock lock(mutex_);
      if (offset < staged_.size()) part = staged_.substr(offset, size);
      if (offset == 0 && pristine_) seen = staged_;
    }
    if (seen) file_->Seen(opener_, *seen);
    reply.Ok(std::move(part));
  }

  void Write(const Caller&, uint64_t offset, std::string bytes, int flags,
             Reply<Done> reply) override EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      const bool append = (flags & O_APPEND) != 0;
      Overlay(staged_, append ? staged_.size() : offset, bytes);
      written_ = dirty_ = true;
      pristine_ = false;
      verdict_.reset();
    }
    reply.Ok();
  }

  void Truncate(const Caller&, uint64_t size, Reply<Done> reply) override
      EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      const bool other = size != staged_.size();
      Resize(staged_, size);
      pristine_ = false;
      // By itself it changes nothing; after a write it is part of the text,
      // one that was stored or refused meanwhile, too.
      if (written_ && other) {
        dirty_ = true;
        verdict_.reset();
      }
    }
    reply.Ok();
  }

  void Flush(const Caller& caller, Reply<Done> reply) override
      EXCLUDES(mutex_) {
    const bool counts = Counts(caller);
    std::optional<std::string> text;
    std::optional<Error> verdict;
    {
      MutexLock lock(mutex_);
      verdict = verdict_;
      if (!verdict && dirty_ && counts) {
        text = staged_;
        dirty_ = false;
      }
    }
    if (verdict) {
      reply.Fail(std::move(*verdict));
    } else if (text) {
      Store(*text, std::move(reply));
    } else {
      reply.Ok();
    }
  }

  std::optional<uint64_t> Staged(const Caller& caller) override
      EXCLUDES(mutex_) {
    const bool counts = Counts(caller);
    MutexLock lock(mutex_);
    if (verdict_ || !dirty_ || !counts) return std::nullopt;
    return staged_.size();
  }

  void Release() override EXCLUDES(mutex_) {
    bool lost = false;
    {
      MutexLock lock(mutex_);
      lost = dirty_;
    }
    if (lost) {
      file_->tree().errors.Failed(
          file_->subject, opener_.uid,
          fmt::format("Cannot store '{}': the process that opened it was "
                      "killed, or closed it before it was written; write it "
                      "again",
                      file_->name));
    }
    file_->Released();
  }

  std::optional<uint64_t> Size() const override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return staged_.size();
  }

  std::string HalfWritten() override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return pristine_ || (stored_ && !dirty_) ? std::string() : file_->name;
  }

 private:
  bool Counts(const Caller& caller) const {
    return ReadProcess(caller.pid).tgid == process_ && !IsKilled(caller.pid);
  }

  void Store(const std::string& text, Reply<Done> reply) {
    Reply<Done> told([self = shared_from_this(), reply](Outcome<Done> outcome) {
      const auto* error = std::get_if<Error>(&outcome);
      if (error != nullptr) self->Judge(*error);
      if (error == nullptr) {
        self->Stored();
        self->file_->tree().errors.Succeeded(self->file_->subject);
      }
      reply.Give(std::move(outcome));
    });
    file_->tree().Within(
        kFlushLimit, told,
        Error(ETIMEDOUT, fmt::format("Cannot store '{}': the hypervisor did "
                                     "not answer; try again",
                                     file_->name)));
    // The opener wrote it, whoever closes it.
    told.Guard([&] { file_->StoreWhole(opener_, text, told); });
  }

  void Stored() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    stored_ = true;
  }

  // emacs and dd ignore what fsync says: it is said again at each flush.
  void Judge(const Error& error) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    verdict_ = error;
  }

  const std::shared_ptr<DocumentFile> file_;
  const Caller opener_;
  const pid_t process_;
  mutable Mutex mutex_;
  bool pristine_ GUARDED_BY(mutex_);  // staged_ is what it was at open
  std::string staged_ GUARDED_BY(mutex_);
  bool written_ GUARDED_BY(mutex_) = false;  // at any time
  bool dirty_ GUARDED_BY(mutex_) = false;    // since it was stored
  bool stored_ GUARDED_BY(mutex_) = false;
  std::optional<Error> verdict_ GUARDED_BY(mutex_);
};

class OpenScratch : public OpenFile {
 public:
  explicit OpenScratch(std::shared_ptr<ScratchFile> file)
      : file_(std::move(file)) {}

  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override {
    const std::string text = file_->Text();
    reply.Ok(offset < text.size() ? text.substr(offset, size) : std::string());
  }
  void Write(const Caller&, uint64_t offset, std::string bytes, int flags,
             Reply<Done> reply) override {
    file_->Write(offset, bytes, (flags & O_APPEND) != 0);
    reply.Ok();
  }
  void Truncate(const Caller&, uint64_t size, Reply<Done> reply) override {
    file_->Truncate(size);
    reply.Ok();
  }

 private:
  const std::shared_ptr<ScratchFile> file_;
};

std::string NextScratchKey() {
  // No other daemon of this mount shall have had it.
  static std::atomic<uint64_t> last{0};
  return fmt::format("scratch:{}:{}", StartOf(getpid()), ++last);
}

}  // namespace

void DocumentFile::Open(const Caller& caller, int flags,
                        Reply<OpenFilePtr> reply) {
  if ((flags & O_ACCMODE) != O_RDONLY) CheckWrite(caller);
  // Read-only opens ignore O_TRUNC, which POSIX leaves undefined for them.
  if ((flags & O_ACCMODE) == O_RDONLY) flags &= ~O_TRUNC;
  reply.Ok(std::make_shared<OpenDocument>(
      std::static_pointer_cast<DocumentFile>(shared_from_this()), caller,
      flags));
}

void DocumentFile::Reopen(const Caller& caller, int flags, bool whole,
                          Reply<OpenFilePtr> reply) {
  if (whole || (flags & O_ACCMODE) == O_RDONLY) {
    File::Reopen(caller, flags, whole, std::move(reply));
  } else {
    reply.Ok(std::make_shared<LostFile>(name));
  }
}

RowDocument::RowDocument(TreePtr tree, const Row& row, const std::string& uuid)
    : RowDocument(tree, row, RowKey(*tree, row, uuid), uuid) {}

struct stat RowDocument::Stat(const Caller& reader) {
  const View view = ViewFor(reader);
  return RowStat(view, row_, row_.show(view).size());
}

std::string RowDocument::Text(const Caller& reader) {
  return row_.show(ViewFor(reader));
}

void RowDocument::StoreWhole(const Caller& caller, const std::string& text,
                             Reply<Done> reply) {
  const View view = ViewFor(caller);
  CheckWritable(view, row_);
  const std::string now = row_.show(view);
  if (tree_->readings.Outdated(key, caller.pid, now)) {
    throw Error(ESTALE,
                fmt::format("Cannot store '{}': somebody else changed it since "
                            "this program read it; read it again, put your "
                            "changes in and save",
                            row_.name));
  }
  // vim puts the old text back after a refusal; the refused one stays known.
  if (text == now && view.sandbox && !view.sandbox->rejected.empty() &&
      tree_->rejections.Has(key, caller.pid)) {
    reply.Ok();
    return;
  }
  Reply<Done> told(
      [self = std::static_pointer_cast<RowDocument>(shared_from_this()), caller,
       reply](Outcome<Done> outcome) {
        if (std::holds_alternative<Error>(outcome)) {
          self->tree_->rejections.Set(self->key, caller.pid);
        } else {
          self->tree_->rejections.Clear(self->key, caller.pid);
          reply.Guard([&] { self->Seen(caller, self->Text(caller)); });
        }
        reply.Give(std::move(outcome));
      });
  reply.OnCancel(told.Canceller());
  told.Guard([&] {
    row_.store({*tree_, caller, view.sandbox, text, true,
                view.network != nullptr ? view.network->name : ""},
               told);
  });
}

void RowDocument::Seen(const Caller& reader, const std::string& text) {
  tree_->readings.Saw(key, reader.pid, text);
}

// chmod and chown are what editors and cp -p do to what they wrote.
void RowDocument::Change(const Caller& caller, const Changes& changes,
                         Reply<Done> reply) {
  const View view = ViewFor(caller);
  if (!view.sandbox) {
    reply.Ok();
    return;
  }
  ChangeRow(view, row_, Stat(caller), changes, true, std::move(reply));
}

void RowDocument::CheckWrite(const Caller& caller) {
  CheckWritable(ViewFor(caller), row_);
}

ScratchFile::ScratchFile(const Caller& owner, std::string subject,
                         std::string text)
    : File(NextScratchKey(), std::move(subject)),
      uid_(owner.uid),
      gid_(owner.gid),
      modified_(std::chrono::system_clock::now()),
      text_(std::move(text)) {}

struct stat ScratchFile::Stat(const Caller&) {
  MutexLock lock(mutex_);
  struct stat stat {};
  stat.st_mode = S_IFREG | mode_;
  stat.st_nlink = 1;
  stat.st_uid = uid_;
  stat.st_gid = gid_;
  stat.st_blksize = 4096;
  SetSize(stat, text_.size());
  SetTime(stat, modified_);
  return stat;
}

void ScratchFile::Change(const Caller&, const Changes& changes,
                         Reply<Done> reply) {
  {
    MutexLock lock(mutex_);
    if (changes.mode) mode_ = *changes.mode & 0777;
    if (changes.uid) uid_ = *changes.uid;
    if (changes.gid) gid_ = *changes.gid;
  }
  reply.Ok();
}

void ScratchFile::Open(const Caller&, int flags, Reply<OpenFilePtr> reply) {
  if ((flags & O_TRUNC) != 0 && (flags & O_ACCMODE) != O_RDONLY) Truncate(0);
  reply.Ok(std::make_shared<OpenScratch>(
      std::static_pointer_cast<ScratchFile>(shared_from_this())));
}

std::string ScratchFile::Text() {
  MutexLock lock(mutex_);
  return text_;
}

void ScratchFile::Write(uint64_t offset, const std::string& bytes,
                        bool append) {
  MutexLock lock(mutex_);
  Overlay(text_, append ? text_.size() : offset, bytes);
  modified_ = std::chrono::system_clock::now();
}

void ScratchFile::Truncate(uint64_t size) {
  MutexLock lock(mutex_);
  Resize(text_, size);
  modified_ = std::chrono::system_clock::now();
}

}  // namespace sbxfs
