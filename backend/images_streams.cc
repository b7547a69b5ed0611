// Images as files: read and written by workers, so that no caller waits.
#include <algorithm>
#include <cerrno>
#include <deque>
#include <functional>
#include <utility>

#include "backend/images_incoming.h"

namespace sbxfs {

// One job at a time, in order, on the workers: a stream takes its bytes so.
class Images::Writer : public ImageWriter,
                       public std::enable_shared_from_this<Images::Writer> {
 public:
  Writer(Core& core, std::unique_ptr<Incoming> incoming)
      : core_(core), incoming_(std::move(incoming)) {}
  ~Writer() override {
    // Deleting volumes blocks, and we may be on a FUSE thread.
    core_.workers.Run([incoming = std::shared_ptr<Incoming>(std::move(
                           incoming_))]() mutable { incoming.reset(); });
  }

  void Write(uint64_t offset, std::string bytes, Reply<Done> reply) override {
    const uint64_t end = offset + bytes.size();
    Queue(std::move(reply), [this, offset, end, bytes = std::move(bytes)] {
      incoming_->Write(offset, bytes);
      MutexLock lock(mutex_);
      written_ = end;
    });
  }
  void Truncate(uint64_t size, Reply<Done> reply) override {
    Queue(std::move(reply), [this, size] {
      incoming_->Fill(size);
      MutexLock lock(mutex_);
      written_ = std::max(written_, size);
    });
  }
  void Finish(Reply<Done> reply) override {
    Queue(std::move(reply), [this] { incoming_->Finish(); });
  }
  uint64_t Written() const override {
    MutexLock lock(mutex_);
    return written_;
  }

 private:
  void Queue(Reply<Done> reply, std::function<void()> job) EXCLUDES(mutex_) {
    bool idle = false;
    {
      MutexLock lock(mutex_);
      idle = jobs_.empty();
      jobs_.emplace_back(std::move(reply), std::move(job));
    }
    if (idle) {
      core_.workers.Run([self = shared_from_this()] { self->Work(); });
    }
  }
  void Work() EXCLUDES(mutex_) {
    for (;;) {
      std::pair<Reply<Done>, std::function<void()>>* next = nullptr;
      {
        MutexLock lock(mutex_);
        next = &jobs_.front();  // stays in front, so that nobody starts a twin
      }
      next->first.Guard([next] {
        next->second();
        next->first.Ok();
      });
      MutexLock lock(mutex_);
      jobs_.pop_front();
      if (jobs_.empty()) return;
    }
  }

  Core& core_;
  std::unique_ptr<Incoming> incoming_;
  mutable Mutex mutex_;
  uint64_t written_ GUARDED_BY(mutex_) = 0;
  std::deque<std::pair<Reply<Done>, std::function<void()>>> jobs_
      GUARDED_BY(mutex_);
};

class Images::Reader : public ImageReader,
                       public std::enable_shared_from_this<Images::Reader> {
 public:
  Reader(Core& core, std::string volume)
      : core_(core), volume_(std::move(volume)) {}

  void Read(uint64_t offset, size_t size, Reply<std::string> reply) override {
    core_.workers.Run([self = shared_from_this(), offset, size, reply] {
      reply.Guard([&] { reply.Ok(self->ReadNow(offset, size)); });
    });
  }

 private:
  // Reads ahead: a stream costs more to open than a megabyte to send.
  std::string ReadNow(uint64_t offset, size_t size) EXCLUDES(mutex_) {
    constexpr size_t kAhead = 8 << 20;
    {
      MutexLock lock(mutex_);
      if (offset >= offset_ && offset + size <= offset_ + bytes_.size()) {
        return bytes_.substr(offset - offset_, size);
      }
    }
    std::string bytes =
        core_.storage.Read(volume_, offset, std::max(size, kAhead));
    std::string wanted = bytes.substr(0, size);
    MutexLock lock(mutex_);
    offset_ = offset;
    bytes_ = std::move(bytes);
    return wanted;
  }

  Core& core_;
  const std::string volume_;
  Mutex mutex_;
  uint64_t offset_ GUARDED_BY(mutex_) = 0;
  std::string bytes_ GUARDED_BY(mutex_);
};

void Images::Open(const std::string& name,
                  Reply<std::shared_ptr<ImageReader>> reply) {
  reply.Ok(std::make_shared<Reader>(core_, ImageVolume(name)));
}

void Images::Create(const std::string& name,
                    Reply<std::shared_ptr<ImageWriter>> reply) {
  core_.workers.Run([this, name, reply] {
    reply.Guard([&] {
      if (core_.test_driver) {
        throw Error(EOPNOTSUPP,
                    "Cannot create an image: the test driver keeps "
                    "none");
      }
      reply.Ok(std::make_shared<Writer>(
          core_, std::make_unique<Incoming>(*this, name)));
    });
  });
}

}  // namespace sbxfs
