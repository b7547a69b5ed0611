// Requests as the kernel sends them, in any order and of anybody, to the whole
// of the tree before a backend in memory. Headers and lengths are right and
// names end in NUL: libfuse takes the kernel's word for all three. What a
// request is about, and every field behind its header, is the fuzzer's.
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backend/util/mutex.h"
#include "fs/layout.h"
#include "fs/server.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_backend.h"

namespace sbxfs::fuzz {
namespace {

using std::chrono::steady_clock;

constexpr uid_t kOwner = 1000;
constexpr uint32_t kMostRead = 256 << 10;
constexpr size_t kMostRequests = 64;
// An answer that takes longer waits for something that has to happen first.
constexpr std::chrono::microseconds kSoon{5000};
constexpr int kMostLate = 3;

template <typename T>
T As(std::string_view data) {
  T value{};
  std::memcpy(&value, data.data(), std::min(sizeof value, data.size()));
  return value;
}
template <typename T>
std::string BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// The kernel's side: gets all that is written to it.
class Kernel {
 public:
  struct Answer {
    int error = 0;
    std::string data;
  };

  void Expect(uint64_t unique) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    expected_.insert(unique);
  }
  void Take(const std::string& packet) EXCLUDES(mutex_) {
    Check(packet.size() >= sizeof(fuse_out_header), "an answer has a header");
    const auto header = As<fuse_out_header>(packet);
    Check(header.len == packet.size(), "an answer is as long as it says");
    if (header.unique == 0 || (header.unique & 1) != 0) return;  // not asked
    Check(header.error <= 0 && header.error > -512, "an errno there is");
    Check(header.error == 0 || packet.size() == sizeof header,
          "an error comes alone");
    MutexLock lock(mutex_);
    Check(expected_.erase(header.unique) == 1, "one answer to each request");
    answers_[header.unique] = {-header.error, packet.substr(sizeof header)};
    changed_.NotifyAll();
  }
  std::optional<Answer> Await(uint64_t unique, std::chrono::microseconds limit)
      EXCLUDES(mutex_) {
    const auto deadline = steady_clock::now() + limit;
    MutexLock lock(mutex_);
    while (!answers_.contains(unique)) {
      if (steady_clock::now() >= deadline) return std::nullopt;
      changed_.WaitUntil(mutex_, deadline);
    }
    return answers_[unique];
  }
  void CheckAllAnswered() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    Check(expected_.empty(), "all requests are answered in the end");
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::set<uint64_t> expected_ GUARDED_BY(mutex_);
  std::map<uint64_t, Answer> answers_ GUARDED_BY(mutex_);
};

Kernel* g_kernel = nullptr;

ssize_t TakeParts(int, iovec* parts, int count, void*) {
  std::string packet;
  for (int i = 0; i < count; ++i) {
    packet.append(static_cast<const char*>(parts[i].iov_base),
                  parts[i].iov_len);
  }
  g_kernel->Take(packet);
  return static_cast<ssize_t>(packet.size());
}

ssize_t ReadNothing(int, void*, size_t, void*) { return 0; }

struct SessionDeleter {
  void operator()(fuse_session* session) const {
    fuse_session_destroy(session);
  }
};

// What may be in the tree's place for a name.
const std::vector<std::string>& Names() {
  static const std::vector<std::string> names = [] {
    std::set<std::string> all = {"box",
                                 "other",
                                 "new",
                                 "box.yaml",
                                 "other.yaml",
                                 ".host",
                                 "x",
                                 ".undo",
                                 "snap",
                                 "A_SECRET",
                                 "3000",
                                 "4000-4010",
                                 "53.udp",
                                 "src",
                                 "debian-12",
                                 "data",
                                 "x.yaml",
                                 "_images",
                                 "~",
                                 "box.yaml.tmp.1",
                                 ".x.swp",
                                 "4913",
                                 "#x#",
                                 "..",
                                 ".",
                                 "a b",
                                 "-rf",
                                 "a\nb",
                                 "\xff",
                                 "x~",
                                 "first",
                                 "a.b_c-d",
                                 "new.qcow2",
                                 "a/b",
                                 std::string(59, 'a'),
                                 std::string(300, 'a')};
    for (const auto kind :
         {DirKind::kRoot, DirKind::kHost, DirKind::kHypervisor,
          DirKind::kNetwork, DirKind::kSandbox, DirKind::kSnapshot,
          DirKind::kJob}) {
      for (const auto name : RowNames(kind)) all.emplace(name);
    }
    return std::vector<std::string>(all.begin(), all.end());
  }();
  return names;
}

constexpr const char* kLines[] = {"start\n",
                                  "stop",
                                  "kill\n",
                                  "pause\n",
                                  "resume\n",
                                  "save\n",
                                  "restart\n",
                                  "factory-reset\n",
                                  "revert\n",
                                  "destroy\n",
                                  "wait running\n",
                                  "wait stopped\n",
                                  "wait nothing",
                                  "4\n",
                                  "2GiB\n",
                                  "yes\n",
                                  "no\n",
                                  "/srv/src:w\n",
                                  "~\n",
                                  "127.0.0.1:8080\n",
                                  "[::1]:1-2\n",
                                  "\n",
                                  "",
                                  "a\nb\n",
                                  "cpus: 4\n",
                                  "bad: 1\n",
                                  "mode: host\n",
                                  "debian-13\n",
                                  ".undo!\n",
                                  "snap\n",
                                  "echo 'a b' c\n",
                                  "TERM\n",
                                  "10\n",
                                  "qemu:///system\n",
                                  "QFI\xfb and more",
                                  "ssh-ed25519 AAAA\n"};

// The calls of the backend that can be made to wait, or to fail.
constexpr const char* kCalls[] = {
    "create",       "remove",      "purge",        "rename",       "rights",
    "act",          "wait",        "set",          "item",         "forget",
    "refresh",      "document",    "take",         "drop",         "retag",
    "describe",     "revert",      "clone",        "commit",       "open image",
    "create image", "write image", "finish image", "remove image", "disk"};

// What is dropped unanswered, or is no error that anybody meant, is logged.
class Listener : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const std::string_view text(message.payload.data(), message.payload.size());
    Check(text.find("an error in sbxfs") == text.npos, "no error of our own",
          text);
  }
  void flush_() override {}
};

