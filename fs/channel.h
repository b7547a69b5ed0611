#ifndef SBXFS_FS_CHANNEL_H_
#define SBXFS_FS_CHANNEL_H_

#include <fuse_lowlevel.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "backend/util/mutex.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

// The way requests come from the kernel and answers go back, in place of
// libfuse's own, so that a mount outlives the daemon that serves it.
//
// The kernel has a request that was read and not answered wait for ever, or as
// long as somebody holds the descriptor. Requests are therefore read into
// memory that a holder of the mount keeps (fs/holder.h): a daemon that goes on
// with the mount finds those of the one before and does them again. The memory
// also has what else only the kernel would know: what was agreed on at mount
// (FUSE_INIT is sent once), and the seed of inode numbers.
//
// May be used from any thread but where noted.
class Channel {
 public:
  // The bytes of a write that there is room for.
  static constexpr unsigned kMostWritten = 1U << 20;

  // A descriptor of memory for a new mount. Throws Error.
  [[nodiscard]] static UniqueFd MakeMemory();
  // Throws Error when it cannot be mapped, or is another version's.
  explicit Channel(int memory);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  [[nodiscard]] uint64_t Seed() const;
  // The memory, of which a PathBook has what is at BookAt and behind.
  [[nodiscard]] const UniqueFd& MemoryFd() const { return fd_of_memory_; }
  [[nodiscard]] static int64_t BookAt();
  // Whether the daemon before had nothing half written when it ended.
  [[nodiscard]] bool WasHandedOver() const;

  // Lets `session` use it for `fd`, which is the session's from here on. Its
  // user data is a Server, whose `channel` this is. Throws Error.
  void Attach(fuse_session* session, int fd);

  // Reads one request and gives it to the session, unless `defer` (of the
  // request as the kernel wrote it) keeps it for the next daemon. 0, or an
  // errno of reading: EINTR, ENODEV when the mount is gone.
  // Called with a lock held.
  using Defer = std::function<bool(const void* request)>;
  int ServeOne(const Defer& defer);
  // Serves what was kept and would be no more, since this daemon goes on.
  void ServeDeferred(const Defer& defer);

  // Whether the request changes something.
  [[nodiscard]] static bool Changes(const void* request);
  // Whether it is the first of a change, but for what the files that are open
  // have in hand; `commands`: whether each write to that one is a change.
  [[nodiscard]] static bool Begins(
      const void* request, const std::function<bool(uint64_t)>& commands);

  // Of a mount that another daemon served: agrees with the session on what it
  // agreed on with the kernel, and serves what it left. For one thread, before
  // any other uses the channel.
  void Resume();

  // Whether any request is unanswered that changes something and cannot be
  // done twice.
  [[nodiscard]] bool IsChanging() EXCLUDES(mutex_);
  // Nothing is half written, and no answer is sent any more: what is unanswered
  // is the next daemon's, and so are these bytes.
  void Detach(const std::string& remembered) EXCLUDES(mutex_);
  // Those of a daemon that handed over, once.
  [[nodiscard]] std::string Recall();

  // The request that this thread is at: may be done twice.
  static void MayRepeat();
  // Whether a daemon before had the request that this thread is at; and whether
  // it had begun it.
  [[nodiscard]] static bool IsLeftOver();
  [[nodiscard]] static bool IsRepeated();

 private:
  struct Memory;
  struct Busy {
    bool serving = false;   // a thread has it in hand
    bool answered = false;  // or has none to come
    bool deferred = false;
    bool repeatable = false;
  };

  static ssize_t Read(int fd, void* buffer, size_t size, void* data);
  static ssize_t Write(int fd, iovec* parts, int count, void* data);
  ssize_t Answer(int fd, iovec* parts, int count);

  [[nodiscard]] char* At(uint32_t slot) const;
  [[nodiscard]] std::optional<uint32_t> Take() EXCLUDES(mutex_);
  void Process(uint32_t slot, std::size_t size);
  void Free(uint32_t slot) REQUIRES(mutex_);
  void Note(uint32_t slot);
  void Wake(uint64_t poller) const;
  void ServeLeftOver();

  UniqueFd fd_of_memory_;
  Memory* memory_ = nullptr;
  fuse_session* session_ = nullptr;
  int fd_ = -1;
  Mutex mutex_;
  CondVar quiet_;
  int writing_ GUARDED_BY(mutex_) = 0;
  bool detached_ GUARDED_BY(mutex_) = false;
  std::vector<uint32_t> free_ GUARDED_BY(mutex_);
  std::vector<Busy> busy_ GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, uint32_t> slots_ GUARDED_BY(mutex_);
  std::atomic<bool> ending_ = false;
  std::thread waking_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_CHANNEL_H_
