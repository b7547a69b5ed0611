#ifndef SBXFS_BACKEND_MOVE_H_
#define SBXFS_BACKEND_MOVE_H_

#include <string>

#include "backend/core.h"
#include "backend/provision.h"
#include "backend/relay.h"

namespace sbxfs {

// One of the two hypervisors of a move.
struct MoveEnd {
  Core& core;
  Provision& provision;
  Relay& relay;
};

// Blocks, on a worker of `from`, whose turn the caller holds: takes a stopped
// or running sandbox with its snapshots to another hypervisor, under the same
// uuid. What its disk stands on goes along where it is not there. All or
// nothing; given up when `reply` is answered before a guest's memory is on its
// way. Throws Error.
//
// In a pool that both have nothing is copied. Else frozen volumes are, byte by
// byte; libvirt's migration moves a guest's
// memory and the layer that it writes to, but refuses domains with snapshots,
// and of a stopped one moves the definition alone.
void MoveSandbox(const MoveEnd& from, const MoveEnd& to,
                 const std::string& uuid, const std::string& what,
                 const Reply<Done>& reply);

// The first bytes of a qcow2 file with another name of what it stands on.
// Throws Error(EIO) when `head`, its first cluster, has no room for it.
[[nodiscard]] std::string WithBacking(std::string head,
                                      const std::string& backing);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOVE_H_
