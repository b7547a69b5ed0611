#include "backend/libvirt_watch.h"

#include <libvirt/virterror.h>

#include <cstdint>
#include <map>
#include <utility>

#include "backend/util/mutex.h"

namespace sbxfs {
namespace {

// A dead peer is noticed after 5 s times 3 without an answer.
constexpr int kKeepAliveInterval = 5;
constexpr unsigned kKeepAliveCount = 2;

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

struct LibvirtWatch::Watches {
  Mutex mutex;
  uintptr_t last GUARDED_BY(mutex) = 0;
  std::map<uintptr_t, std::weak_ptr<const Sink>> all GUARDED_BY(mutex);
};

// Never destroyed: a connection is closed by a thread that nobody waits for,
// which may be at it as the process ends.
LibvirtWatch::Watches& LibvirtWatch::TheWatches() {
  static auto* watches = new Watches;
  return *watches;
}

void LibvirtWatch::OnClose(virConnectPtr, int reason, void* number) {
  Handle sink;
  {
    Watches& watches = TheWatches();
    MutexLock lock(watches.mutex);
    const auto found = watches.all.find(reinterpret_cast<uintptr_t>(number));
    if (found == watches.all.end()) return;
    sink = found->second.lock();
  }
  if (sink != nullptr) sink->closed(CloseReason(reason));
}

void LibvirtWatch::Tell(void* handle, virDomainPtr domain, const char* what) {
  char uuid[VIR_UUID_STRING_BUFLEN];
  if (virDomainGetUUIDString(domain, uuid) == 0) {
    (*static_cast<Handle*>(handle))->domain(uuid, what);
  }
}

LibvirtWatch::LibvirtWatch(ConnPtr connection, Sink sink)
    : connection_(std::move(connection)),
      sink_(std::make_shared<const Sink>(std::move(sink))) {
  Subscribe();
}

// All callbacks hold the sink, since libvirt may run one while the watch is
// being destroyed.
void LibvirtWatch::Subscribe() {
  const virConnectPtr conn = connection_.get();
  // The test driver has no keepalive; its peer cannot die.
  virConnectSetKeepAlive(conn, kKeepAliveInterval, kKeepAliveCount);
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
    (*static_cast<Handle*>(data))->pool(virStoragePoolGetName(pool));
  };
  auto on_network = [](virConnectPtr, virNetworkPtr, int, int, void* data) {
    (*static_cast<Handle*>(data))->network();
  };
  {
    Watches& watches = TheWatches();
    MutexLock lock(watches.mutex);
    number_ = ++watches.last;
    watches.all.emplace(number_, sink_);
  }
  virConnectRegisterCloseCallback(conn, &OnClose,
                                  reinterpret_cast<void*>(number_), nullptr);
  auto free_handle = [](void* data) { delete static_cast<Handle*>(data); };
  // libvirt frees what it took alone.
  auto registered = [](int id, Handle* handle) {
    if (id < 0) delete handle;
    return id;
  };
  auto listen = [&](int event, auto callback) {
    auto* handle = new Handle(sink_);
    domain_events_.push_back(registered(
        virConnectDomainEventRegisterAny(conn, nullptr, event,
                                         VIR_DOMAIN_EVENT_CALLBACK(callback),
                                         handle, free_handle),
        handle));
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
  auto* handle = new Handle(sink_);
  pool_event_ = registered(
      virConnectStoragePoolEventRegisterAny(
          conn, nullptr, VIR_STORAGE_POOL_EVENT_ID_REFRESH,
          VIR_STORAGE_POOL_EVENT_CALLBACK(pool), handle, free_handle),
      handle);
  virConnectNetworkEventLifecycleCallback network = on_network;
  handle = new Handle(sink_);
  network_event_ =
      registered(virConnectNetworkEventRegisterAny(
                     conn, nullptr, VIR_NETWORK_EVENT_ID_LIFECYCLE,
                     VIR_NETWORK_EVENT_CALLBACK(network), handle, free_handle),
                 handle);
  virResetLastError();
}

// libvirt wants the callbacks off before a close.
LibvirtWatch::~LibvirtWatch() {
  const virConnectPtr conn = connection_.get();
  for (const int id : domain_events_) {
    if (id >= 0) virConnectDomainEventDeregisterAny(conn, id);
  }
  if (pool_event_ >= 0) {
    virConnectStoragePoolEventDeregisterAny(conn, pool_event_);
  }
  if (network_event_ >= 0) {
    virConnectNetworkEventDeregisterAny(conn, network_event_);
  }
  virConnectUnregisterCloseCallback(conn, &OnClose);
  {
    Watches& watches = TheWatches();
    MutexLock lock(watches.mutex);
    watches.all.erase(number_);
  }
  virResetLastError();
}

}  // namespace sbxfs
