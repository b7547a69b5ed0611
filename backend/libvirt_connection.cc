#include "backend/libvirt_connection.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <random>
#include <utility>

#include "backend/libvirt_error.h"
#include "backend/libvirt_open.h"
#include "backend/util/error.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// A dead peer is noticed after 5 s times 3 without an answer.
constexpr int kKeepAliveInterval = 5;
constexpr unsigned kKeepAliveCount = 2;
constexpr auto kFirstPause = 250ms;
constexpr auto kLongestPause = 8000ms;
// A burst of work may have opened many; this many are kept for the next.
constexpr size_t kMostIdle = 8;

// The closing of a connection is a call, too: a peer that hangs must hold up
// nobody.
void CloseSoon(std::vector<ConnPtr> old) {
  if (old.empty()) return;
  std::thread([old = std::move(old)]() mutable { old.clear(); }).detach();
}

const char* CloseReason(int reason) {
  switch (reason) {
    case VIR_CONNECT_CLOSE_REASON_EOF:
      return "libvirtd ended or closed it";
    case VIR_CONNECT_CLOSE_REASON_KEEPALIVE:
      return "libvirtd did not answer for 15 s";
    case VIR_CONNECT_CLOSE_REASON_CLIENT:
      return "it was closed here";
    default:
      return "an error on the way";
  }
}

}  // namespace

struct Connection::State : std::enable_shared_from_this<State> {
  State(Listener listener_arg, Timer& timer_arg, WorkerPool& workers_arg)
      : listener(std::move(listener_arg)),
        timer(timer_arg),
        workers(workers_arg) {}

  const Listener listener;
  Timer& timer;
  WorkerPool& workers;

  Mutex mutex;
  std::string uri GUARDED_BY(mutex);
  ConnPtr connection GUARDED_BY(mutex);
  uint64_t generation GUARDED_BY(mutex) = 0;  // of `connection`
  bool closing GUARDED_BY(mutex) = false;
  bool trying GUARDED_BY(mutex) = false;
  std::chrono::milliseconds pause GUARDED_BY(mutex){kFirstPause};
  // For calls, of this generation, with nobody's call in them just now.
  std::vector<ConnPtr> idle GUARDED_BY(mutex);
  std::vector<int> domain_events GUARDED_BY(mutex);
  int pool_event GUARDED_BY(mutex) = -1;

  using Weak = std::weak_ptr<State>;
  // Whom a close callback means: by number, since it may come late.
  struct Watch {
    Weak state;
    uint64_t generation;
  };
  struct Watches {
    Mutex mutex;
    uintptr_t last GUARDED_BY(mutex) = 0;
    std::map<uintptr_t, Watch> all GUARDED_BY(mutex);
  };
  static Watches& TheWatches();

