#ifndef SBXFS_BACKEND_EVENT_LOOP_H_
#define SBXFS_BACKEND_EVENT_LOOP_H_

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

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_EVENT_LOOP_H_
