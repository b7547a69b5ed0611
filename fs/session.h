#ifndef SBXFS_FS_SESSION_H_
#define SBXFS_FS_SESSION_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"

namespace sbxfs {

struct SessionOptions {
  std::string mount_point;  // absolute
  // For fuse_session_new, argv[0] included (FuseArguments makes them).
  std::vector<std::string> fuse_arguments = {"sbxfs"};
  std::string program;  // absolute path of sbxfs, for ProxyCommand
  uid_t uid = 0;        // the mount's owner
  gid_t gid = 0;
  bool allow_other = false;
  std::optional<gid_t> group;  // with allow_other: who may make sandboxes
  // Handlers never wait, and more threads than processors only wake each other.
  unsigned threads = std::clamp(std::thread::hardware_concurrency(), 2U, 4U);
  // A descriptor to serve; it is taken over. -1: mount.
  int fd = -1;
  // It is a mount's, not a test's in the place of one: whoever made it also
  // takes it away.
  bool mounted = false;
  // It is a mount that another daemon served.
  bool resumed = false;
  // The Channel's memory, by whoever holds the mount; -1: of this session.
  int memory = -1;
  // Called with the mount's descriptor before the kernel is answered.
  std::function<void(int)> on_mounted = [](int) {};
};

enum class Ending {
  kUnmounted,
  kHandedOver,  // still mounted: another daemon is to go on
};

// A mount: owns the FUSE session, its threads and its signal handlers. One a
// process, but for those with `fd`.
class Session {
 public:
  // Observes `backend`, which must outlive this, from here on.
  // Throws Error when libfuse takes the arguments amiss.
  Session(Backend& backend, const SessionOptions& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Mounts and serves until unmounted, stopped, or told by SIGTERM, SIGINT or
  // SIGHUP, also while the mount is busy; or until SIGUSR2 or HandOver, as soon
  // as nothing is half written. `on_ready` is called once, when the
  // kernel can be answered; what it throws ends the session and is thrown.
  // `on_stopping` is called once it is to be unmounted, before those who wait
  // are told so. Throws Error when it cannot be mounted.
  Ending Run(
      std::function<void()> on_ready,
      std::function<void()> on_stopping = [] {});

  // End Run from another thread.
  void Stop();
  void HandOver();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_SESSION_H_
