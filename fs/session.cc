#include "fs/session.h"

#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <thread>
#include <utility>

#include "backend/util/unique_fd.h"
#include "fs/server.h"

namespace sbxfs {
namespace {

// Where the signal handler writes; there is one mount a process.
std::atomic<int> g_stop_fd{-1};

void Ring(int fd) {
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = write(fd, &one, sizeof(one));
}

void OnSignal(int) {
  const int saved = errno;
  if (const int fd = g_stop_fd; fd >= 0) Ring(fd);
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
  static constexpr std::array<int, 3> kSignals = {SIGTERM, SIGINT, SIGHUP};
  std::array<struct sigaction, 3> old_{};
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

ssize_t Writev(int fd, iovec* parts, int count, void*) {
  return writev(fd, parts, count);
}
ssize_t ReadFd(int fd, void* buffer, size_t size, void*) {
  return read(fd, buffer, size);
}

}  // namespace

class Session::Impl {
 public:
  Impl(Backend& backend, const SessionOptions& options)
      : options_(options), stop_(eventfd(0, EFD_CLOEXEC)) {
    if (!stop_.Valid()) throw Error(errno, "Cannot mount: no eventfd");
    server_ = std::make_unique<Server>(backend, TreeOptionsOf(options));
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

  void Run(std::function<void()> on_ready, std::function<void()> on_stopping) {
    server_->on_ready = [this, on_ready = std::move(on_ready)] {
      try {
        if (on_ready) on_ready();
      } catch (...) {
        failure_ = std::current_exception();
        Stop();
      }
    };
    Attach();
    if (options_.fd < 0) {
      const StopSignals signals(stop_.Get());
      Serve();
    } else {
      Serve();
    }
    on_stopping();
    // Callers that wait are told before the mount goes.
    server_->tree->Close();
    server_->requests->Close();
    server_->timer->Stop();  // what it tells the kernel needs the descriptor
    if (options_.fd < 0) fuse_session_unmount(session_.get());
    if (failure_) std::rethrow_exception(failure_);
  }

  void Stop() { Ring(stop_.Get()); }

 private:
  void Attach() {
    if (options_.fd >= 0) {
      // Later versions have more members.
      static const fuse_custom_io kIo = [] {
        fuse_custom_io io{};
        io.writev = Writev;
        io.read = ReadFd;
        return io;
      }();
      if (fuse_session_custom_io(session_.get(), &kIo, options_.fd) != 0) {
        throw Error(EINVAL, "Cannot serve the descriptor given");
      }
    } else if (fuse_session_mount(session_.get(),
                                  options_.mount_point.c_str()) != 0) {
      throw Error(EPERM, fmt::format("Cannot mount at '{}': the reason is "
                                     "above",
                                     options_.mount_point));
    }
  }

  // Each thread sleeps in its read: in poll(2) they would all be woken for each
  // request, as the queue of /dev/fuse wakes one reader, but all pollers.
  void Serve() {
    CatchWake();
    running_ = options_.threads;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < options_.threads; ++i) {
      threads.emplace_back([this] { Loop(); });
    }
    uint64_t rings = 0;
    while (read(stop_.Get(), &rings, sizeof(rings)) < 0 && errno == EINTR) {
    }
    stopping_ = true;
    // One that is hit on its way into the read sleeps on, so again.
    while (running_ > 0) {
      for (auto& one : threads) pthread_kill(one.native_handle(), kWake);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    for (auto& one : threads) one.join();
  }

  // libfuse's own loop ends by pthread_cancel; this one by a signal.
  void Loop() {
    fuse_session* session = session_.get();
    fuse_buf buffer{};
    while (!stopping_ && !fuse_session_exited(session)) {
      const int got = fuse_session_receive_buf(session, &buffer);
      if (got == -EINTR || got == -EAGAIN) continue;
      if (got <= 0) {
        if (got < 0) spdlog::error("Cannot read from the kernel: {}", -got);
        break;
      }
      fuse_session_process_buf(session, &buffer);
    }
    std::free(buffer.mem);
    Stop();  // the other threads too
    --running_;
  }

  SessionOptions options_;
  UniqueFd stop_;
  std::atomic<bool> stopping_ = false;
  std::atomic<unsigned> running_ = 0;
  std::unique_ptr<Server> server_;
  std::unique_ptr<fuse_session, SessionDeleter> session_;
  std::exception_ptr failure_;
};

Session::Session(Backend& backend, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(backend, options)) {}
Session::~Session() = default;
void Session::Run(std::function<void()> on_ready,
                  std::function<void()> on_stopping) {
  impl_->Run(std::move(on_ready), std::move(on_stopping));
}
void Session::Stop() { impl_->Stop(); }

}  // namespace sbxfs
