#include "fs/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <exception>
#include <thread>
#include <utility>

#include "backend/util/unique_fd.h"
#include "fs/mount_point.h"
#include "fs/server.h"

namespace sbxfs {
namespace {

// Where the signal handler writes; there is one mount a process.
std::atomic<int> g_stop_fd{-1};

// What is rung, added up in an eventfd.
constexpr uint64_t kStop = 1;
constexpr uint64_t kHandOver = uint64_t{1} << 32;

void Ring(int fd, uint64_t what) {
  [[maybe_unused]] const auto written = write(fd, &what, sizeof(what));
}

void OnSignal(int signal) {
  const int saved = errno;
  if (const int fd = g_stop_fd; fd >= 0) {
    Ring(fd, signal == SIGUSR2 ? kHandOver : kStop);
  }
  errno = saved;
}

// The signals that end a mount, for as long as it lives. libfuse's own
// handlers rely on a thread being interrupted; here any thread may get them.
class StopSignals {
 public:
  explicit StopSignals(int stop_fd) {
    g_stop_fd = stop_fd;
    struct sigaction action {};
    action.sa_handler = OnSignal;
    action.sa_flags = SA_RESTART;
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], &action, &old_[i]);
    }
    // The holder may have sent it before.
    sigset_t expected;
    sigemptyset(&expected);
    sigaddset(&expected, SIGUSR2);
    pthread_sigmask(SIG_UNBLOCK, &expected, nullptr);
  }
  ~StopSignals() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], &old_[i], nullptr);
    }
    g_stop_fd = -1;
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  static constexpr std::array<int, 4> kSignals = {SIGTERM, SIGINT, SIGHUP,
                                                  SIGUSR2};
  std::array<struct sigaction, 4> old_{};
};

// Wakes a thread that sleeps in a read. Left alone it is ignored, so that one
// too many does no harm.
constexpr int kWake = SIGURG;

void CatchWake() {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // without SA_RESTART: the read ends
  sigaction(kWake, &action, nullptr);
}

struct SessionDeleter {
  void operator()(fuse_session* session) const {
    fuse_session_destroy(session);
  }
};

TreeOptions TreeOptionsOf(const SessionOptions& options) {
  return {options.mount_point, options.program,     options.uid,
          options.gid,         options.allow_other, options.group};
}

UniqueFd MemoryOf(const SessionOptions& options) {
  if (options.memory < 0) return Channel::MakeMemory();
  return UniqueFd(fcntl(options.memory, F_DUPFD_CLOEXEC, 0));
}

// A hand-over waits for what is half written, and lets nothing new begin
// meanwhile, for so long; and is tried again so much later.
constexpr std::chrono::seconds kSettle{1};
constexpr std::chrono::seconds kTryAgain{3};

}  // namespace

class Session::Impl {
 public:
  Impl(Backend& backend, const SessionOptions& options)
      : options_(options), stop_(eventfd(0, EFD_CLOEXEC)) {
    if (!stop_.Valid()) throw Error(errno, "Cannot mount: no eventfd");
    const UniqueFd memory = MemoryOf(options);
    server_ = std::make_unique<Server>(backend, TreeOptionsOf(options),
                                       memory.Get(), options.resumed);
    std::vector<char*> argv;
    for (auto& word : options_.fuse_arguments) argv.push_back(word.data());
    fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
    session_.reset(fuse_session_new(&args, &LowlevelOps(),
                                    sizeof(fuse_lowlevel_ops), server_.get()));
    fuse_opt_free_args(&args);
    if (!session_) {
      throw Error(EINVAL,
                  "Cannot mount: libfuse does not take the options given");
    }
    server_->cache.Attach(session_.get());
  }

  // Replies need the FUSE session, so the server goes first.
  ~Impl() { server_.reset(); }

  Ending Run(std::function<void()> on_ready,
             std::function<void()> on_stopping) {
    server_->on_ready = [this, on_ready = std::move(on_ready)] {
      try {
        if (on_ready) on_ready();
      } catch (...) {
        failure_ = std::current_exception();
        Stop();
      }
    };
    Attach();
    std::optional<StopSignals> signals;
    if (IsMount()) signals.emplace(stop_.Get());
    if (options_.resumed) GoOn();
    const Ending ending = Serve();
    if (ending == Ending::kHandedOver) {
      server_->book->Close();
      server_->channel.Detach(server_->tree->backend.Remember());
    } else {
      on_stopping();
    }
    // Callers that wait are told before the mount goes.
    server_->tree->Close();
    server_->requests->Close();
    server_->timer->Stop();  // what it tells the kernel needs the descriptor
    if (ending == Ending::kUnmounted) Unmount();
    if (failure_) std::rethrow_exception(failure_);
    return ending;
  }

  void Stop() { Ring(stop_.Get(), kStop); }
  void HandOver() { Ring(stop_.Get(), kHandOver); }

 private:
  [[nodiscard]] bool IsMount() const {
    return options_.fd < 0 || options_.mounted || options_.resumed;
  }

