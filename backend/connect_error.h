#ifndef SBXFS_BACKEND_CONNECT_ERROR_H_
#define SBXFS_BACKEND_CONNECT_ERROR_H_

#include <string>
#include <string_view>

#include "backend/util/error.h"

namespace sbxfs {

// libvirt's last error as that of an opening of `uri`, which is empty for
// libvirt's own default: what failed, and what to do about it.
[[nodiscard]] Error ConnectError(const std::string& uri);

// The cause and the remedy, where one is known, of an opening of `uri` that
// failed with `message`; `root`: who opens it. A pure function.
[[nodiscard]] std::string ConnectFailure(std::string_view message,
                                         std::string_view uri, bool root);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_CONNECT_ERROR_H_
