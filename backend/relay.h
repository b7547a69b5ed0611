#ifndef SBXFS_BACKEND_RELAY_H_
#define SBXFS_BACKEND_RELAY_H_

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "backend/core.h"
#include "backend/forwards.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

// The ports of guests on a hypervisor that is reached by ssh, opened on this
// machine at the same numbers for as long as this daemon lives: one ssh of its
// own, to whose master forwards are added and taken away while guests run. So
// 127.0.0.1:PORT leads to a guest wherever that is, and nothing has to be open
// on the hypervisor but to itself. Thread-safe.
class Relay {
 public:
  explicit Relay(Core& core) : core_(core) {}
  // No worker runs any more.
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // Brings the ports of that sandbox in step with what its guest forwards.
  // Returns at once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);
  // Closes the ports of that sandbox, whose guest is to listen here itself, and
  // opens none until Release. Blocks until that is done, 15 s at most.
  void Withhold(const std::string& uuid) EXCLUDES(mutex_);
  void Release(const std::string& uuid) EXCLUDES(mutex_);

 private:
  using Ports = std::set<Forward>;

  // On one worker at a time, which alone has what is not guarded.
  void Work() EXCLUDES(mutex_);
  void Settle(const std::string& uuid) EXCLUDES(mutex_);
  [[nodiscard]] Ports Wanted(const std::string& uuid) const EXCLUDES(mutex_);
  void Tend() EXCLUDES(mutex_);
  // Throws Error when there is no way.
  void NeedMaster();
  [[nodiscard]] bool MasterLives();
  void EndMaster();
  // ssh's -O: tells the master; its words when it refuses.
  [[nodiscard]] std::string Tell(const std::string& command,
                                 const Forward& forward) const;

  Core& core_;
  mutable Mutex mutex_;
  std::set<std::string> due_ GUARDED_BY(mutex_);
  std::set<std::string> withheld_ GUARDED_BY(mutex_);
  std::string settling_ GUARDED_BY(mutex_);
  bool working_ GUARDED_BY(mutex_) = false;
  bool tending_ GUARDED_BY(mutex_) = false;

  std::map<std::string, Ports> open_;
  std::map<std::string, std::string> told_;  // failures
  pid_t master_ = -1;
  UniqueFd master_stdin_;         // its end is the master's
  std::vector<std::string> ssh_;  // to its host, which it was started with
  std::filesystem::path socket_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_RELAY_H_