// A mount with a kernel that is the fuzzer's.
class Mount {
 public:
  explicit Mount(Bytes& bytes) : bytes_(bytes) {
    Furnish();
    const TreeOptions options{"/mnt/sbx", "/usr/bin/sbxfs", kOwner,
                              kOwner,     bytes.Flag(),     std::nullopt};
    // Half of them are asked for what another daemon gave.
    static const UniqueFd kMemory = Channel::MakeMemory();
    server_ = std::make_unique<Server>(backend_, options, kMemory.Get(),
                                       options.allow_other);
    char name[] = "sbxfs";
    char* argv[] = {name};
    fuse_args args = FUSE_ARGS_INIT(1, argv);
    session_.reset(fuse_session_new(&args, &LowlevelOps(),
                                    sizeof(fuse_lowlevel_ops), server_.get()));
    fuse_opt_free_args(&args);
    Check(session_ != nullptr, "a session");
    server_->cache.Attach(session_.get());
    static const fuse_custom_io kIo = [] {
      fuse_custom_io io{};
      io.writev = TakeParts;
      io.read = ReadNothing;
      return io;
    }();
    g_kernel = &kernel_;
    Check(fuse_session_custom_io(session_.get(), &kIo,
                                 open("/dev/null", O_RDWR | O_CLOEXEC)) == 0,
          "a session of our own");
    fuse_init_in init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = FUSE_KERNEL_MINOR_VERSION;
    init.max_readahead = 128 << 10;
    init.flags = FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS |
                 FUSE_MAX_PAGES;
    Send(FUSE_INIT, 0, BytesOf(init));
  }
  // As Session::Run ends.
  ~Mount() {
    for (const char* call : kCalls) backend_.Release(call);
    // libfuse forgets one interrupt of no request with each request, and would
    // leak what is left.
    for (size_t i = 0; i <= interrupts_; ++i) (void)Send(FUSE_STATFS, 1, "");
    server_->tree->Close();
    server_->requests->Close();
    server_->timer->Stop();
    server_.reset();
    kernel_.CheckAllAnswered();
    session_.reset();
    g_kernel = nullptr;
  }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  void Run() {
    for (size_t i = 0; i < kMostRequests && !bytes_.Empty(); ++i) {
      if (const uint8_t what = bytes_.Byte(); what < 232) {
        Ask(what);
      } else {
        Disturb(what);
      }
    }
  }

