#include "backend/libvirt_connection.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <optional>
#include <random>
#include <shared_mutex>
#include <utility>

#include "backend/domain_xml.h"
#include "backend/libvirt_error.h"
#include "backend/libvirt_open.h"
#include "backend/libvirt_watch.h"
#include "backend/util/error.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kFirstPause = 250ms;
// Whoever comes back is found again within five seconds.
constexpr std::chrono::milliseconds kLongestPause = 3000ms;
// A burst of work may have opened many; this many are kept for the next.
constexpr size_t kMostIdle = 8;
// What is under way gets that long before another URI is refused.
constexpr auto kOpenPatience = 25s;

// The closing of a connection is a call, too: a peer that hangs must hold up
// nobody.
template <typename Old>
void CloseSoon(Old old) {
  if (old == Old()) return;
  std::thread([old = std::move(old)]() mutable { Old().swap(old); }).detach();
}

// What tells one hypervisor from another: the UUID of the pool of sandboxes,
// which lasts. The host's own UUID is made anew at each start of a libvirtd
// whose machine has no SMBIOS, as many virtual machines and containers have
// none, and a machine's system and session libvirt have it in common; it serves
// where there is no such pool, with the test driver.
std::string Identity(virConnectPtr connection, const std::string& name) {
  const PoolPtr pool(virStoragePoolLookupByName(connection, name.c_str()));
  char uuid[VIR_UUID_STRING_BUFLEN];
  if (pool != nullptr && virStoragePoolGetUUIDString(pool.get(), uuid) == 0) {
    return fmt::format("pool {}", uuid);
  }
  const std::string xml = TakeString(virConnectGetCapabilities(connection));
  if (xml.empty()) ThrowLibvirt("Cannot ask for the hypervisor's identity");
  virResetLastError();
  return fmt::format("host {}", XmlText(xml, "/capabilities/host/uuid"));
}

}  // namespace

struct Connection::State : std::enable_shared_from_this<State> {
  State(RouteOptions route_arg, std::string pool_arg, Listener listener_arg,
        Timer& timer_arg, WorkerPool& workers_arg)
      : options(std::move(route_arg)),
        pool(std::move(pool_arg)),
        listener(std::move(listener_arg)),
        timer(timer_arg),
        workers(workers_arg) {}

  const RouteOptions options;
  const std::string pool;
  const Listener listener;
  Timer& timer;
  WorkerPool& workers;

  // Shared by calls of libvirt's that are under way, none of which waits for
  // anything: what they call must not be destroyed before.
  std::shared_mutex calling;

  Mutex mutex;
  CondVar freed;
  std::string uri GUARDED_BY(mutex);
  std::string identity GUARDED_BY(mutex);  // of the hypervisor; empty at first
  Route route GUARDED_BY(mutex);           // the last
  std::shared_ptr<LibvirtWatch> watch GUARDED_BY(mutex);
  uint64_t generation GUARDED_BY(mutex) = 0;  // of `watch`
  uint64_t last_generation GUARDED_BY(mutex) = 0;
  bool closing GUARDED_BY(mutex) = false;
  bool opening GUARDED_BY(mutex) = false;  // somebody makes a new `watch`
  std::optional<Timer::Id> retry GUARDED_BY(mutex);
  Clock::time_point last_try GUARDED_BY(mutex);
  std::chrono::milliseconds pause GUARDED_BY(mutex){kFirstPause};
  // For calls, of this generation, with nobody's call in them just now.
  std::vector<ConnPtr> idle GUARDED_BY(mutex);

  ConnPtr OpenBy(const std::string& to) EXCLUDES(mutex);
  void CheckIdentity(virConnectPtr fresh, const std::string& what)
      EXCLUDES(mutex);
  LibvirtWatch::Sink SinkOf(uint64_t number);
  void Install(ConnPtr fresh, const std::string& to) EXCLUDES(mutex);
  void Lost(uint64_t number, const char* reason) EXCLUDES(mutex);
  void Retry(bool now) EXCLUDES(mutex);
  void TryOnce() EXCLUDES(mutex);
  void EndOpening() EXCLUDES(mutex);
  // For exclusive use. Throws as Get does.
  ConnPtr Borrow(std::string_view what, uint64_t& number) EXCLUDES(mutex);
  void GiveBack(ConnPtr lent, uint64_t number) EXCLUDES(mutex);
  bool Closing() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    return closing;
  }
};

// What this thread has borrowed.
struct Connection::Lease {
  std::shared_ptr<State> from;
  uint64_t number = 0;
  ConnPtr connection;
  static Lease& Mine() {
    static thread_local Lease lease;
    return lease;
  }
};

ConnPtr Connection::State::OpenBy(const std::string& to) {
  Route found = FindRoute(to, options);
  auto note = [&] {
    MutexLock lock(mutex);
    route = found;
  };
  // How a hypervisor is reached is of interest while it is not.
  if (to == [&] {
        MutexLock lock(mutex);
        return uri;
      }()) {
    note();
  }
  ConnPtr fresh = OpenLibvirtConnection(found);
  note();
  return fresh;
}

