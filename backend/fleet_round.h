#ifndef SBXFS_BACKEND_FLEET_ROUND_H_
#define SBXFS_BACKEND_FLEET_ROUND_H_

#include <functional>
#include <vector>

#include "backend/backend.h"

namespace sbxfs {

using FleetDoing = std::function<void(Backend&, Reply<Done>)>;

// Does it on one after the other: two of them may have one pool, where the
// second finds it done. `reply` is answered after the last, with the first
// failure if there was one. Returns at once.
void DoOnEach(std::vector<Backend*> backends, FleetDoing doing,
              Reply<Done> reply);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FLEET_ROUND_H_
