#include "fs/channel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fuse.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "backend/util/error.h"
#include "fs/server.h"

namespace sbxfs {
namespace {

constexpr uint32_t kVersion = 1;
// Requests that wait at once. More are read all the same, but are lost with
// the daemon.
constexpr uint32_t kSlots = 1024;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kSlotSize = Channel::kMostWritten + kPage;
constexpr std::size_t kSlotsAt = 16384;
constexpr std::size_t kSize = kSlotsAt + kSlots * kSlotSize;
// Behind that is what a daemon remembers for the next, and then, with a hole
// between that takes nothing, the book of paths.
constexpr std::size_t kMostRemembered = std::size_t{1} << 30;

// Read into, or to be; begun; being answered.
enum State : uint32_t { kFree, kTaken, kBegun, kAnswering };

// What the thread is at.
thread_local bool t_left_over = false;   // NOLINT(*-avoid-non-const-global*)
thread_local bool t_repeated = false;    // NOLINT(*-avoid-non-const-global*)
thread_local bool t_repeatable = false;  // NOLINT(*-avoid-non-const-global*)
thread_local bool t_swallow = false;     // NOLINT(*-avoid-non-const-global*)

const fuse_in_header& HeadOf(const void* request) {
  return *static_cast<const fuse_in_header*>(request);
}

template <typename T>
const T& BodyOf(const void* request) {
  return *reinterpret_cast<const T*>(static_cast<const char*>(request) +
                                     sizeof(fuse_in_header));
}

bool HasAnswer(uint32_t opcode) {
  switch (opcode) {
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
    case FUSE_NOTIFY_REPLY:
      return false;
    default:
      return true;
  }
}

bool ChangesBy(uint32_t opcode) {
  switch (opcode) {
    case FUSE_SETATTR:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_LINK:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_WRITE:
    case FUSE_FSYNC:
    case FUSE_FLUSH:
    case FUSE_CREATE:
      return true;
    default:
      return false;
  }
}

std::size_t SizeOf(const iovec* parts, int count) {
  std::size_t size = 0;
  for (int i = 0; i < count; ++i) size += parts[i].iov_len;
  return size;
}

}  // namespace

struct Channel::Memory {
  uint32_t version;
  uint32_t init_size;
  std::array<char, 512> init;  // the request
  uint64_t seed;
  std::atomic<uint64_t> last_poll;  // the kernel's largest number of a poller
  std::atomic<uint32_t> handed_over;
  std::atomic<uint64_t> remembered;  // bytes, behind the requests
  std::array<std::atomic<uint32_t>, kSlots> states;
};

UniqueFd Channel::MakeMemory() {
  static_assert(sizeof(Memory) <= kSlotsAt);
  UniqueFd fd(memfd_create("sbxfs-requests", MFD_CLOEXEC));
  // Pages are taken as they are written to.
  if (!fd.Valid() || ftruncate(fd.Get(), kSize) != 0) {
    throw Error(errno, "Cannot mount: there is no memory for requests");
  }
  Memory memory{};
  memory.version = kVersion;
  if (getrandom(&memory.seed, sizeof(memory.seed), 0) != sizeof(memory.seed) ||
      pwrite(fd.Get(), static_cast<void*>(&memory), sizeof(memory), 0) !=
          sizeof(memory)) {
    throw Error(errno, "Cannot mount: the memory for requests cannot be used");
  }
  return fd;
}

Channel::Channel(int memory) {
  void* const at =
      mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (at == MAP_FAILED) {
    throw Error(errno, "Cannot mount: the memory for requests cannot be used");
  }
  memory_ = static_cast<Memory*>(at);
  fd_of_memory_ = UniqueFd(fcntl(memory, F_DUPFD_CLOEXEC, 0));
  if (memory_->version != kVersion) {
    const uint32_t version = memory_->version;
    munmap(at, kSize);
    throw Error(EPROTO,
                fmt::format("Cannot go on with the mount: requests are kept as "
                            "of version {}, and this is {}; unmount, and mount "
                            "again",
                            version, kVersion));
  }
  madvise(at, kSize, MADV_DONTDUMP);
  MutexLock lock(mutex_);
  busy_.resize(kSlots);
  for (uint32_t slot = kSlots; slot-- > 0;) {
    if (memory_->states[slot] == kFree) free_.push_back(slot);
  }
}

Channel::~Channel() {
  ending_ = true;
  if (waking_.joinable()) waking_.join();
  munmap(memory_, kSize);
}

uint64_t Channel::Seed() const { return memory_->seed; }
int64_t Channel::BookAt() { return kSize + kMostRemembered; }
bool Channel::WasHandedOver() const { return memory_->handed_over != 0; }
void Channel::MayRepeat() { t_repeatable = true; }
bool Channel::IsLeftOver() { return t_left_over; }
bool Channel::IsRepeated() { return t_repeated; }

char* Channel::At(uint32_t slot) const {
  return reinterpret_cast<char*>(memory_) + kSlotsAt + slot * kSlotSize;
}

void Channel::Attach(fuse_session* session, int fd) {
  // Later versions have more members.
  static const fuse_custom_io kIo = [] {
    fuse_custom_io io{};
    io.writev = Write;
    io.read = Read;
    return io;
  }();
  if (fuse_session_custom_io(session, &kIo, fd) != 0) {
    throw Error(EINVAL, "Cannot serve the descriptor given");
  }
  session_ = session;
  fd_ = fd;
}

ssize_t Channel::Read(int fd, void* buffer, size_t size, void*) {
  return read(fd, buffer, std::min(size, kSlotSize));
}

ssize_t Channel::Write(int fd, iovec* parts, int count, void* data) {
  if (t_swallow) return static_cast<ssize_t>(SizeOf(parts, count));
  return static_cast<Server*>(data)->channel.Answer(fd, parts, count);
}

ssize_t Channel::Answer(int fd, iovec* parts, int count) {
  const uint64_t unique =
      static_cast<const fuse_out_header*>(parts[0].iov_base)->unique;
  std::optional<uint32_t> slot;
  {
    MutexLock lock(mutex_);
    if (detached_) return static_cast<ssize_t>(SizeOf(parts, count));
    const auto found = slots_.find(unique);
    if (found != slots_.end()) {
      slot = found->second;
      slots_.erase(found);
      memory_->states[*slot] = kAnswering;
    }
    ++writing_;
  }
  const ssize_t written = writev(fd, parts, count);
  const int error = errno;
  {
    MutexLock lock(mutex_);
    if (--writing_ == 0) quiet_.NotifyAll();
    if (slot) {
      busy_[*slot].answered = true;
      if (!busy_[*slot].serving) Free(*slot);
    }
  }
  errno = error;
  return written;
}

std::optional<uint32_t> Channel::Take() {
  MutexLock lock(mutex_);
  if (free_.empty()) return std::nullopt;
  const uint32_t slot = free_.back();
  free_.pop_back();
  busy_[slot] = {.serving = true};
  // What the kernel writes tells whether it has written.
  std::memset(At(slot), 0, sizeof(fuse_in_header));
  memory_->states[slot] = kTaken;
  return slot;
}

void Channel::Free(uint32_t slot) {
  const uint32_t size = HeadOf(At(slot)).len;
  memory_->states[slot] = kFree;
  busy_[slot] = {};
  // The page after the first of a large one is not kept for the next, which
  // is small.
  if (size > kPage) {
    madvise(At(slot) + kPage, kSlotSize - kPage, MADV_REMOVE);
  }
  free_.push_back(slot);
}

// What a daemon to come must know of a request beside itself.
void Channel::Note(uint32_t slot) {
  const fuse_in_header& head = HeadOf(At(slot));
  if (head.opcode == FUSE_INIT && head.len <= memory_->init.size()) {
    std::memcpy(memory_->init.data(), At(slot), head.len);
    memory_->init_size = head.len;
  }
  if (head.opcode == FUSE_POLL) {
    const uint64_t poller = BodyOf<fuse_poll_in>(At(slot)).kh;
    uint64_t last = memory_->last_poll;
    while (last < poller &&
           !memory_->last_poll.compare_exchange_weak(last, poller)) {
    }
  }
}

int Channel::ServeOne(const Defer& defer) {
  const auto slot = Take();
  std::vector<char> own(slot ? 0 : kSlotSize);
  fuse_buf buffer{};
  buffer.mem = slot ? At(*slot) : own.data();
  const int got = fuse_session_receive_buf(session_, &buffer);
  if (!slot) {
    if (got > 0) fuse_session_process_buf(session_, &buffer);
    return got > 0 ? 0 : got == 0 ? ENODEV : -got;
  }
  if (got <= 0) {
    MutexLock lock(mutex_);
    Free(*slot);
    return got == 0 ? ENODEV : -got;
  }
  Note(*slot);
  {
    // Under the lock, so that ServeDeferred misses none.
    MutexLock lock(mutex_);
    if (defer(At(*slot))) {
      busy_[*slot].serving = false;
      busy_[*slot].deferred = true;
      return 0;
    }
  }
  Process(*slot, static_cast<std::size_t>(got));
  return 0;
}

void Channel::Process(uint32_t slot, std::size_t size) {
  const fuse_in_header head = HeadOf(At(slot));
  {
    MutexLock lock(mutex_);
    busy_[slot].serving = true;
    busy_[slot].deferred = false;
    busy_[slot].answered = !HasAnswer(head.opcode);
    if (!busy_[slot].answered) slots_[head.unique] = slot;
    memory_->states[slot] = kBegun;
  }
  fuse_buf buffer{};
  buffer.mem = At(slot);
  buffer.size = size;
  t_repeatable = false;
  fuse_session_process_buf(session_, &buffer);
  MutexLock lock(mutex_);
  busy_[slot].repeatable = t_repeatable;
  busy_[slot].serving = false;
  if (busy_[slot].answered) Free(slot);
}

bool Channel::Changes(const void* request) {
  return ChangesBy(HeadOf(request).opcode);
}

bool Channel::Begins(const void* request,
                     const std::function<bool(uint64_t)>& commands) {
  switch (HeadOf(request).opcode) {
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_LINK:
    case FUSE_RMDIR:
    case FUSE_CREATE:
      return true;
    case FUSE_OPEN: {
      const uint32_t flags = BodyOf<fuse_open_in>(request).flags;
      return (flags & O_ACCMODE) != O_RDONLY;
    }
    case FUSE_WRITE:
      return commands(BodyOf<fuse_write_in>(request).fh);
    default:
      return false;
  }
}

void Channel::ServeDeferred(const Defer& defer) {
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    {
      MutexLock lock(mutex_);
      if (!busy_[slot].deferred || defer(At(slot))) continue;
    }
    Process(slot, HeadOf(At(slot)).len);
  }
}

