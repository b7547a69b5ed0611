#ifndef SBXFS_BACKEND_LIBVIRT_ERROR_H_
#define SBXFS_BACKEND_LIBVIRT_ERROR_H_

#include <string>
#include <string_view>

#include "backend/util/error.h"

namespace sbxfs {

// libvirt's last error of this thread as an Error whose sentence is
// `WHAT: libvirt's message`, e.g. what = "Cannot start 'box'". To be called at
// once after the failed call: any later call may overwrite the record.
[[nodiscard]] Error LibvirtError(std::string_view what);

// The same, thrown.
[[noreturn]] void ThrowLibvirt(std::string_view what);

// Whether the last error of this thread has this virErrorNumber.
[[nodiscard]] bool LastLibvirtErrorIs(int code);

// libvirt's version as people write it.
[[nodiscard]] std::string LibvirtVersion(unsigned long number);
// The version of a libvirt this process has to do with. One older than what
// sbxfs is made for is named by all that is not supported from now on. Returns
// what to note of it; empty for one that is new enough.
std::string NoteLibvirtVersion(unsigned long number);

// libvirt prints each error to stderr unless told otherwise; once a process.
void SilenceLibvirt();

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_ERROR_H_