// What was in flight, or somebody's cron, must not hit a box of the same name
// somewhere else.
void Connection::State::CheckIdentity(virConnectPtr fresh,
                                      const std::string& what) {
  std::string known;
  {
    MutexLock lock(mutex);
    known = identity;
  }
  if (known.empty() || Identity(fresh, pool) == known) return;
  throw Error(EBUSY, what +
                         ": it is another hypervisor; mount that one in a "
                         "directory of its own");
}

// All hold weak references, since libvirt may call while we are destroyed.
LibvirtWatch::Sink Connection::State::SinkOf(uint64_t number) {
  const std::weak_ptr<State> weak = weak_from_this();
  const auto call = [weak](const auto& what) {
    const auto state = weak.lock();
    if (state == nullptr) return;
    const std::shared_lock under_way(state->calling);
    if (!state->Closing()) what(state);
  };
  return {.domain =
              [call](const std::string& uuid, const char* what) {
                call([&](const auto& state) {
                  state->listener.domain(uuid, what);
                });
              },
          .pool =
              [call](const std::string& name) {
                call([&](const auto& state) { state->listener.pool(name); });
              },
          .network =
              [call] {
                call([](const auto& state) { state->listener.network(); });
              },
          .closed =
              [call, number](const char* reason) {
                // On the event loop's thread: the rest is a worker's.
                call([&](const auto& state) {
                  state->workers.Run(
                      [state, number, reason] { state->Lost(number, reason); });
                });
              }};
}

// Callers have `opening`. When the listener cannot be brought in step all is as
// before.
void Connection::State::Install(ConnPtr fresh, const std::string& to) {
  uint64_t number = 0;
  {
    MutexLock lock(mutex);
    number = ++last_generation;
  }
  auto made = std::make_shared<LibvirtWatch>(std::move(fresh), SinkOf(number));
  std::shared_ptr<LibvirtWatch> before = made;
  std::string uri_before = to;
  uint64_t generation_before = number;
  std::vector<ConnPtr> old;
  {
    MutexLock lock(mutex);
    watch.swap(before);
    uri.swap(uri_before);
    std::swap(generation, generation_before);
    old.swap(idle);
  }
  CloseSoon(std::move(old));
  try {
    listener.connected();
    std::string learned = Identity(made->Get(), pool);
    MutexLock lock(mutex);
    identity = std::move(learned);
    pause = kFirstPause;
  } catch (...) {
    {
      MutexLock lock(mutex);
      watch = before;
      uri = uri_before;
      generation = generation_before;
      old.swap(idle);
    }
    CloseSoon(std::move(old));
    CloseSoon(std::move(made));
    // It may have died meanwhile, unheeded.
    if (before != nullptr && virConnectIsAlive(before->Get()) != 1) {
      Lost(generation_before, "it ended meanwhile");
    }
    throw;
  }
  CloseSoon(std::move(before));
}

void Connection::State::Lost(uint64_t number, const char* reason) {
  std::vector<ConnPtr> old;
  std::shared_ptr<LibvirtWatch> dead;
  {
    MutexLock lock(mutex);
    if (number != generation || watch == nullptr || closing) return;
    old.swap(idle);
    dead.swap(watch);
  }
  spdlog::error("The connection to libvirt is lost: {}", reason);
  CloseSoon(std::move(old));
  CloseSoon(std::move(dead));
  listener.disconnected(fmt::format("{}; trying again by itself", reason));
  Retry(true);
}

// One try is planned at a time; `now` brings it forward, but for a short pause
// after the last.
void Connection::State::Retry(bool now) {
  static thread_local std::minstd_rand random(std::random_device{}());
  MutexLock lock(mutex);
  if (closing || watch != nullptr || opening) return;
  std::chrono::milliseconds wait = pause;
  if (now) {
    const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(
        Clock::now() - last_try);
    wait = std::clamp(kFirstPause - since, std::chrono::milliseconds(0),
                      kFirstPause);
    if (retry) timer.Cancel(*retry);
  } else if (retry) {
    return;
  } else {
    // Jitter: several mounts of one daemon must not come back in step.
    wait += std::chrono::milliseconds(random() % (wait.count() / 4 + 1));
    pause = std::min(pause * 2, kLongestPause);
  }
  retry = timer.After(wait, [weak = weak_from_this()] {
    auto state = weak.lock();
    if (state == nullptr) return;
    state->workers.Run([state] { state->TryOnce(); });
  });
}

void Connection::State::TryOnce() {
  std::string to;
  {
    MutexLock lock(mutex);
    retry.reset();
    if (closing || watch != nullptr || opening) return;
    opening = true;
    to = uri;
  }
  try {
    ConnPtr fresh = OpenBy(to);
    CheckIdentity(fresh.get(), fmt::format("Cannot go on with '{}'", to));
    Install(std::move(fresh), to);
    spdlog::warn("Connected to libvirt again");
  } catch (const Error& error) {
    listener.disconnected(error.Sentence());
  }
  EndOpening();
}

void Connection::State::EndOpening() {
  {
    MutexLock lock(mutex);
    opening = false;
    last_try = Clock::now();
    freed.NotifyAll();
  }
  Retry(false);
}

