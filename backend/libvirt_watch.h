#ifndef SBXFS_BACKEND_LIBVIRT_WATCH_H_
#define SBXFS_BACKEND_LIBVIRT_WATCH_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/libvirt_handle.h"

namespace sbxfs {

// A connection that tells what happens at its other end and is kept alive, for
// as long as the object lives. The destructor makes calls, so that a peer that
// hangs holds it up.
class LibvirtWatch {
 public:
  // Called on the event loop's thread, which must not wait; until they are
  // destroyed, which may be after the watch is, they may be called once more.
  struct Sink {
    // `what`: lifecycle, resumed, metadata, device or reboot.
    std::function<void(const std::string& uuid, const char* what)> domain;
    std::function<void(const std::string& pool)> pool;
    // One began, ended, came, changed or went.
    std::function<void()> network;
    // The connection is dead; `reason` for people.
    std::function<void(const char* reason)> closed;
  };

  LibvirtWatch(ConnPtr connection, Sink sink);
  ~LibvirtWatch();
  LibvirtWatch(const LibvirtWatch&) = delete;
  LibvirtWatch& operator=(const LibvirtWatch&) = delete;

  [[nodiscard]] virConnectPtr Get() const { return connection_.get(); }

 private:
  using Handle = std::shared_ptr<const Sink>;
  // Drivers whose connection cannot close (test:///) take the close callback,
  // never call it and never free its data, so the data is a number.
  struct Watches;
  static Watches& TheWatches();
  static void Tell(void* handle, virDomainPtr domain, const char* what);
  static void OnClose(virConnectPtr, int reason, void* number);

  void Subscribe();

  const ConnPtr connection_;
  const Handle sink_;
  uintptr_t number_ = 0;
  std::vector<int> domain_events_;
  int pool_event_ = -1;
  int network_event_ = -1;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_WATCH_H_
