#include "fs/job_file.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "fs/attributes.h"
#include "fs/document.h"
#include "fs/job_text.h"
#include "fs/text_file.h"
#include "fs/value_file.h"

namespace sbxfs {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kJobFresh{1000};
constexpr milliseconds kJobPause{200};
constexpr milliseconds kEnding{1500};

std::string KeyOf(const Job& job, std::string_view file) {
  return fmt::format("{}/exec/{}/{}", job.uuid, job.id, file);
}

std::string PlaceOf(const Job& job, std::string_view file) {
  return fmt::format("{}/exec/{}/{}", job.uuid, job.name, file);
}

struct stat JobStat(const View& view, const Row& row, uint64_t size) {
  struct stat stat = RowStat(view, row, size);
  SetTime(stat, view.job->changed);
  return stat;
}

[[noreturn]] void RefuseRights(std::string_view name) {
  throw Error(EPERM, fmt::format("Cannot change owner or mode of '{}': a job "
                                 "is its sandbox's owner's alone",
                                 name));
}

// A file of a job that holds a value.
class JobValue : public ValueFile {
 public:
  JobValue(TreePtr tree, const Row& row, const Job& job)
      : ValueFile(std::move(tree), KeyOf(job, row.name), job.uuid),
        row_(row),
        id_(job.id),
        place_(PlaceOf(job, row.name)) {}

  std::string Place() const override { return place_; }
  bool Hidden() const override { return row_.name == "env"; }
  bool Polled() const override { return row_.poll; }

  struct stat Stat(const Caller& reader) override {
    const View view = JobView(*tree_, reader, subject, id_);
    return JobStat(view, row_, row_.show(view).size());
  }
  void Change(const Caller&, const Changes& changes,
              Reply<Done> reply) override {
    if (changes != Changes()) RefuseRights(row_.name);
    reply.Ok();
  }
  std::string Show(const View& view) override {
    return row_.show(JobView(*tree_, view.reader, subject, id_));
  }
  void Open(const Caller& caller, int flags,
            Reply<OpenFilePtr> reply) override {
    const View view = JobView(*tree_, caller, subject, id_);
    if ((flags & O_ACCMODE) != O_RDONLY) CheckWritable(view, row_);
    ValueFile::Open(caller, flags, std::move(reply));
  }
  // A job runs once: one that was run is waited for.
  void Command(const Caller& caller, const std::string& bytes, bool wait,
               Reply<Done> reply) override {
    const View view = JobView(*tree_, caller, subject, id_);
    if (caller.repeated && view.job->state != JobState::kNew) {
      tree_->backend.GetJobs().Await(id_, std::move(reply));
      return;
    }
    CheckWritable(view, row_);
    row_.store({*tree_, caller, view.sandbox, bytes, wait, "", view.job},
               std::move(reply));
  }

 private:
  const Row& row_;
  const std::string id_;
  const std::string place_;
};

// stdin, which is taken whole.
class JobDocument : public DocumentFile {
 public:
  JobDocument(TreePtr tree, const Row& row, const Job& job)
      : DocumentFile(std::move(tree), KeyOf(job, row.name), job.uuid,
                     std::string(row.name)),
        row_(row),
        id_(job.id),
        place_(PlaceOf(job, row.name)) {}

  std::string Place() const override { return place_; }
  bool Hidden() const override { return true; }
  struct stat Stat(const Caller& reader) override {
    const View view = JobView(*tree_, reader, subject, id_);
    return JobStat(view, row_, row_.show(view).size());
  }
  std::string Text(const Caller& reader) override {
    return row_.show(JobView(*tree_, reader, subject, id_));
  }
  void CheckWrite(const Caller& caller) override {
    CheckWritable(JobView(*tree_, caller, subject, id_), row_);
  }
  void StoreWhole(const Caller& caller, const std::string& text,
                  Reply<Done> reply) override {
    const View view = JobView(*tree_, caller, subject, id_);
    row_.store({*tree_, caller, view.sandbox, text, true, "", view.job},
               std::move(reply));
  }
  void Change(const Caller&, const Changes& changes,
              Reply<Done> reply) override {
    if (changes != Changes()) RefuseRights(name);
    reply.Ok();
  }