  void Attach() {
    int fd = options_.fd;
    if (fd < 0) {
      if (fuse_session_mount(session_.get(), options_.mount_point.c_str()) !=
          0) {
        throw Error(EPERM, fmt::format("Cannot mount at '{}': the reason is "
                                       "above",
                                       options_.mount_point));
      }
      fd = fuse_session_fd(session_.get());
    }
    if (IsMount() && !options_.resumed) options_.on_mounted(fd);
    server_->channel.Attach(session_.get(), fd);
  }

  void GoOn() {
    try {
      const std::string remembered = server_->channel.Recall();
      if (!remembered.empty()) server_->tree->backend.Recall(remembered);
    } catch (const Error& error) {
      spdlog::error("{}", error.Sentence());
    }
    server_->channel.Resume();
  }

  // libfuse knows the directory of what it has mounted itself.
  void Unmount() {
    if (options_.fd < 0) {
      fuse_session_unmount(session_.get());
    } else if (options_.resumed && !fuse_session_exited(session_.get())) {
      UnmountBusy(options_.mount_point);
    }
  }

  // Each thread sleeps in its read: in poll(2) they would all be woken for each
  // request, as the queue of /dev/fuse wakes one reader, but all pollers.
  Ending Serve() {
    CatchWake();
    running_ = options_.threads;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < options_.threads; ++i) {
      threads.emplace_back([this] { Loop(); });
    }
    const Ending ending = WaitForEnd();
    stopping_ = true;
    // One that is hit on its way into the read sleeps on, so again.
    while (running_ > 0) {
      for (auto& one : threads) pthread_kill(one.native_handle(), kWake);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    for (auto& one : threads) one.join();
    return ending;
  }

  Ending WaitForEnd() {
    bool wanted = false;
    while (true) {
      const uint64_t rung = WaitForRing(wanted ? kTryAgain : kForEver);
      if ((rung & (kHandOver - 1)) != 0) return Ending::kUnmounted;
      wanted = wanted || rung != 0;
      if (wanted && Settle()) return Ending::kHandedOver;
    }
  }

  // What was rung; 0: nothing.
  uint64_t WaitForRing(std::chrono::milliseconds limit) {
    pollfd event{stop_.Get(), POLLIN, 0};
    uint64_t rung = 0;
    if (poll(&event, 1, static_cast<int>(limit.count())) > 0 &&
        read(stop_.Get(), &rung, sizeof(rung)) < 0) {
      rung = 0;
    }
    return rung;
  }

  // Lets what has begun come to its end and nothing else begin; then nothing
  // at all. False when that takes too long, and everything goes on.
  bool Settle() {
    const auto deadline = std::chrono::steady_clock::now() + kSettle;
    std::string why;
    const auto settled = [&] {
      why = server_->Unfinished();
      if (why.empty() && server_->channel.IsChanging()) {
        why = "a change takes its time";
      }
      return why.empty();
    };
    while (std::chrono::steady_clock::now() < deadline && !stopping_) {
      kept_ = Kept::kNew;
      if (settled()) {
        kept_ = Kept::kAll;
        if (settled()) return true;
        kept_ = Kept::kNew;
        server_->channel.ServeDeferred(
            [this](const void* request) { return IsKept(request); });
      }
      poll(nullptr, 0, 2);
    }
    kept_ = Kept::kNone;
    server_->channel.ServeDeferred([](const void*) { return false; });
    spdlog::warn("Cannot hand the mount over yet: {}; tried again", why);
    return false;
  }

  [[nodiscard]] bool IsKept(const void* request) {
    switch (kept_.load()) {
      case Kept::kNone:
        return false;
      case Kept::kNew:
        return Channel::Begins(request, [this](uint64_t handle) {
          const auto open = server_->files.Find(handle);
          return open && open->Commands();
        });
      default:
        return Channel::Begins(request, [](uint64_t) { return true; }) ||
               Channel::Changes(request);
    }
  }

  // libfuse's own loop ends by pthread_cancel; this one by a signal.
  void Loop() {
    const auto defer = [this](const void* request) { return IsKept(request); };
    while (!stopping_ && !fuse_session_exited(session_.get())) {
      const int error = server_->channel.ServeOne(defer);
      if (error == 0 || error == EINTR || error == EAGAIN) continue;
      if (error != ENODEV) {
        spdlog::error("Cannot read from the kernel: {}", error);
      }
      break;
    }
    if (!stopping_) Stop();  // the other threads too
    --running_;
  }

  static constexpr std::chrono::milliseconds kForEver{-1};
  // Which requests are kept for the next daemon.
  enum class Kept { kNone, kNew, kAll };

  SessionOptions options_;
  UniqueFd stop_;
  std::atomic<Kept> kept_ = Kept::kNone;
  std::atomic<bool> stopping_ = false;
  std::atomic<unsigned> running_ = 0;
  std::unique_ptr<Server> server_;
  std::unique_ptr<fuse_session, SessionDeleter> session_;
  std::exception_ptr failure_;
};

Session::Session(Backend& backend, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(backend, options)) {}
Session::~Session() = default;
Ending Session::Run(std::function<void()> on_ready,
                    std::function<void()> on_stopping) {
  return impl_->Run(std::move(on_ready), std::move(on_stopping));
}
void Session::Stop() { impl_->Stop(); }
void Session::HandOver() { impl_->HandOver(); }

}  // namespace sbxfs
