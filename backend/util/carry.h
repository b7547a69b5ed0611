#ifndef SBXFS_BACKEND_UTIL_CARRY_H_
#define SBXFS_BACKEND_UTIL_CARRY_H_

namespace sbxfs {

// Carries bytes between two stream sockets, both ways, until both ways have
// ended or one of the sockets fails; an end is passed on. Blocks for as long as
// that takes; neither way waits for the other. Makes both non-blocking, and
// closes none.
void Carry(int left, int right);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_CARRY_H_
