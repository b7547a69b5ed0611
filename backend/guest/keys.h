#ifndef SBXFS_BACKEND_GUEST_KEYS_H_
#define SBXFS_BACKEND_GUEST_KEYS_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace sbxfs {

struct KeyPair {
  std::string private_key;  // OpenSSH PEM; a secret
  std::string public_key;   // "ssh-ed25519 AAAA…", no comment
};

// A new ed25519 pair. Throws Error(EIO).
[[nodiscard]] KeyPair MakeKeyPair();

// The pair in `path` (and `path`.pub), made there, 0600, when missing; its
// directory too, 0700. Two processes may race: one pair wins. Throws Error
// with open's errno, EACCES for a key that others may read (ssh would refuse
// it), EINVAL for one that is damaged or has a passphrase.
[[nodiscard]] KeyPair LoadOrMakeKeyPair(const std::string& path);

// The lines of ~/.ssh/*.pub of `uid`, whatever can be read, sorted by name.
[[nodiscard]] std::vector<std::string> DotSshPublicKeys(uid_t uid);
// The same of any directory. Lines that are no public key are left out, so
// that a link to another's file tells nothing that is not public.
[[nodiscard]] std::vector<std::string> PublicKeysIn(
    const std::string& directory);

// Throws Error(EINVAL) naming the line of `text` that is no authorized_keys
// line; blank lines and comments pass.
void CheckAuthorizedKeys(std::string_view text);
// The same of a line that is to be a public key without options.
void CheckPublicKey(std::string_view line);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_KEYS_H_
