#ifndef SBXFS_BACKEND_DISK_CONFINE_H_
#define SBXFS_BACKEND_DISK_CONFINE_H_

namespace sbxfs {

// Takes from this process, which has one thread, all but its memory, of which
// it may have some hundred MiB, and reading and writing of what it has open:
// any other system call ends it. Throws Error when the kernel cannot do that.
void Confine();
// False under a sanitizer, which needs many of them: Confine does nothing then.
[[nodiscard]] bool CanConfine();

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_CONFINE_H_