  void Adopt(ConnPtr fresh) EXCLUDES(mutex);
  void Subscribe(virConnectPtr fresh, uint64_t number) EXCLUDES(mutex);
  static void Tell(void* weak, virDomainPtr domain, const char* what);
  static void OnClose(virConnectPtr, int reason, void* data);
  void Lost(uint64_t number, int reason) EXCLUDES(mutex);
  void Retry(bool now) EXCLUDES(mutex);
  void TryOnce() EXCLUDES(mutex);
  void Unsubscribe(virConnectPtr old) EXCLUDES(mutex);
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

Connection::State::Watches& Connection::State::TheWatches() {
  static Watches watches;
  return watches;
}

void Connection::State::OnClose(virConnectPtr, int reason, void* data) {
  std::shared_ptr<State> state;
  uint64_t number = 0;
  {
    Watches& watches = TheWatches();
    MutexLock lock(watches.mutex);
    const auto found = watches.all.find(reinterpret_cast<uintptr_t>(data));
    if (found == watches.all.end()) return;
    state = found->second.state.lock();
    number = found->second.generation;
  }
  if (state == nullptr || state->Closing()) return;
  // On the event loop's thread: the rest is a worker's.
  state->workers.Run([state, number, reason] { state->Lost(number, reason); });
}

void Connection::State::Tell(void* weak, virDomainPtr domain,
                             const char* what) {
  char uuid[VIR_UUID_STRING_BUFLEN];
  const auto state = static_cast<Weak*>(weak)->lock();
  if (state != nullptr && !state->Closing() &&
      virDomainGetUUIDString(domain, uuid) == 0) {
    state->listener.domain(uuid, what);
  }
}

// Registers what is told to us: all callbacks hold weak references, since
// libvirt may run one while we are being destroyed.
void Connection::State::Subscribe(virConnectPtr fresh, uint64_t number) {
  // The test driver has no keepalive; its peer cannot die.
  if (virConnectSetKeepAlive(fresh, kKeepAliveInterval, kKeepAliveCount) < 0) {
    virResetLastError();
  }
  auto opaque = [this] { return new Weak(weak_from_this()); };
  auto free_weak = [](void* data) { delete static_cast<Weak*>(data); };
  auto on_lifecycle = [](virConnectPtr, virDomainPtr domain, int event, int,
                         void* data) -> int {
    Tell(data, domain,
         event == VIR_DOMAIN_EVENT_RESUMED ? "resumed" : "lifecycle");
    return 0;
  };
  auto on_metadata = [](virConnectPtr, virDomainPtr domain, int, const char*,
                        void* data) { Tell(data, domain, "metadata"); };
  auto on_reboot = [](virConnectPtr, virDomainPtr domain, void* data) {
    Tell(data, domain, "reboot");
  };
  auto on_balloon = [](virConnectPtr, virDomainPtr domain, unsigned long long,
                       void* data) { Tell(data, domain, "device"); };
  auto on_device = [](virConnectPtr, virDomainPtr domain, const char*,
                      void* data) { Tell(data, domain, "device"); };
  auto on_pool = [](virConnectPtr, virStoragePoolPtr pool, void* data) {
    auto state = static_cast<Weak*>(data)->lock();
    if (state != nullptr && !state->Closing()) {
      state->listener.pool(virStoragePoolGetName(pool));
    }
  };
  // Drivers whose connection cannot close (test:///) take the callback, never
  // call it and never free its data, so the data is a number.
  Watches& watches = TheWatches();
  uintptr_t id = 0;
  {
    MutexLock lock(watches.mutex);
    id = ++watches.last;
    watches.all.emplace(id, Watch{weak_from_this(), number});
  }
  if (virConnectRegisterCloseCallback(
          fresh, &OnClose, reinterpret_cast<void*>(id), nullptr) < 0) {
    virResetLastError();
  }
  std::vector<int> events;
  auto listen = [&](int event, auto callback) {
    events.push_back(virConnectDomainEventRegisterAny(
        fresh, nullptr, event, VIR_DOMAIN_EVENT_CALLBACK(callback), opaque(),
        free_weak));
  };
  listen(VIR_DOMAIN_EVENT_ID_LIFECYCLE,
         virConnectDomainEventCallback(on_lifecycle));
  listen(VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
         virConnectDomainEventMetadataChangeCallback(on_metadata));
  listen(VIR_DOMAIN_EVENT_ID_REBOOT,
         virConnectDomainEventGenericCallback(on_reboot));
  listen(VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
         virConnectDomainEventBalloonChangeCallback(on_balloon));
  listen(VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
         virConnectDomainEventDeviceAddedCallback(on_device));
  listen(VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
         virConnectDomainEventDeviceRemovedCallback(on_device));
  virConnectStoragePoolEventGenericCallback pool = on_pool;
  const int pool_number = virConnectStoragePoolEventRegisterAny(
      fresh, nullptr, VIR_STORAGE_POOL_EVENT_ID_REFRESH,
      VIR_STORAGE_POOL_EVENT_CALLBACK(pool), opaque(), free_weak);
  virResetLastError();
  MutexLock lock(mutex);
  domain_events = std::move(events);
  pool_event = pool_number;
}

// Takes the callbacks off, which libvirt wants before a close.
void Connection::State::Unsubscribe(virConnectPtr old) {
  std::vector<int> events;
  int pool = -1;
  {
    MutexLock lock(mutex);
    events.swap(domain_events);
    std::swap(pool, pool_event);
  }
  for (const int id : events) {
    if (id >= 0) virConnectDomainEventDeregisterAny(old, id);
  }
  if (pool >= 0) virConnectStoragePoolEventDeregisterAny(old, pool);
  virConnectUnregisterCloseCallback(old, &OnClose);
  {
    Watches& watches = TheWatches();
    MutexLock lock(watches.mutex);
    std::erase_if(watches.all, [this](const auto& watch) {
      const auto state = watch.second.state.lock();
      return state == nullptr || state.get() == this;
    });
  }
  virResetLastError();
}

void Connection::State::Adopt(ConnPtr fresh) {
  uint64_t number = 0;
  std::vector<ConnPtr> old;
  {
    MutexLock lock(mutex);
    number = ++generation;
    old.swap(idle);
  }
  Subscribe(fresh.get(), number);
  {
    MutexLock lock(mutex);
    if (connection != nullptr) old.push_back(std::move(connection));
    connection = std::move(fresh);
    pause = kFirstPause;
  }
  CloseSoon(std::move(old));
  listener.connected();
}

void Connection::State::Lost(uint64_t number, int reason) {
  std::vector<ConnPtr> old;
  {
    MutexLock lock(mutex);
    if (number != generation || connection == nullptr || closing) return;
    old.swap(idle);
    old.push_back(std::move(connection));
  }
  spdlog::error("The connection to libvirt is lost: {}", CloseReason(reason));
  Unsubscribe(old.back().get());
  CloseSoon(std::move(old));
  listener.disconnected(
      fmt::format("{}; trying again by itself", CloseReason(reason)));
  Retry(true);
}

void Connection::State::Retry(bool now) {
  std::chrono::milliseconds wait;
  {
    MutexLock lock(mutex);
    if (closing || connection != nullptr || trying) return;
    wait = now ? 0ms : pause;
    pause = std::min(pause * 2, std::chrono::milliseconds(kLongestPause));
  }
  static thread_local std::minstd_rand random(std::random_device{}());
  // Jitter: several mounts of one daemon must not come back in step.
  wait += std::chrono::milliseconds(random() % (wait.count() / 4 + 1));
  timer.After(wait, [weak = weak_from_this()] {
    auto state = weak.lock();
    if (state == nullptr) return;
    state->workers.Run([state] { state->TryOnce(); });
  });
}

void Connection::State::TryOnce() {
  std::string to;
  {
    MutexLock lock(mutex);
    if (closing || connection != nullptr || trying) return;
    trying = true;
    to = uri;
  }
  try {
    Adopt(OpenLibvirtConnection(to));
    spdlog::warn("Connected to libvirt again");
    MutexLock lock(mutex);
    trying = false;
  } catch (const Error& error) {
    {
      MutexLock lock(mutex);
      trying = false;
    }
    listener.disconnected(error.Sentence());
    Retry(false);
  }
}

Connection::Connection(std::string uri, Listener listener, Timer& timer,
                       WorkerPool& workers)
    : state_(std::make_shared<State>(std::move(listener), timer, workers)) {
  MutexLock lock(state_->mutex);
  state_->uri = std::move(uri);
}

void Connection::Close() {
  std::vector<ConnPtr> old;
  ConnPtr last;
  {
    MutexLock lock(state_->mutex);
    state_->closing = true;
    last = std::move(state_->connection);
    old.swap(state_->idle);
  }
  if (last != nullptr) state_->Unsubscribe(last.get());
}

void Connection::Open() {
  std::string uri = Uri();
  ConnPtr fresh;
  if (uri.empty()) {
    // libvirt's own choice (LIBVIRT_DEFAULT_URI, libvirt.conf, probing), and
    // where that fails the one that needs nothing set up.
    try {
      fresh = OpenLibvirtConnection("");
    } catch (const Error& first) {
      spdlog::info("libvirt's default: {}", first.Sentence());
      fresh = OpenLibvirtConnection("qemu:///session");
    }
    uri = TakeString(virConnectGetURI(fresh.get()));
    MutexLock lock(state_->mutex);
    state_->uri = uri;
  } else {
    fresh = OpenLibvirtConnection(uri);
  }
  state_->Adopt(std::move(fresh));
}

ConnPtr Connection::State::Borrow(std::string_view what, uint64_t& number) {
  std::string to;
  for (;;) {
    ConnPtr lent;
    {
      MutexLock lock(mutex);
      if (connection == nullptr) {
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
    return OpenLibvirtConnection(to);
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
    const bool keep = alive && number == generation && connection != nullptr &&
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
           state_->connection != nullptr;
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
  ConnPtr fresh = OpenLibvirtConnection(uri);
  if (HostUuid(fresh.get()) != HostUuid(Get(what).get())) {
    throw Error(EBUSY, what +
                           ": it is another hypervisor; mount that one in "
                           "a directory of its own");
  }
  ConnPtr old;
  {
    MutexLock lock(state_->mutex);
    old = std::move(state_->connection);
    state_->uri = uri;
  }
  if (old != nullptr) state_->Unsubscribe(old.get());
  state_->Adopt(std::move(fresh));
}

std::string Connection::Uri() {
  MutexLock lock(state_->mutex);
  return state_->uri;
}

}  // namespace sbxfs