 private:
  void Furnish() {
    backend_.Add("box");
    const std::string uuid = backend_.Add("first");
    backend_.Update(uuid, [](Sandbox& sandbox) {
      sandbox.state = State::kRunning;
      sandbox.mounts["src"] = "/srv/src";
      sandbox.ports["3000"] = "8080";
      sandbox.secrets.insert("A_SECRET");
      sandbox.snapshots["snap"].tag = "snap";
      sandbox.rejected = "bad: 1\n";
    });
    backend_.AddImage("debian-12", "QFI\xfb");
    backend_.UpdateHost([](Host& host) {
      host.networks.push_back({"net", "mode: shared\n", true, true, {}, {}});
      host.disks.push_back({"data", 1 << 30, 0, Time()});
      host.templates["x.yaml"] = {"cpus: 1\n", host.since};
    });
  }

  // Something happens that no request asked for.
  void Disturb(uint8_t what) {
    const char* call = kCalls[bytes_.Byte() % std::size(kCalls)];
    switch (what % 4) {
      case 0:
        backend_.Hold(call);
        break;
      case 1:
        backend_.Release(call);
        break;
      case 2:
        backend_.Fail(call, Error(EBUSY, "Cannot do that: it is busy"));
        break;
      default:
        backend_.Succeed(call);
    }
  }

  uint64_t Node() {
    const uint8_t which = bytes_.Byte();
    if (which == 255) return bytes_.Number(8);
    return nodes_[which % nodes_.size()];
  }
  uint64_t Handle() {
    const uint8_t which = bytes_.Byte();
    if (which == 255 || handles_.empty()) return which;
    return handles_[which % handles_.size()];
  }
  std::string Named() {
    const uint8_t which = bytes_.Byte();
    std::string name =
        which >= 250 ? bytes_.Line() : Names()[which % Names().size()];
    name = name.substr(0, name.find('\0'));
    return name + '\0';
  }
  // A structure of the protocol: zeros, or anything.
  template <typename T>
  T Struct() {
    T value{};
    if (bytes_.Byte() % 4 == 3) value = As<T>(bytes_.Raw(sizeof value));
    return value;
  }

  void Ask(uint8_t what);

  // One that the kernel waits for.
  std::optional<Kernel::Answer> Call(uint32_t opcode, uint64_t node,
                                     const std::string& payload) {
    // Where much waits already, little more is waited for.
    auto answer = kernel_.Await(Send(opcode, node, payload),
                                late_ < kMostLate ? kSoon : kSoon / 10);
    if (!answer) ++late_;
    return answer;
  }
  uint64_t Send(uint32_t opcode, uint64_t node, const std::string& payload,
                uint64_t interrupted = 0) {
    fuse_in_header header{};
    header.len = static_cast<uint32_t>(sizeof header + payload.size());
    header.opcode = opcode;
    header.unique = interrupted != 0 ? interrupted | 1 : (last_ += 2);
    header.nodeid = node;
    header.uid = header.gid = caller_;
    header.pid = caller_ == 0 ? 0 : static_cast<uint32_t>(getpid());
    const bool answered = opcode != FUSE_FORGET &&
                          opcode != FUSE_BATCH_FORGET &&
                          opcode != FUSE_INTERRUPT;
    if (answered) kernel_.Expect(header.unique);
    const std::string packet = BytesOf(header) + payload;
    // Of its very size, so that a byte too many is seen to be read.
    const std::unique_ptr<char[]> memory(new char[packet.size()]);
    std::memcpy(memory.get(), packet.data(), packet.size());
    fuse_buf buffer{};
    buffer.size = packet.size();
    buffer.mem = memory.get();
    fuse_session_process_buf(session_.get(), &buffer);
    return header.unique;
  }

