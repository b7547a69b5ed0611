#ifndef SBXFS_BACKEND_LIBVIRT_CONNECTION_H_
#define SBXFS_BACKEND_LIBVIRT_CONNECTION_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backend/event_loop.h"
#include "backend/libvirt_handle.h"
#include "backend/libvirt_route.h"
#include "backend/util/mutex.h"
#include "backend/util/timer.h"
#include "backend/util/worker_pool.h"

namespace sbxfs {

// The connection to libvirt: opened with a time limit, kept alive, watched, and
// opened again with growing pauses after it is lost. Events arrive on the event
// loop's thread and are passed on as they are. Thread-safe.
//
// It is in fact several: one that events come over and that the keepalive
// watches, and for calls one for each thread that makes some. libvirtd serves
// five calls of a client at once, so that guests that hang would keep all
// others waiting; and libvirt's client, up to 10.2, touches memory of threads
// that have left when two of them call over one connection (CVE-2024-4418).
class Connection {
 public:
  // All are called with no lock held, from various threads.
  struct Listener {
    // A new connection is there, its events are registered; on a worker.
    std::function<void()> connected;
    // It was lost; one line with cause and remedy.
    std::function<void(const std::string& why)> disconnected;
    // Something happened to the domain; on the event loop's thread, which must
    // not wait. `what`: lifecycle, resumed, metadata, device or reboot.
    std::function<void(const std::string& uuid, const char* what)> domain;
    // The pool was refreshed: volumes may have come or gone.
    std::function<void(const std::string& pool)> pool;
    // Networks differ from before.
    std::function<void()> network;
  };

  // `pool`: the storage pool whose UUID tells one hypervisor from another.
  Connection(std::string uri, RouteOptions route, std::string pool,
             Listener listener, Timer& timer, WorkerPool& workers);
  ~Connection() { Close(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // No listener is called any more, but for one that runs just now; Get fails.
  void Close();

  // The first opening, by the caller's thread. Throws Error with cause and
  // remedy; ETIMEDOUT after 20 s.
  void Open();
  // The same, but when it fails the listener is told, and it is tried again.
  void OpenOrRetry();

  // What this thread calls over, until it says EndUse; nothing of it may be
  // handed to another thread. Good for calls after the connection is replaced
  // (they fail then). Throws Error(EHOSTDOWN) while there is none; `what` is
  // the beginning of its sentence. May block for an opening.
  [[nodiscard]] ConnPtr Get(std::string_view what);
  // This thread makes no calls for a while, and holds no handle either.
  static void EndUse();
  // One for an object that is used by one thread after the other.
  [[nodiscard]] ConnPtr Own(std::string_view what);

  // Tries to reconnect at once when there is no connection.
  void Nudge();
  // Another way to the same hypervisor, whether there is a connection or not;
  // all or nothing. Throws Error(EBUSY) for another hypervisor. Blocks.
  void Replace(const std::string& uri);

  [[nodiscard]] std::string Uri();
  // The way that was taken last, or tried.
  [[nodiscard]] Route LastRoute();

 private:
  struct State;
  struct Lease;
  EventLoop loop_;  // outlives the state, whose last owner may be a callback
  std::shared_ptr<State> state_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_CONNECTION_H_
