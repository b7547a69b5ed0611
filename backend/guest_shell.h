#ifndef SBXFS_BACKEND_GUEST_SHELL_H_
#define SBXFS_BACKEND_GUEST_SHELL_H_

#include <chrono>
#include <string>

#include "backend/core.h"

namespace sbxfs {

struct ShellResult {
  int status = 0;
  std::string output;  // stdout
};

// Runs `script` by /bin/sh in a running guest: through the guest agent (60 to
// 100 ms under emulation), else by ssh with the mount's key (1 to 2 s). As
// root by the agent, as the guest's user by ssh. Blocks. Throws Error when
// neither way answers.
[[nodiscard]] ShellResult RunInGuest(Core& core, const std::string& uuid,
                                     const std::string& script,
                                     const std::string& input,
                                     std::chrono::seconds timeout);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_SHELL_H_