  void NoteEntry(const std::optional<Kernel::Answer>& answer) {
    if (!answer || answer->error != 0) return;
    const uint64_t node = As<fuse_entry_out>(answer->data).nodeid;
    if (node != 0) nodes_.push_back(node);
  }
  void NoteOpen(const std::optional<Kernel::Answer>& answer, size_t at = 0) {
    if (!answer || answer->error != 0) return;
    handles_.push_back(As<fuse_open_out>(answer->data.substr(at)).fh);
  }
  static void CheckName(std::string_view name) {
    Check(!name.empty() && name.find('/') == name.npos &&
              name.find('\0') == name.npos,
          "a directory lists names", name);
  }
  static void CheckListing(const std::optional<Kernel::Answer>& answer,
                           size_t ahead) {
    if (!answer || answer->error != 0) return;
    const std::string_view data = answer->data;
    for (size_t at = 0; at < data.size();) {
      const auto entry = As<fuse_dirent>(data.substr(at + ahead));
      CheckName(data.substr(at + ahead + FUSE_NAME_OFFSET, entry.namelen));
      at += FUSE_DIRENT_ALIGN(ahead + FUSE_NAME_OFFSET + entry.namelen);
    }
  }

  Bytes& bytes_;
  FakeBackend backend_;
  Kernel kernel_;
  std::unique_ptr<fuse_session, SessionDeleter> session_;
  std::unique_ptr<Server> server_;
  uint64_t last_ = 0;
  size_t interrupts_ = 0;
  int late_ = 0;
  uid_t caller_ = kOwner;
  std::vector<uint64_t> nodes_ = {FUSE_ROOT_ID};
  std::vector<uint64_t> handles_;
};

