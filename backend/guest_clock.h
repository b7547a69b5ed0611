#ifndef SBXFS_BACKEND_GUEST_CLOCK_H_
#define SBXFS_BACKEND_GUEST_CLOCK_H_

#include <string>

#include "backend/core.h"

namespace sbxfs {

// A guest that was paused, saved or put back to a moment goes on with the time
// of that moment; its agent, where it has one, is told the right one. All
// functions may be called from any thread and never block.
class GuestClock {
 public:
  explicit GuestClock(Core& core) : core_(core) {}

  // The guest goes on, or begins.
  void Resumed(const std::string& uuid) { Try(uuid, 0); }

 private:
  void Try(const std::string& uuid, int round);

  Core& core_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_CLOCK_H_
