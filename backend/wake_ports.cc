#include "backend/wake_ports.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "backend/ports.h"
#include "backend/util/carry.h"
#include "backend/util/log.h"
#include "backend/util/socket.h"
#include "backend/util/spawn.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr int kLeft = 3;
constexpr int kRight = 4;
constexpr int kWaiting = 64;
constexpr uint64_t kStopped = 0;  // no ear has it
// A relay of ours opens a guest's port a moment after the guest has.
constexpr auto kOpens = 10s;
constexpr auto kPause = 50ms;

// Blocks, for a moment.
void CarryOn(int client, const Forward& forward) {
  const auto until = std::chrono::steady_clock::now() + kOpens;
  UniqueFd server = ConnectTo(forward);
  while (!server.Valid() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(kPause);
    server = ConnectTo(forward);
  }
  if (!server.Valid()) {
    spdlog::warn("Nobody listens at {} of a guest that was started for it",
                 HostSide(forward));
    return;
  }
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  (void)AwaitExit(Spawn("/proc/self/exe", {kCarrier},
                        {{null.Get(), STDIN_FILENO},
                         {null.Get(), STDOUT_FILENO},
                         {null.Get(), STDERR_FILENO},
                         {client, kLeft},
                         {server.Get(), kRight}}));
}

}  // namespace

UniqueFd ConnectTo(const Forward& forward) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // 0.0.0.0 leads to this machine.
  const auto address = Ipv4Address(forward.host_ip, forward.host_port);
  if (!address ||
      connect(fd.Get(), reinterpret_cast<const sockaddr*>(&*address),
              sizeof(*address)) != 0) {
    fd.Reset();
  }
  return fd;
}

void WakePorts::Set(const std::string& uuid,
                    const std::set<Forward>& forwards) {
  MutexLock lock(mutex_);
  if (stopped_) return;
  const bool open = !giving_way_.contains(uuid);
  Close(uuid, open ? forwards : std::set<Forward>());
  if (!open) return;
  for (const Forward& forward : forwards) {
    const auto there =
        std::find_if(ears_.begin(), ears_.end(), [&](const auto& entry) {
          return entry.second.uuid == uuid && entry.second.forward == forward;
        });
    if (there == ears_.end()) Listen(uuid, forward);
  }
}

void WakePorts::Listen(const std::string& uuid, const Forward& forward) {
  int error = 0;
  UniqueFd fd = BindTo(forward, error);
  if (error != 0 || listen(fd.Get(), kWaiting) != 0) {
    spdlog::debug("Cannot listen at {} for a saved sandbox: it is taken",
                  HostSide(forward));
    return;
  }
  fcntl(fd.Get(), F_SETFL, O_NONBLOCK);
  if (!poll_.Valid()) {
    poll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
    stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kStopped;
    epoll_ctl(poll_.Get(), EPOLL_CTL_ADD, stop_.Get(), &event);
    thread_ = std::thread([this] { Loop(); });
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = ++last_;
  epoll_ctl(poll_.Get(), EPOLL_CTL_ADD, fd.Get(), &event);
  ears_[last_] = {uuid, forward, std::move(fd)};
}

void WakePorts::Close(const std::string& uuid, const std::set<Forward>& but) {
  for (auto at = ears_.begin(); at != ears_.end();) {
    const Ear& ear = at->second;
    if (ear.uuid != uuid || but.contains(ear.forward)) {
      ++at;
      continue;
    }
    // The kernel resets who was not accepted yet.
    (void)Accept(ear);
    at = ears_.erase(at);
  }
}

std::shared_ptr<void> WakePorts::GiveWay(const std::string& uuid) {
  MutexLock lock(mutex_);
  ++giving_way_[uuid];
  Close(uuid, {});
  return {nullptr, [this, uuid](void*) {
            {
              MutexLock lock(mutex_);
              if (--giving_way_[uuid] > 0) return;
              giving_way_.erase(uuid);
            }
            look_(uuid);
          }};
}

bool WakePorts::Accept(const Ear& ear) {
  for (;;) {
    const auto client = std::make_shared<UniqueFd>(
        accept4(ear.fd.Get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client->Valid()) return errno != EMFILE && errno != ENFILE;
    workers_.Run([this, client, uuid = ear.uuid, forward = ear.forward] {
      // Whoever is not carried on is hung up on.
      wake_(uuid, Reply<Done>([this, client, forward](Outcome<Done> outcome) {
              if (const auto* error = std::get_if<Error>(&outcome)) {
                spdlog::info("{}", error->Sentence());
                return;
              }
              workers_.Run(
                  [client, forward] { CarryOn(client->Get(), forward); });
            }));
    });
  }
}

void WakePorts::Loop() {
  int poll = -1;
  {
    MutexLock lock(mutex_);
    poll = poll_.Get();
  }
  for (;;) {
    std::array<epoll_event, 16> events;
    const int count = epoll_wait(poll, events.data(), events.size(), -1);
    bool starved = false;
    {
      MutexLock lock(mutex_);
      for (int i = 0; i < count; ++i) {
        if (events.at(i).data.u64 == kStopped) return;
        const auto ear = ears_.find(events.at(i).data.u64);
        if (ear != ears_.end() && !Accept(ear->second)) starved = true;
      }
    }
    // Who waits still does, and epoll would say so at once.
    if (starved) std::this_thread::sleep_for(kPause);
  }
}

void WakePorts::Stop() {
  std::thread thread;
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    ears_.clear();
    if (stop_.Valid()) eventfd_write(stop_.Get(), 1);
    thread.swap(thread_);
  }
  if (thread.joinable()) thread.join();
}

int RunCarrier() {
  // Who spawned it waits for this process alone.
  if (fork() != 0) return 0;
  close_range(kRight + 1, ~0U, 0);
  prctl(PR_SET_NAME, kCarrier);
  Carry(kLeft, kRight);
  return 0;
}

}  // namespace sbxfs