 private:
  const Row& row_;
  const std::string id_;
  const std::string place_;
};

// Reads a stream of a job while it grows; what lies beyond the backend's memory
// comes in stretches, of which the last is kept.
class StreamReader : public std::enable_shared_from_this<StreamReader> {
 public:
  StreamReader(TreePtr tree, std::string id, JobStream stream)
      : tree_(std::move(tree)), id_(std::move(id)), stream_(stream) {}

  [[nodiscard]] JobPtr Now() const { return tree_->backend.GetJobs().Get(id_); }
  [[nodiscard]] uint64_t SizeOf(const Job& job) const {
    return stream_ == JobStream::kOut ? job.out.size : job.err.size;
  }

  void Read(uint64_t offset, size_t size, const Reply<std::string>& reply)
      EXCLUDES(mutex_) {
    const JobPtr job = Now();
    if (!job) throw Error(ENOENT, "Cannot read on: the job is gone");
    if (offset < SizeOf(*job) || job->state != JobState::kRunning ||
        !tree_->Due(id_, kJobPause)) {
      Take(offset, size, reply);
      return;
    }
    Reply<Done> fresh(
        [self = shared_from_this(), offset, size, reply](Outcome<Done>) {
          reply.Guard([&] { self->Take(offset, size, reply); });
        });
    tree_->After(kJobFresh, [fresh] { fresh.Ok(); });
    tree_->backend.GetJobs().Refresh(id_, fresh);
  }

  [[nodiscard]] bool Unread() EXCLUDES(mutex_) {
    const JobPtr job = Now();
    if (!job) return true;
    {
      MutexLock lock(mutex_);
      if (SizeOf(*job) > read_to_) return true;
      if (job->state != JobState::kRunning) {
        return job->state != JobState::kNew;
      }
      if (watch_) return false;
    }
    auto watch = tree_->backend.GetJobs().Watch(id_);
    MutexLock lock(mutex_);
    watch_.swap(watch);
    return false;
  }

 private:
  void Take(uint64_t offset, size_t size, const Reply<std::string>& reply)
      EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (offset >= begin_ && offset < begin_ + stretch_.size()) {
        std::string part = stretch_.substr(offset - begin_, size);
        read_to_ = std::max(read_to_, offset + part.size());
        reply.Ok(std::move(part));
        return;
      }
    }
    tree_->backend.GetJobs().Read(
        id_, stream_, offset,
        reply.Then<std::string>(
            [self = shared_from_this(), offset, size](std::string bytes) {
              std::string part = bytes.substr(0, size);
              MutexLock lock(self->mutex_);
              self->read_to_ = std::max(self->read_to_, offset + part.size());
              self->begin_ = offset;
              self->stretch_ = std::move(bytes);
              return part;
            }));
  }

  const TreePtr tree_;
  const std::string id_;
  const JobStream stream_;
  Mutex mutex_;
  uint64_t read_to_ GUARDED_BY(mutex_) = 0;
  uint64_t begin_ GUARDED_BY(mutex_) = 0;
  std::string stretch_ GUARDED_BY(mutex_);
  std::shared_ptr<void> watch_ GUARDED_BY(mutex_);
};

class OpenStream : public OpenFile {
 public:
  OpenStream(const TreePtr& tree, const std::string& id, JobStream stream)
      : reader_(std::make_shared<StreamReader>(tree, id, stream)) {}

  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override {
    reader_->Read(offset, size, reply);
  }
  bool Pollable() const override { return true; }
  bool Unread(const Caller&) override { return reader_->Unread(); }

 private:
  const std::shared_ptr<StreamReader> reader_;
};

