#include "fs/certificate_file.h"

#include <fcntl.h>

#include <utility>

#include "backend/util/text.h"
#include "fs/audit.h"
#include "fs/store.h"

namespace sbxfs {
namespace {

class OpenCertificate : public OpenFile,
                        public std::enable_shared_from_this<OpenCertificate> {
 public:
  OpenCertificate(std::shared_ptr<CertificateFile> file, std::string text)
      : file_(std::move(file)), text_(std::move(text)), begin_(0) {}

  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override EXCLUDES(mutex_) {
    std::string part;
    {
      MutexLock lock(mutex_);
      // Behind what was written, wherever that ended.
      if (!begin_) begin_ = offset;
      if (offset >= *begin_) part = Part(text_, offset - *begin_, size);
    }
    reply.Ok(std::move(part));
  }

  void Write(const Caller& caller, uint64_t, std::string bytes, int flags,
             Reply<Done> reply) override EXCLUDES(mutex_) {
    const Reply<std::string> told(
        [self = shared_from_this(), reply](Outcome<std::string> outcome) {
          if (const auto* error = std::get_if<Error>(&outcome)) {
            self->Say(error->Sentence() + '\n');
            reply.Fail(*error);
            return;
          }
          self->Say(std::move(std::get<std::string>(outcome)));
          self->file_->tree().errors.Succeeded(self->file_->subject);
          reply.Ok();
        });
    reply.OnCancel(told.Canceller());
    told.Guard(
        [&] { file_->Take(caller, bytes, (flags & O_NONBLOCK) == 0, told); });
  }

  bool Commands() const override { return true; }
  bool MayRepeat(const std::string&) override { return true; }

 private:
  void Say(std::string text) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    text_ = std::move(text);
    begin_.reset();
  }

  const std::shared_ptr<CertificateFile> file_;
  Mutex mutex_;
  std::string text_ GUARDED_BY(mutex_);
  std::optional<uint64_t> begin_ GUARDED_BY(mutex_);  // the offset of text_
};

}  // namespace

void CertificateFile::Open(const Caller& caller, int flags,
                           Reply<OpenFilePtr> reply) {
  if ((flags & O_ACCMODE) != O_RDONLY) CheckWritable(ViewFor(caller), row());
  const auto open = [self = std::static_pointer_cast<CertificateFile>(
                         shared_from_this())](std::string text) -> OpenFilePtr {
    return std::make_shared<OpenCertificate>(self, std::move(text));
  };
  // Who writes wants one of another key.
  if ((flags & O_ACCMODE) == O_RDONLY) {
    Issue(caller, reply.Then<std::string>(open));
  } else {
    reply.Ok(open(""));
  }
}

void CertificateFile::Issue(const Caller& caller, Reply<std::string> reply) {
  tree().backend.Certify(
      caller, subject, "",
      reply.Then<Certificate>([tree = tree_, caller, uuid = subject,
                               path = PathOf(*tree_, *this)](Certificate made) {
        AuditDone(*tree, caller, {"certify", path, uuid, made.note});
        return std::move(made.text);
      }));
}

void CertificateFile::Take(const Caller& caller, const std::string& bytes,
                           bool wait, Reply<std::string> reply) {
  const View view = ViewFor(caller);
  CheckWritable(view, row());
  const std::string line(Trim(OneLine(row().name, bytes)));
  if (line == kRevoke) {
    Command(caller, bytes, wait,
            reply.Then<Done>([](Done) { return std::string(); }));
    return;
  }
  tree().backend.Certify(caller, subject, line,
                         reply.Then<Certificate>([](Certificate made) {
                           return std::move(made.text);
                         }));
}

}  // namespace sbxfs
