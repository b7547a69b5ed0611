#ifndef SBXFS_TESTS_SUPPORT_GUEST_DISK_H_
#define SBXFS_TESTS_SUPPORT_GUEST_DISK_H_

#include <string>

namespace sbxfs {

// What is in the disks of blank guests, behind sbxfs's back: by qemu-io in the
// file of a stopped one, by QEMU's monitor in a running one.

// Path of the file that the domain writes to now.
[[nodiscard]] std::string DiskPath(const std::string& domain);
// Fills the 64 KiB block of that number with a byte. Failures are the test's.
void Fill(const std::string& domain, int block, int byte);
// Whether that block is full of that byte.
[[nodiscard]] bool Holds(const std::string& domain, int block, int byte);
// The same of any image file, with what it stands on.
[[nodiscard]] bool FileHolds(const std::string& path, int block, int byte);

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_GUEST_DISK_H_