Connection::Connection(std::string uri, RouteOptions route, std::string pool,
                       Listener listener, Timer& timer, WorkerPool& workers)
    : state_(std::make_shared<State>(std::move(route), std::move(pool),
                                     std::move(listener), timer, workers)) {
  MutexLock lock(state_->mutex);
  state_->uri = std::move(uri);
}

void Connection::Close() {
  std::vector<ConnPtr> old;
  std::shared_ptr<LibvirtWatch> last;
  {
    MutexLock lock(state_->mutex);
    state_->closing = true;
    last.swap(state_->watch);
    old.swap(state_->idle);
  }
  const std::unique_lock none(state_->calling);
}

void Connection::OpenOrRetry() {
  try {
    Open();
  } catch (const Error& error) {
    state_->listener.disconnected(error.Sentence());
    state_->Retry(false);
  }
}

void Connection::Open() {
  std::string uri = Uri();
  ConnPtr fresh;
  if (uri.empty()) {
    // libvirt's own choice (LIBVIRT_DEFAULT_URI, libvirt.conf, probing), and
    // where that fails the one that needs nothing set up.
    try {
      fresh = state_->OpenBy("");
    } catch (const Error& first) {
      spdlog::info("libvirt's default: {}", first.Sentence());
      fresh = state_->OpenBy("qemu:///session");
    }
    uri = TakeString(virConnectGetURI(fresh.get()));
  }
  // What libvirt chose may be no way for us.
  fresh = state_->OpenBy(uri);
  state_->Install(std::move(fresh), uri);
}

ConnPtr Connection::State::Borrow(std::string_view what, uint64_t& number) {
  std::string to;
  for (;;) {
    ConnPtr lent;
    {
      MutexLock lock(mutex);
      if (watch == nullptr) {
        throw Error(EHOSTDOWN, fmt::format("{}: there is no connection to "
                                           "libvirt; see .host/connection",
                                           what));
      }
      number = generation;
      to = uri;
      if (idle.empty()) break;
      lent = std::move(idle.back());
      idle.pop_back();
    }
    if (virConnectIsAlive(lent.get()) == 1) return lent;
  }
  try {
    ConnPtr fresh = OpenBy(to);
    CheckIdentity(fresh.get(), fmt::format("Cannot connect to '{}'", to));
    return fresh;
  } catch (const Error& error) {
    throw Error(error.Errno() == ETIMEDOUT ? ETIMEDOUT : EHOSTDOWN,
                fmt::format("{}: {}", what, error.Sentence()));
  }
}

void Connection::State::GiveBack(ConnPtr lent, uint64_t number) {
  const bool alive = virConnectIsAlive(lent.get()) == 1;
  std::vector<ConnPtr> old;
  {
    MutexLock lock(mutex);
    const bool keep = alive && number == generation && watch != nullptr &&
                      !closing && idle.size() < kMostIdle;
    (keep ? idle : old).push_back(std::move(lent));
  }
  CloseSoon(std::move(old));
}

ConnPtr Connection::Get(std::string_view what) {
  Lease& lease = Lease::Mine();
  const bool fits = [&] {
    MutexLock lock(state_->mutex);
    return lease.from == state_ && lease.number == state_->generation &&
           state_->watch != nullptr;
  }();
  if (!fits || virConnectIsAlive(lease.connection.get()) != 1) {
    EndUse();
    try {
      lease.connection = state_->Borrow(what, lease.number);
    } catch (const Error&) {
      Nudge();
      throw;
    }
    lease.from = state_;
  }
  virConnectRef(lease.connection.get());
  return ConnPtr(lease.connection.get());
}

void Connection::EndUse() {
  Lease& lease = Lease::Mine();
  if (lease.from == nullptr) return;
  const auto from = std::move(lease.from);
  from->GiveBack(std::move(lease.connection), lease.number);
}

ConnPtr Connection::Own(std::string_view what) {
  uint64_t number = 0;
  return state_->Borrow(what, number);
}

void Connection::Nudge() { state_->Retry(true); }

void Connection::Replace(const std::string& uri) {
  const std::string what = fmt::format("Cannot change to '{}'", uri);
  {
    MutexLock lock(state_->mutex);
    const auto deadline = Clock::now() + kOpenPatience;
    while (state_->opening) {
      if (!state_->freed.WaitUntil(state_->mutex, deadline)) {
        throw Error(ETIMEDOUT, what +
                                   ": another change, or a try to connect, "
                                   "does not end; try again");
      }
    }
    state_->opening = true;
  }
  try {
    ConnPtr fresh = state_->OpenBy(uri);
    state_->CheckIdentity(fresh.get(), what);
    state_->Install(std::move(fresh), uri);
  } catch (...) {
    state_->EndOpening();
    throw;
  }
  state_->EndOpening();
}

std::string Connection::Uri() {
  MutexLock lock(state_->mutex);
  return state_->uri;
}

Route Connection::LastRoute() {
  MutexLock lock(state_->mutex);
  return state_->route;
}

}  // namespace sbxfs