// stdout, stderr.
class StreamFile : public File {
 public:
  StreamFile(TreePtr tree, const Row& row, const Job& job)
      : File(KeyOf(job, row.name), job.uuid),
        tree_(std::move(tree)),
        row_(row),
        id_(job.id),
        place_(PlaceOf(job, row.name)) {}

  std::string Place() const override { return place_; }
  struct stat Stat(const Caller& reader) override {
    const View view = JobView(*tree_, reader, subject, id_);
    const JobOutput& output =
        Stream() == JobStream::kOut ? view.job->out : view.job->err;
    return JobStat(view, row_, output.size);
  }
  void FreshStat(const Caller& reader, Reply<struct stat> reply) override {
    const View view = JobView(*tree_, reader, subject, id_);
    if (view.job->state != JobState::kRunning || !tree_->Due(id_, kJobPause)) {
      reply.Ok(Stat(reader));
      return;
    }
    const auto self = std::static_pointer_cast<StreamFile>(shared_from_this());
    Reply<Done> fresh([self, reader, reply](Outcome<Done>) {
      reply.Guard([&] { reply.Ok(self->Stat(reader)); });
    });
    tree_->After(kJobFresh, [fresh] { fresh.Ok(); });
    tree_->backend.GetJobs().Refresh(id_, fresh);
  }
  void Change(const Caller&, const Changes& changes,
              Reply<Done> reply) override {
    if (changes != Changes()) RefuseRights(row_.name);
    reply.Ok();
  }
  void Open(const Caller& caller, int flags,
            Reply<OpenFilePtr> reply) override {
    const View view = JobView(*tree_, caller, subject, id_);
    if ((flags & O_ACCMODE) != O_RDONLY) CheckWritable(view, row_);
    reply.Ok(std::make_shared<OpenStream>(tree_, id_, Stream()));
  }

 private:
  [[nodiscard]] JobStream Stream() const {
    return row_.name == "stdout" ? JobStream::kOut : JobStream::kErr;
  }

  const TreePtr tree_;
  const Row& row_;
  const std::string id_;
  const std::string place_;
};

// An open exec/new.
class OpenNewJob : public OpenFile,
                   public std::enable_shared_from_this<OpenNewJob> {
 public:
  OpenNewJob(TreePtr tree, const std::string& uuid)
      : tree_(std::move(tree)),
        job_(tree_->backend.GetJobs().Make(uuid, "")),
        reader_(
            std::make_shared<StreamReader>(tree_, job_->id, JobStream::kOut)) {
    tree_->backend.GetJobs().Prepare(
        job_->id, [](JobWish& wish) { wish.together = true; });
  }

  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (verdict_) {
        // A failed write left the position where it was.
        if (!begin_) begin_ = offset;
        const uint64_t at = offset < *begin_ ? 0 : offset - *begin_;
        reply.Ok(at < verdict_->size() ? verdict_->substr(at, size) : "");
        return;
      }
      // The output begins where the command ended.
      if (!begin_ || offset < *begin_) begin_ = written_ ? offset : 0;
      offset -= *begin_;
    }
    reader_->Read(offset, size, reply);
  }
  void Write(const Caller& caller, uint64_t, std::string bytes, int flags,
             Reply<Done> reply) override EXCLUDES(mutex_) {
    const View view = JobView(*tree_, caller, job_->uuid, job_->id);
    Reply<Done> told([self = shared_from_this(), reply](Outcome<Done> outcome) {
      self->Judge(std::get_if<Error>(&outcome));
      reply.Give(std::move(outcome));
    });
    reply.OnCancel(told.Canceller());
    told.Guard([&] {
      store::JobCommand({*tree_, caller, view.sandbox, std::move(bytes),
                         (flags & O_NONBLOCK) == 0, "", view.job},
                        told);
    });
  }
  bool Commands() const override { return true; }
  bool Pollable() const override { return true; }
  bool Unread(const Caller&) override { return reader_->Unread(); }
  void Release() override { EndJob(tree_, job_, Reply<Done>()); }
  std::string HalfWritten() override { return "exec/new"; }

 private:
  void Judge(const Error* error) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    begin_.reset();
    verdict_.reset();
    if (error != nullptr && error->Errno() != EINTR) {
      verdict_ = error->Sentence() + '\n';
    } else {
      written_ = true;
    }
  }

  const TreePtr tree_;
  const JobPtr job_;
  const std::shared_ptr<StreamReader> reader_;
  Mutex mutex_;
  bool written_ GUARDED_BY(mutex_) = false;
  std::optional<uint64_t> begin_ GUARDED_BY(mutex_);
  std::optional<std::string> verdict_ GUARDED_BY(mutex_);
};

