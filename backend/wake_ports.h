#ifndef SBXFS_BACKEND_WAKE_PORTS_H_
#define SBXFS_BACKEND_WAKE_PORTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "backend/forwards.h"
#include "backend/util/mutex.h"
#include "backend/util/reply.h"
#include "backend/util/unique_fd.h"
#include "backend/util/worker_pool.h"

namespace sbxfs {

// The TCP ports of saved sandboxes, held open on this machine while their QEMU
// is gone: who connects has the sandbox started, and is then carried to the
// port that QEMU has opened in the same place, by a process of its own that
// outlives this one. Thread-safe.
class WakePorts {
 public:
  using Wake = std::function<void(const std::string& uuid, Reply<Done>)>;
  using Look = std::function<void(const std::string& uuid)>;

  // `wake` has a sandbox started, and must not block; `look` does Set, now that
  // nobody is given way any more.
  WakePorts(WorkerPool& workers, Wake wake, Look look)
      : workers_(workers), wake_(std::move(wake)), look_(std::move(look)) {}
  ~WakePorts() { Stop(); }
  WakePorts(const WakePorts&) = delete;
  WakePorts& operator=(const WakePorts&) = delete;

  // Has those of the sandbox, and no others of it, open. One that somebody else
  // has is left to them.
  void Set(const std::string& uuid, const std::set<Forward>& forwards)
      EXCLUDES(mutex_);
  // Closes those of the sandbox, for QEMU to have, for as long as the result
  // lives. Who has connected by then is kept.
  [[nodiscard]] std::shared_ptr<void> GiveWay(const std::string& uuid)
      EXCLUDES(mutex_);
  // Closes all.
  void Stop() EXCLUDES(mutex_);

 private:
  struct Ear {
    std::string uuid;
    Forward forward;
    UniqueFd fd;
  };

  void Listen(const std::string& uuid, const Forward& forward) REQUIRES(mutex_);
  void Close(const std::string& uuid, const std::set<Forward>& but)
      REQUIRES(mutex_);
  // Those who have connected there.
  // False when there are no descriptors left for more.
  bool Accept(const Ear& ear) REQUIRES(mutex_);
  void Loop() EXCLUDES(mutex_);

  WorkerPool& workers_;
  const Wake wake_;
  const Look look_;
  Mutex mutex_;
  uint64_t last_ GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Ear> ears_ GUARDED_BY(mutex_);
  std::map<std::string, int> giving_way_ GUARDED_BY(mutex_);
  bool stopped_ GUARDED_BY(mutex_) = false;
  UniqueFd poll_ GUARDED_BY(mutex_);  // an epoll; there once there was an ear
  UniqueFd stop_ GUARDED_BY(mutex_);
  std::thread thread_ GUARDED_BY(mutex_);
};

// A connection to the host's side of a TCP forward; invalid when nobody listens
// there. Blocks shortly.
[[nodiscard]] UniqueFd ConnectTo(const Forward& forward);

// The name of the process that carries a connection, which main() looks for.
inline constexpr char kCarrier[] = "sbxfs-carry";
// That process, whose descriptors 3 and 4 are sockets: returns at once, and
// goes on as a process of its own.
int RunCarrier();

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_WAKE_PORTS_H_
