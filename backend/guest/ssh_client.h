#ifndef SBXFS_BACKEND_GUEST_SSH_CLIENT_H_
#define SBXFS_BACKEND_GUEST_SSH_CLIENT_H_

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "backend/guest/keys.h"

struct ssh_session_struct;

namespace sbxfs {

// Whether an ssh server on 127.0.0.1:`port` sends its banner within `timeout`.
// QEMU's user-mode forward accepts TCP before the guest listens, so a connect
// alone says nothing. Blocks; never throws for a guest that is not there.
[[nodiscard]] bool SshAnswers(int port, std::chrono::milliseconds timeout);

struct SshTarget {
  int port = 0;  // on 127.0.0.1
  std::string user;
  std::string host_key;  // "ssh-ed25519 AAAA…": checked, never waved through
  KeyPair identity;
};
struct SshResult {
  int status = 0;      // of the command; 255 when a signal ended it
  std::string output;  // stdout, at most 1 MiB
};
// Runs `command` in the guest and waits, `timeout` at most, overall. Throws
// Error: EHOSTUNREACH (no answer, or the connection broke), EKEYREJECTED
// (another host key), EACCES (identity refused), ETIMEDOUT.
[[nodiscard]] SshResult SshRun(const SshTarget& target,
                               const std::string& command,
                               const std::string& input,
                               std::chrono::milliseconds timeout);

// A connection that is logged in, for ssh_handle.h's users; `first` was run
// there before, and said that. Errors of SshRun's, soon once it is `given_up`.
// Non-blocking.
struct SshLogin {
  std::shared_ptr<ssh_session_struct> session;
  SshResult said;
};
[[nodiscard]] SshLogin SshLogIn(const SshTarget& target,
                                const std::string& first,
                                std::chrono::milliseconds timeout,
                                const std::atomic<bool>& given_up);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_SSH_CLIENT_H_
