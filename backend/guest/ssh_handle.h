#ifndef SBXFS_BACKEND_GUEST_SSH_HANDLE_H_
#define SBXFS_BACKEND_GUEST_SSH_HANDLE_H_

#include <libssh/libssh.h>

#include <memory>
#include <string>

namespace sbxfs {

// libssh's objects, owned. Included by .cc files alone.

struct SshDeleter {
  void operator()(ssh_key key) const { ssh_key_free(key); }
  void operator()(ssh_session session) const {
    // No goodbye: it could block on a guest that reads nothing. And no
    // ssh_silent_disconnect: since libssh 0.11 it forgets a socket that was
    // given to it without closing it, which ssh_free does.
    ssh_free(session);
  }
  void operator()(ssh_channel channel) const { ssh_channel_free(channel); }
  void operator()(char* text) const { ssh_string_free_char(text); }
};
template <typename T>
using SshPtr = std::unique_ptr<T, SshDeleter>;
using SshKeyPtr = SshPtr<ssh_key_struct>;
using SshSessionPtr = SshPtr<ssh_session_struct>;
using SshChannelPtr = SshPtr<ssh_channel_struct>;

// Null for what is no private key, or one with a passphrase.
[[nodiscard]] SshKeyPtr ImportPrivateKey(const std::string& pem);
// Of "TYPE BASE64…"; null for what is no public key.
[[nodiscard]] SshKeyPtr ImportPublicKey(const std::string& line);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_SSH_HANDLE_H_
