#ifndef SBXFS_BACKEND_DISK_CONFINE_H_
#define SBXFS_BACKEND_DISK_CONFINE_H_

namespace sbxfs {

// Takes from this process, which has one thread, all but its memory, of which
// it may have some hundred MiB, and reading and writing of what it has open:
// any other system call ends it. Throws Error when the kernel cannot do that.
// Under a sanitizer, which needs many of them, it does nothing.
void Confine();

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_CONFINE_H_