void Channel::Resume() {
  fuse_buf buffer{};
  buffer.mem = memory_->init.data();
  buffer.size = memory_->init_size;
  t_swallow = true;
  fuse_session_process_buf(session_, &buffer);
  t_swallow = false;
  waking_ = std::thread([this, last = memory_->last_poll.load()] {
    for (uint64_t poller = last; poller > 0 && !ending_; --poller) Wake(poller);
  });
  t_left_over = true;
  ServeLeftOver();
  t_left_over = t_repeated = false;
  memory_->handed_over = 0;
}

// Who waits in poll(2) asks again then, and tells this daemon of itself. One
// that does not wait any more is nobody to the kernel.
void Channel::Wake(uint64_t poller) const {
  fuse_notify_poll_wakeup_out wakeup{poller};
  fuse_out_header head{};
  head.len = sizeof(head) + sizeof(wakeup);
  head.error = FUSE_NOTIFY_POLL;
  const std::array<iovec, 2> parts = {
      {{&head, sizeof(head)}, {&wakeup, sizeof(wakeup)}}};
  (void)writev(fd_, parts.data(), parts.size());
}

void Channel::ServeLeftOver() {
  std::vector<std::pair<uint64_t, uint32_t>> left;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    if (memory_->states[slot] == kFree) continue;
    // Taken, and nothing had come.
    if (HeadOf(At(slot)).len == 0) {
      MutexLock lock(mutex_);
      Free(slot);
      continue;
    }
    left.emplace_back(HeadOf(At(slot)).unique, slot);
  }
  std::sort(left.begin(), left.end());
  spdlog::info("{} requests are left of the daemon before", left.size());
  for (const auto& [unique, slot] : left) {
    const fuse_in_header& head = HeadOf(At(slot));
    t_repeated = memory_->states[slot] != kTaken;
    if (memory_->states[slot] == kAnswering && ChangesBy(head.opcode)) {
      // It was done, or refused, and may be answered: then the kernel knows
      // it no more. It must not be done again.
      fuse_out_header answer{};
      answer.len = sizeof(answer);
      answer.error = -EIO;
      answer.unique = unique;
      (void)write(fd_, &answer, sizeof(answer));
      MutexLock lock(mutex_);
      Free(slot);
      continue;
    }
    Process(slot, head.len);
  }
}