// An exec/new that nobody can write to: it reads as nothing, and runs nothing.
class OpenNothing : public OpenFile {
 public:
  void Read(const Caller&, uint64_t, size_t,
            Reply<std::string> reply) override {
    reply.Ok("");
  }
};

class NewFile : public File {
 public:
  NewFile(TreePtr tree, const std::string& uuid)
      : File(uuid + "/exec/new", uuid), tree_(std::move(tree)) {}

  struct stat Stat(const Caller& reader) override {
    const View view = tree_->ViewFor(reader, subject);
    struct stat stat = RowStat(view, *FindRow(DirKind::kSandbox, "exec"), 0);
    stat.st_mode = S_IFREG | (view.sandbox->trashed ? 0400 : 0600);
    stat.st_nlink = 1;
    return stat;
  }
  void Change(const Caller&, const Changes& changes,
              Reply<Done> reply) override {
    if (changes != Changes()) RefuseRights("new");
    reply.Ok();
  }
  void Open(const Caller& caller, int flags,
            Reply<OpenFilePtr> reply) override {
    if ((flags & O_ACCMODE) == O_RDONLY) {
      reply.Ok(std::make_shared<OpenNothing>());
      return;
    }
    CheckNotTrashed(tree_->ViewFor(caller, subject), "new");
    reply.Ok(std::make_shared<OpenNewJob>(tree_, subject));
  }
  void Reopen(const Caller& caller, int flags, bool,
              Reply<OpenFilePtr> reply) override {
    if ((flags & O_ACCMODE) == O_RDONLY) {
      Open(caller, flags, std::move(reply));
    } else {
      reply.Ok(std::make_shared<LostFile>("exec/new"));
    }
  }

 private:
  const TreePtr tree_;
};

}  // namespace

View JobView(Tree& tree, const Caller& reader, const std::string& uuid,
             const std::string& id) {
  View view = tree.ViewFor(reader, uuid);
  view.job = tree.backend.GetJobs().Get(id);
  if (!view.job) throw Error(ENOENT, "Cannot go on: the job is gone");
  return view;
}

std::shared_ptr<File> JobFile(const TreePtr& tree, const Row& row,
                              const JobPtr& job) {
  switch (row.form) {
    case Form::kConsole:
      return std::make_shared<StreamFile>(tree, row, *job);
    case Form::kDocument:
      return std::make_shared<JobDocument>(tree, row, *job);
    default:
      return std::make_shared<JobValue>(tree, row, *job);
  }
}

std::shared_ptr<File> NewJobFile(const TreePtr& tree, const std::string& uuid) {
  return std::make_shared<NewFile>(tree, uuid);
}

void EndJob(const TreePtr& tree, const JobPtr& job, Reply<Done> reply) {
  const Reply<Done> ended([reply](Outcome<Done>) { reply.Ok(); });
  tree->After(kEnding, [ended] { ended.Ok(); });
  ended.Guard([&] { tree->backend.GetJobs().Remove(job->id, ended); });
  tree->Retire(KeyOf(*job, ""));
}

}  // namespace sbxfs
