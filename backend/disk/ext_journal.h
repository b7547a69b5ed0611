#ifndef SBXFS_BACKEND_DISK_EXT_JOURNAL_H_
#define SBXFS_BACKEND_DISK_EXT_JOURNAL_H_

#include "backend/disk/ext_device.h"

namespace sbxfs {

// What a mount would write in place first, of a file system that was not
// unmounted: the blocks of all transactions that were committed, by jbd2's
// format. Nothing for one that needs none of it, that keeps its journal on
// another disk, or whose journal cannot be read: what is in place is shown
// then. Fast commits, which mkfs.ext4 does not turn on, are left out. Hostile
// input. Throws what reading the disk throws.
[[nodiscard]] ExtDetours ReplayJournal(ExtDevice& device);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_EXT_JOURNAL_H_