bool Channel::IsChanging() {
  MutexLock lock(mutex_);
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    const Busy& busy = busy_[slot];
    if (memory_->states[slot] == kFree || busy.deferred || busy.answered) {
      continue;
    }
    const fuse_in_header& head = HeadOf(At(slot));
    if (head.len != 0 && ChangesBy(head.opcode) && !busy.repeatable) {
      return true;
    }
  }
  return false;
}

std::string Channel::Recall() {
  std::string bytes(memory_->remembered.exchange(0), '\0');
  const ssize_t got =
      pread(fd_of_memory_.Get(), bytes.data(), bytes.size(), kSize);
  fallocate(fd_of_memory_.Get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            kSize, kMostRemembered);
  if (got != static_cast<ssize_t>(bytes.size())) {
    throw Error(EIO, "Cannot go on with what the daemon before knew");
  }
  return bytes;
}

void Channel::Detach(const std::string& remembered) {
  const ssize_t put =
      pwrite(fd_of_memory_.Get(), remembered.data(), remembered.size(), kSize);
  memory_->remembered = put < 0 ? 0 : static_cast<uint64_t>(put);
  MutexLock lock(mutex_);
  detached_ = true;
  while (writing_ > 0) quiet_.Wait(mutex_);
  memory_->handed_over = 1;
}

}  // namespace sbxfs
