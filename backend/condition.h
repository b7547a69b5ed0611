#ifndef SBXFS_BACKEND_CONDITION_H_
#define SBXFS_BACKEND_CONDITION_H_

#include <string>

#include "backend/backend.h"

namespace sbxfs {

// A domain's state and why it is in it, in our words.
struct Condition {
  State state;
  std::string reason;
};
// From what virDomainGetState says of one that is off; `saved`: its memory is.
[[nodiscard]] Condition WhenOff(int reason, bool saved);
// The same of one that is on.
[[nodiscard]] Condition WhenOn(int state, int reason);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_CONDITION_H_