void Mount::Ask(uint8_t what) {
  constexpr uid_t kCallers[] = {kOwner, kOwner, kOwner, 0, 1001};
  caller_ = kCallers[bytes_.Byte() % std::size(kCallers)];
  const uint64_t node = Node();
  switch (what % 29) {
    case 0:
    case 1:
    case 2:
    case 3:
      NoteEntry(Call(FUSE_LOOKUP, node, Named()));
      break;
    case 4: {
      auto in = Struct<fuse_getattr_in>();
      in.fh = Handle();
      (void)Call(FUSE_GETATTR, node, BytesOf(in));
      break;
    }
    case 5: {
      auto in = Struct<fuse_setattr_in>();
      in.valid = static_cast<uint32_t>(bytes_.Number(2));
      in.fh = Handle();
      (void)Call(FUSE_SETATTR, node, BytesOf(in));
      break;
    }
    case 6:
      (void)Call(FUSE_READLINK, node, "");
      break;
    case 7:
      NoteEntry(
          Call(FUSE_MKDIR, node, BytesOf(Struct<fuse_mkdir_in>()) + Named()));
      break;
    case 8:
      (void)Call(bytes_.Flag() ? FUSE_RMDIR : FUSE_UNLINK, node, Named());
      break;
    case 9: {
      auto in = Struct<fuse_rename2_in>();
      in.newdir = Node();
      const std::string names = Named() + Named();
      (void)Call(FUSE_RENAME2, node, BytesOf(in) + names);
      break;
    }
    case 10: {
      auto in = Struct<fuse_create_in>();
      in.flags |= O_CREAT | (bytes_.Flag() ? O_WRONLY : O_RDWR);
      const auto answer = Call(FUSE_CREATE, node, BytesOf(in) + Named());
      NoteEntry(answer);
      NoteOpen(answer, sizeof(fuse_entry_out));
      break;
    }
    case 11:
    case 12: {
      auto in = Struct<fuse_open_in>();
      in.flags |= bytes_.Byte() & O_ACCMODE;
      NoteOpen(Call(FUSE_OPEN, node, BytesOf(in)));
      break;
    }
    case 13: {
      auto in = Struct<fuse_read_in>();
      in.fh = Handle();
      in.size = in.size == 0 ? kMostRead : in.size % kMostRead;
      const auto answer = Call(FUSE_READ, node, BytesOf(in));
      if (answer) {
        Check(answer->data.size() <= in.size, "no more than asked for");
      }
      break;
    }
    case 14:
    case 15: {
      auto in = Struct<fuse_write_in>();
      in.fh = Handle();
      const std::string text = bytes_.Byte() % 4 == 0
                                   ? bytes_.Line()
                                   : kLines[bytes_.Byte() % std::size(kLines)];
      in.size = static_cast<uint32_t>(text.size());
      const auto answer = Call(FUSE_WRITE, node, BytesOf(in) + text);
      if (answer && answer->error == 0) {
        Check(As<fuse_write_out>(answer->data).size <= text.size(),
              "no more was written than there was");
      }
      break;
    }
    case 16: {
      auto in = Struct<fuse_flush_in>();
      in.fh = Handle();
      (void)Call(FUSE_FLUSH, node, BytesOf(in));
      break;
    }
    case 17: {
      auto in = Struct<fuse_release_in>();
      in.fh = Handle();
      (void)Call(bytes_.Flag() ? FUSE_RELEASE : FUSE_RELEASEDIR, node,
                 BytesOf(in));
      break;
    }
    case 18: {
      auto in = Struct<fuse_fsync_in>();
      in.fh = Handle();
      (void)Call(bytes_.Flag() ? FUSE_FSYNC : FUSE_FSYNCDIR, node, BytesOf(in));
      break;
    }
    case 19:
      NoteOpen(Call(FUSE_OPENDIR, node, BytesOf(Struct<fuse_open_in>())));
      break;
    case 20: {
      auto in = Struct<fuse_read_in>();
      in.fh = Handle();
      in.size = in.size == 0 ? 4096 : in.size % kMostRead;
      const bool plus = bytes_.Flag();
      CheckListing(
          Call(plus ? FUSE_READDIRPLUS : FUSE_READDIR, node, BytesOf(in)),
          plus ? sizeof(fuse_entry_out) : 0);
      break;
    }
    case 21:
      (void)Call(FUSE_STATFS, node, "");
      break;
    case 22: {
      auto in = Struct<fuse_poll_in>();
      in.fh = Handle();
      (void)Call(FUSE_POLL, node, BytesOf(in));
      break;
    }
    case 23: {
      auto in = Struct<fuse_lseek_in>();
      in.fh = Handle();
      (void)Call(FUSE_LSEEK, node, BytesOf(in));
      break;
    }
    case 24:
      (void)Send(FUSE_FORGET, node, BytesOf(Struct<fuse_forget_in>()));
      break;
    case 25: {
      fuse_batch_forget_in in{};
      in.count = bytes_.Byte() % 4;
      std::string payload = BytesOf(in);
      for (uint32_t i = 0; i < in.count; ++i) {
        payload += BytesOf(fuse_forget_one{Node(), bytes_.Byte()});
      }
      (void)Send(FUSE_BATCH_FORGET, 0, payload);
      break;
    }
    case 26: {
      // Of a request that was sent, answered or not, or of none.
      const uint64_t unique = 2ULL * bytes_.Byte();
      if (unique != 0) {
        ++interrupts_;
        (void)Send(FUSE_INTERRUPT, 0, BytesOf(fuse_interrupt_in{unique}),
                   unique);
      }
      break;
    }
    case 27: {
      const std::string names = Named() + Named();
      switch (bytes_.Byte() % 4) {
        case 0:
          (void)Call(FUSE_SYMLINK, node, names);
          break;
        case 1:
          (void)Call(FUSE_MKNOD, node,
                     BytesOf(Struct<fuse_mknod_in>()) + names);
          break;
        case 2:
          (void)Call(FUSE_LINK, node, BytesOf(fuse_link_in{Node()}) + names);
          break;
        default:
          (void)Call(FUSE_ACCESS, node, BytesOf(Struct<fuse_access_in>()));
      }
      break;
    }
    default: {
      // One that nobody serves.
      constexpr uint32_t kOthers[] = {
          FUSE_GETXATTR, FUSE_LISTXATTR, FUSE_REMOVEXATTR, FUSE_GETLK,
          FUSE_BMAP,     FUSE_IOCTL,     FUSE_FALLOCATE,   60,
          1000};
      (void)Call(kOthers[bytes_.Byte() % std::size(kOthers)], node,
                 bytes_.Raw(64) + '\0');
    }
  }
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs::fuzz;
  Bytes bytes(data, size);
  Mount mount(bytes);
  mount.Run();
  return 0;
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "fuzz", std::make_shared<sbxfs::fuzz::Listener>()));
  spdlog::set_level(spdlog::level::err);
  return 0;
}
