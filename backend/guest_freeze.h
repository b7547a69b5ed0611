#ifndef SBXFS_BACKEND_GUEST_FREEZE_H_
#define SBXFS_BACKEND_GUEST_FREEZE_H_

#include <libvirt/libvirt.h>

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "backend/core.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// A running guest whose file systems are frozen by its agent, for as long as
// this lives. A guest is frozen until somebody thaws it: a note in the live
// definition lets any later daemon do so for one that was killed.
class GuestFreeze {
 public:
  // Blocks, for about two seconds at most. Never throws: a guest that cannot
  // be frozen is not.
  explicit GuestFreeze(virDomainPtr domain);
  ~GuestFreeze();
  GuestFreeze(const GuestFreeze&) = delete;
  GuestFreeze& operator=(const GuestFreeze&) = delete;

  // The guest has written everything out and writes no more.
  [[nodiscard]] bool Holds() const { return holds_; }

 private:
  const virDomainPtr domain_;
  bool holds_ = false;
};

// When a guest was frozen by a daemon that has not thawed it yet.
[[nodiscard]] std::optional<std::chrono::system_clock::time_point> FrozenSince(
    std::string_view domain_xml);

// Thaws guests whose daemon did not live to do it.
class Thaw {
 public:
  explicit Thaw(Core& core) : core_(core) {}

  // The domain's XML was read. Returns at once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);

 private:
  void Try(const std::string& uuid) EXCLUDES(mutex_);

  Core& core_;
  Mutex mutex_;
  std::set<std::string> watched_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_FREEZE_H_
