#ifndef SBXFS_BACKEND_DISK_FILES_H_
#define SBXFS_BACKEND_DISK_FILES_H_

#include <memory>
#include <string>

#include "backend/core.h"
#include "backend/file_tree.h"

namespace sbxfs {

// The files on the disk of a sandbox that is off or saved, or on the frozen
// layers of a snapshot of any (`tag`), read-only: those of its root file
// system, which has to be ext2, ext3 or ext4. Their blocks come by libvirt from
// wherever the pool is, and no path of the hypervisor's is opened here; what is
// in them is made sense of by a process of its own, which lives for as long as
// the result or what it has opened (see backend/disk).
//
// A sandbox's own disk is what it was when it was opened: once the sandbox was
// started, put on another layer or resized, all functions throw Error(ESTALE),
// and the result is to be made anew. Those of a snapshot that is gone or was
// replaced do so, too.
//
// Blocks: some calls for each layer. Throws Error: EBUSY for a sandbox that is
// on, ENOENT for no such snapshot or volume, EOPNOTSUPP or EINVAL for a disk
// that is none to be read. The first question of all reads the file system's
// own tables, and throws what those of the disk come to. `program` is what
// reads it, for tests.
[[nodiscard]] std::shared_ptr<FileTree> OpenDiskFiles(
    Core& core, const std::string& uuid, const std::string& tag,
    const std::string& program = "/proc/self/exe");

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_FILES_H_
