#include "backend/event_loop.h"

#include <libvirt/libvirt.h>

#include <atomic>
#include <thread>
#include <utility>

#include "backend/libvirt_error.h"
#include "backend/util/log.h"
#include "backend/util/mutex.h"

namespace sbxfs {
namespace {

// One loop a process: libvirt has no way to take an implementation off again.
struct Loop {
  Mutex mutex;
  int users GUARDED_BY(mutex) = 0;
  std::thread thread GUARDED_BY(mutex);
  std::atomic<bool> stop = false;
};

Loop& TheLoop() {
  static Loop loop;
  return loop;
}

}  // namespace

EventLoop::EventLoop() {
  static const bool registered = [] {
    SilenceLibvirt();
    return virEventRegisterDefaultImpl() == 0;
  }();
  if (!registered) ThrowLibvirt("Cannot start libvirt's event loop");
  Loop& loop = TheLoop();
  MutexLock lock(loop.mutex);
  if (loop.users++ > 0) return;
  loop.stop = false;
  loop.thread = std::thread([&loop] {
    while (!loop.stop) {
      if (virEventRunDefaultImpl() < 0) {
        spdlog::error("{}", LibvirtError("libvirt's event loop").Sentence());
        return;
      }
    }
  });
}

EventLoop::~EventLoop() {
  Loop& loop = TheLoop();
  std::thread thread;
  {
    MutexLock lock(loop.mutex);
    if (--loop.users > 0) return;
    thread = std::move(loop.thread);
    loop.stop = true;
  }
  // A timeout that is due wakes the loop's poll; it takes itself off.
  struct Wake {
    static void Call(int id, void*) { virEventRemoveTimeout(id); }
  };
  virEventAddTimeout(0, &Wake::Call, nullptr, nullptr);
  if (thread.joinable()) thread.join();
}

}  // namespace sbxfs
