#ifndef SBXFS_BACKEND_GUEST_SHELL_H_
#define SBXFS_BACKEND_GUEST_SHELL_H_

#include <chrono>
#include <cstdint>
#include <optional>
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
// neither way answers, ETIMEDOUT when the script goes on for too long.
[[nodiscard]] ShellResult RunInGuest(Core& core, const std::string& uuid,
                                     const std::string& script,
                                     const std::string& input,
                                     std::chrono::seconds timeout);

// The same with an input that nobody but the guest may see: by ssh, where
// there is a way, so that it is in no log of libvirt's, whatever its level.
[[nodiscard]] ShellResult RunInGuestPrivately(Core& core,
                                              const std::string& uuid,
                                              const std::string& script,
                                              const std::string& input,
                                              std::chrono::seconds timeout);

// The same by the agent alone: for what must not take seconds.
[[nodiscard]] ShellResult RunByAgent(Core& core, const std::string& uuid,
                                     const std::string& script,
                                     const std::string& input,
                                     std::chrono::seconds timeout);

// Begins a script by the agent, for what may go on for long; `script` is on no
// command line. Its number in the guest. Blocks. Throws Error where no agent
// answers, or the script is too long.
[[nodiscard]] int64_t BeginByAgent(Core& core, const std::string& uuid,
                                   const std::string& script,
                                   const std::string& input);
// The same for one that everybody in the guest may see, with the agent's own
// environment.
[[nodiscard]] int64_t BeginPlainly(Core& core, const std::string& uuid,
                                   const std::string& script,
                                   const std::string& input);
// What became of it; nothing while it goes on. To be told once, and not by an
// agent that was started anew: throws Error.
[[nodiscard]] std::optional<ShellResult> EndedByAgent(Core& core,
                                                      const std::string& uuid,
                                                      int64_t pid);

// Runs a script as root by ssh, where there is a way: `sudo -n`, read from the
// connection, so that it is on no command line. Throws Error.
[[nodiscard]] ShellResult RunBySshAsRoot(Core& core, const std::string& uuid,
                                         const std::string& script,
                                         const std::string& input,
                                         std::chrono::seconds timeout);

// Overwrites a secret's bytes, and empties it.
void Wipe(std::string& secret);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_SHELL_H_
