#ifndef SBXFS_BACKEND_LIVE_MACHINE_H_
#define SBXFS_BACKEND_LIVE_MACHINE_H_

#include <string>

#include "backend/core.h"

namespace sbxfs {

// Gives a running guest the processors and the memory that config.yaml asks
// for, as far as those it was started with go, now and for the starts of
// others, and a larger disk with its file system. What it does not take stays
// in `pending`, which is no failure. Blocks until the guest has followed, or
// for a few seconds. Throws Error when libvirt cannot be asked.
void ChangeMachine(Core& core, const std::string& uuid);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIVE_MACHINE_H_
