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

// libvirt prints each error to stderr unless told otherwise; once a process.
void SilenceLibvirt();

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_ERROR_H_
