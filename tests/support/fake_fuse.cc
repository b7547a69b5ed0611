#include "tests/support/fake_fuse.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fs/channel.h"

namespace sbxfs {
namespace {

using std::chrono::steady_clock;

template <typename T>
std::string Bytes(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

template <typename T>
T As(const std::string& data) {
  T value{};
  std::memcpy(&value, data.data(), std::min(sizeof(value), data.size()));
  return value;
}

std::string Named(const std::string& name) { return name + '\0'; }

constexpr std::chrono::seconds kPatience{10};

// Tells an interrupt's number from that of its request (fs/fuse/dev.c).
constexpr uint64_t kInterruptBit = 1;

}  // namespace

FakeFuse::FakeFuse(Backend& backend, SessionOptions options)
    : caller{1000, 1000, getpid()},
      backend_(backend),
      options_(std::move(options)),
      memory_(Channel::MakeMemory()) {
  if (options_.mount_point.empty()) options_.mount_point = "/mnt/sbx";
  if (options_.program.empty()) options_.program = "/usr/bin/sbxfs";
  if (options_.uid == 0) options_.uid = options_.gid = 1000;
  Serve(false);
  fuse_init_in init{};
  init.major = FUSE_KERNEL_VERSION;
  init.minor = FUSE_KERNEL_MINOR_VERSION;
  init.max_readahead = 128 << 10;
  init.flags = FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS |
               FUSE_MAX_PAGES;
  EXPECT_EQ(Call(FUSE_INIT, 0, Bytes(init)).error, 0);
}

FakeFuse::~FakeFuse() {
  End();
  close(session_fd_);
}

void FakeFuse::Serve(bool resumed, int fd) {
  if (fd < 0) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    const int size = 4 << 20;
    for (const int one : fds) {
      setsockopt(one, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    fd_ = fds[0];
    fd = fds[1];
    reading_ = std::thread([this] { ReadAnswers(); });
  }
  session_fd_ = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  options_.fd = fd;
  options_.memory = memory_.Get();
  options_.resumed = resumed;
  handed_over_ = false;
  session_ = std::make_unique<Session>(backend_, options_);
  serving_ = std::thread(
      [this] { handed_over_ = session_->Run(nullptr) == Ending::kHandedOver; });
}

void FakeFuse::End() {
  session_->Stop();
  serving_.join();
  session_.reset();
  shutdown(fd_, SHUT_RDWR);
  reading_.join();
  close(fd_);
}

bool FakeFuse::HandsOver(std::chrono::milliseconds limit) {
  session_->HandOver();
  const auto deadline = steady_clock::now() + limit;
  while (!handed_over_ && steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return handed_over_;
}

void FakeFuse::GoOn() {
  serving_.join();
  session_.reset();
  Serve(true, session_fd_);
}

void FakeFuse::Crash() {
  // What it would have left; what it says from here on reaches nobody.
  UniqueFd left = Channel::MakeMemory();
  struct stat status {};
  fstat(memory_.Get(), &status);
  off_t at = 0;
  while ((at = lseek(memory_.Get(), at, SEEK_DATA)) >= 0) {
    const off_t end = lseek(memory_.Get(), at, SEEK_HOLE);
    std::string bytes(static_cast<size_t>(end - at), '\0');
    EXPECT_EQ(pread(memory_.Get(), bytes.data(), bytes.size(), at),
              static_cast<ssize_t>(bytes.size()));
    EXPECT_EQ(pwrite(left.Get(), bytes.data(), bytes.size(), at),
              static_cast<ssize_t>(bytes.size()));
    at = end;
  }
  deaf_ = crashed_ = true;
  End();
  deaf_ = false;
  close(session_fd_);
  memory_ = std::move(left);
  Serve(true);
}

void FakeFuse::ReadAnswers() {
  std::string buffer(2 << 20, '\0');
  while (true) {
    const ssize_t got = recv(fd_, buffer.data(), buffer.size(), 0);
    if (got < static_cast<ssize_t>(sizeof(fuse_out_header))) return;
    if (deaf_) continue;
    const auto header = As<fuse_out_header>(buffer);
    std::string data = buffer.substr(sizeof(header),
                                     static_cast<size_t>(got) - sizeof(header));
    if (header.unique & kInterruptBit) {
      // A thread that took another request first could not know what it
      // belongs to; the kernel asks again.
      if (header.error == -EAGAIN) Interrupt(header.unique & ~kInterruptBit);
      continue;
    }
    MutexLock lock(mutex_);
    if (header.unique == 0) {
      if (header.error == FUSE_NOTIFY_POLL) woken_.insert(As<uint64_t>(data));
    } else {
      const bool fresh =
          answers_.try_emplace(header.unique, -header.error, std::move(data))
              .second;
      // A daemon may not know what the one before it came to; the kernel does.
      EXPECT_TRUE(fresh || crashed_) << "answered twice";
    }
    changed_.NotifyAll();
  }
}

uint64_t FakeFuse::Send(uint32_t opcode, uint64_t node,
                        const std::string& payload) {
  fuse_in_header header{};
  {
    MutexLock lock(mutex_);
    last_ += 2;  // the kernel's are even
    header.unique = last_;
  }
  header.opcode = opcode;
  header.nodeid = node;
  header.uid = caller.uid;
  header.gid = caller.gid;
  header.pid = static_cast<uint32_t>(caller.pid);
  SendPacket(header, payload);
  return header.unique;
}

void FakeFuse::SendPacket(fuse_in_header header, const std::string& payload) {
  header.len = static_cast<uint32_t>(sizeof(header) + payload.size());
  const std::string packet = Bytes(header) + payload;
  EXPECT_EQ(send(fd_, packet.data(), packet.size(), 0),
            static_cast<ssize_t>(packet.size()));
}

bool FakeFuse::Answered(uint64_t unique, std::chrono::milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  MutexLock lock(mutex_);
  while (!answers_.contains(unique)) {
    if (steady_clock::now() >= deadline) return false;
    changed_.WaitUntil(mutex_, deadline);
  }
  return true;
}

FakeFuse::Answer FakeFuse::Wait(uint64_t unique) {
  if (!Answered(unique, kPatience)) {
    ADD_FAILURE() << "request " << unique << " is not answered";
    return {-1, {}};
  }
  MutexLock lock(mutex_);
  return answers_[unique];
}

bool FakeFuse::Woken(uint64_t kernel_handle, std::chrono::milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  MutexLock lock(mutex_);
  while (true) {
    const auto found = woken_.find(kernel_handle);
    if (found != woken_.end()) {
      woken_.erase(found);
      return true;
    }
    if (steady_clock::now() >= deadline) return false;
    changed_.WaitUntil(mutex_, deadline);
  }
}

void FakeFuse::Interrupt(uint64_t unique) {
  fuse_in_header header{};
  header.unique = unique | kInterruptBit;
  header.opcode = FUSE_INTERRUPT;
  SendPacket(header, Bytes(fuse_interrupt_in{unique}));
}

void FakeFuse::Forget(uint64_t node, uint64_t count) {
  Send(FUSE_FORGET, node, Bytes(fuse_forget_in{count}));
}

FakeFuse::Answer FakeFuse::Lookup(uint64_t parent, const std::string& name) {
  return Call(FUSE_LOOKUP, parent, Named(name));
}

uint64_t FakeFuse::Walk(const std::string& path) {
  uint64_t node = FUSE_ROOT_ID;
  size_t begin = 0;
  while (begin < path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const Answer answer = Lookup(node, path.substr(begin, end - begin));
    if (answer.error != 0) return 0;
    node = As<fuse_entry_out>(answer.data).nodeid;
    begin = end + 1;
  }
  return node;
}

std::string FakeFuse::NameIn(const std::string& path, uint64_t& parent) {
  const size_t slash = path.rfind('/');
  parent = slash == std::string::npos ? uint64_t{FUSE_ROOT_ID}
                                      : Walk(path.substr(0, slash));
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::optional<fuse_attr> FakeFuse::Stat(const std::string& path) {
  const uint64_t node = Walk(path);
  if (node == 0) return std::nullopt;
  const Answer answer = Call(FUSE_GETATTR, node, Bytes(fuse_getattr_in{}));
  if (answer.error != 0) return std::nullopt;
  return As<fuse_attr_out>(answer.data).attr;
}

FakeFuse::Opened FakeFuse::Open(const std::string& path, int flags) {
  Opened opened;
  opened.flags = static_cast<uint32_t>(flags);
  opened.node = Walk(path);
  if (opened.node == 0) {
    opened.error = ENOENT;
    return opened;
  }
  const Answer answer =
      Call(FUSE_OPEN, opened.node, Bytes(fuse_open_in{opened.flags, 0}));
  opened.error = answer.error;
  opened.handle = As<fuse_open_out>(answer.data).fh;
  return opened;
}

FakeFuse::Opened FakeFuse::Create(const std::string& path, int flags) {
  Opened opened;
  opened.flags = static_cast<uint32_t>(flags);
  uint64_t parent = 0;
  const std::string name = NameIn(path, parent);
  const Answer answer =
      Call(FUSE_CREATE, parent,
           Bytes(fuse_create_in{opened.flags | O_CREAT, 0100644, 022, 0}) +
               Named(name));
  opened.error = answer.error;
  if (answer.error != 0) return opened;
  opened.node = As<fuse_entry_out>(answer.data).nodeid;
  opened.handle =
      As<fuse_open_out>(answer.data.substr(sizeof(fuse_entry_out))).fh;
  return opened;
}

std::string FakeFuse::Read(const Opened& file, uint64_t offset) {
  fuse_read_in in{};
  in.fh = file.handle;
  in.offset = offset;
  in.size = 128 << 10;
  const Answer answer = Call(FUSE_READ, file.node, Bytes(in));
  EXPECT_EQ(answer.error, 0);
  return answer.data;
}

uint64_t FakeFuse::SendWrite(const Opened& file, const std::string& text,
                             uint64_t offset) {
  fuse_write_in in{};
  in.fh = file.handle;
  in.offset = offset;
  in.size = static_cast<uint32_t>(text.size());
  in.flags = file.flags;
  return Send(FUSE_WRITE, file.node, Bytes(in) + text);
}

int FakeFuse::Write(const Opened& file, const std::string& text,
                    uint64_t offset) {
  const Answer answer = Wait(SendWrite(file, text, offset));
  if (answer.error == 0) {
    EXPECT_EQ(As<fuse_write_out>(answer.data).size, text.size());
  }
  return answer.error;
}

int FakeFuse::Flush(const Opened& file) {
  fuse_flush_in in{};
  in.fh = file.handle;
  return Call(FUSE_FLUSH, file.node, Bytes(in)).error;
}

int FakeFuse::Fsync(const Opened& file) {
  fuse_fsync_in in{};
  in.fh = file.handle;
  return Call(FUSE_FSYNC, file.node, Bytes(in)).error;
}

int FakeFuse::Truncate(const Opened& file, uint64_t size) {
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE | FATTR_FH;
  in.fh = file.handle;
  in.size = size;
  return Call(FUSE_SETATTR, file.node, Bytes(in)).error;
}

void FakeFuse::Release(const Opened& file) {
  fuse_release_in in{};
  in.fh = file.handle;
  const Caller saved = caller;
  caller = {0, 0, 0};  // as the kernel does it
  EXPECT_EQ(Call(FUSE_RELEASE, file.node, Bytes(in)).error, 0);
  caller = saved;
}

int FakeFuse::Close(const Opened& file) {
  const int error = Flush(file);
  Release(file);
  return error;
}

uint32_t FakeFuse::Poll(const Opened& file, uint64_t kernel_handle) {
  fuse_poll_in in{};
  in.fh = file.handle;
  in.kh = kernel_handle;
  in.flags = kernel_handle != 0 ? FUSE_POLL_SCHEDULE_NOTIFY : 0;
  in.events = POLLIN | POLLPRI | POLLOUT;
  const Answer answer = Call(FUSE_POLL, file.node, Bytes(in));
  EXPECT_EQ(answer.error, 0);
  return As<fuse_poll_out>(answer.data).revents;
}

std::string FakeFuse::Cat(const std::string& path) {
  const Opened file = Open(path, O_RDONLY);
  if (file.error != 0) {
    ADD_FAILURE() << path << ": " << std::strerror(file.error);
    return {};
  }
  std::string text;
  while (true) {
    const std::string part = Read(file, text.size());
    if (part.empty()) break;
    text += part;
  }
  EXPECT_EQ(Close(file), 0);
  return text;
}

int FakeFuse::Echo(const std::string& text, const std::string& path) {
  const Opened file = Open(path, O_WRONLY | O_TRUNC);
  if (file.error != 0) return file.error;
  // bash closes a copy before it writes.
  EXPECT_EQ(Flush(file), 0);
  const int error = Write(file, text + '\n');
  const int closed = Close(file);
  return error != 0 ? error : closed;
}

int FakeFuse::Copy(const std::string& text, const std::string& path) {
  const Opened file = Create(path, O_WRONLY | O_TRUNC);
  if (file.error != 0) return file.error;
  const int error = text.empty() ? 0 : Write(file, text);
  const int closed = Close(file);
  return error != 0 ? error : closed;
}

int FakeFuse::Mkdir(const std::string& path, mode_t mode) {
  uint64_t parent = 0;
  const std::string name = NameIn(path, parent);
  return Call(FUSE_MKDIR, parent, Bytes(fuse_mkdir_in{mode, 022}) + Named(name))
      .error;
}

int FakeFuse::Rmdir(const std::string& path) {
  uint64_t parent = 0;
  const std::string name = NameIn(path, parent);
  return Call(FUSE_RMDIR, parent, Named(name)).error;
}

int FakeFuse::Unlink(const std::string& path) {
  uint64_t parent = 0;
  const std::string name = NameIn(path, parent);
  return Call(FUSE_UNLINK, parent, Named(name)).error;
}

int FakeFuse::Rename(const std::string& from, const std::string& to,
                     uint32_t flags) {
  uint64_t parent = 0;
  uint64_t new_parent = 0;
  const std::string name = NameIn(from, parent);
  const std::string new_name = NameIn(to, new_parent);
  return Call(FUSE_RENAME2, parent,
              Bytes(fuse_rename2_in{new_parent, flags, 0}) + Named(name) +
                  Named(new_name))
      .error;
}

int FakeFuse::Chmod(const std::string& path, mode_t mode) {
  fuse_setattr_in in{};
  in.valid = FATTR_MODE;
  in.mode = mode;
  return Call(FUSE_SETATTR, Walk(path), Bytes(in)).error;
}

std::vector<std::string> FakeFuse::Ls(const std::string& path) {
  const uint64_t node = Walk(path);
  const Answer opened =
      Call(FUSE_OPENDIR, node, Bytes(fuse_open_in{O_RDONLY | O_DIRECTORY, 0}));
  EXPECT_EQ(opened.error, 0);
  fuse_read_in in{};
  in.fh = As<fuse_open_out>(opened.data).fh;
  in.size = 4096;
  std::vector<std::string> names;
  while (true) {
    const Answer part = Call(FUSE_READDIR, node, Bytes(in));
    if (part.data.empty()) break;
    for (size_t at = 0; at < part.data.size();) {
      const auto entry = As<fuse_dirent>(part.data.substr(at));
      names.push_back(part.data.substr(at + FUSE_NAME_OFFSET, entry.namelen));
      in.offset = entry.off;
      at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
    }
  }
  fuse_release_in release{};
  release.fh = in.fh;
  EXPECT_EQ(Call(FUSE_RELEASEDIR, node, Bytes(release)).error, 0);
  std::erase_if(names, [](const std::string& name) {
    return name == "." || name == "..";
  });
  return names;
}

}  // namespace sbxfs
