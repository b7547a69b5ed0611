#ifndef SBXFS_BACKEND_LIBVIRT_CONNECTION_H_
#define SBXFS_BACKEND_LIBVIRT_CONNECTION_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backend/libvirt_handle.h"
#include "backend/util/mutex.h"
#include "backend/util/timer.h"
#include "backend/util/worker_pool.h"

namespace sbxfs {

// libvirt's default event loop on a thread of its own, for as long as an
// object of this class lives. libvirt keeps one loop a process, so must we.
class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
};

// The one connection to libvirt: opened with a time limit, kept alive, watched,
// and opened again with growing pauses after it is lost. Events arrive on the
// event loop's thread and are passed on as they are. Thread-safe.
class Connection {
 public:
  // All are called with no lock held, from various threads.
  struct Listener {
    // A new connection is there, its events are registered; on a worker.
    std::function<void(virConnectPtr)> connected;
    // It was lost; one line with cause and remedy.
    std::function<void(const std::string& why)> disconnected;
    // Something happened to the domain; on the event loop's thread, which must
    // not wait. `what` is for the log.
    std::function<void(const std::string& uuid, const char* what)> domain;
    // The pool was refreshed: volumes may have come or gone.
    std::function<void(const std::string& pool)> pool;
  };

  Connection(std::string uri, Listener listener, Timer& timer,
             WorkerPool& workers);
  ~Connection() { Close(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // No listener is called any more, but for one that runs just now; Get fails.
  void Close();

  // The first opening, by the caller's thread. Throws Error with cause and
  // remedy; ETIMEDOUT after 20 s.
  void Open();

  // A reference of one's own, good for calls after the connection is replaced
  // (they fail then). Throws Error(EHOSTDOWN) while there is none; `what` is
  // the beginning of its sentence.
  [[nodiscard]] ConnPtr Get(std::string_view what);

  // Tries to reconnect at once when there is no connection.
  void Nudge();
  // Other URI, same hypervisor (its host UUID decides); all or nothing.
  // Throws Error(EBUSY) for another hypervisor. Blocks.
  void Replace(const std::string& uri);

  [[nodiscard]] std::string Uri();

 private:
  struct State;
  EventLoop loop_;  // outlives the state, whose last owner may be a callback
  std::shared_ptr<State> state_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_CONNECTION_H_
