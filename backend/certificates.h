#ifndef SBXFS_BACKEND_CERTIFICATES_H_
#define SBXFS_BACKEND_CERTIFICATES_H_

#include <cstdint>
#include <string>

#include "backend/core.h"

namespace sbxfs {

// What a certificate must name for a sandbox's guest to let it in: the uuid,
// which a rename keeps and no other sandbox has, and when those that had been
// issued were revoked, if ever.
[[nodiscard]] std::string PrincipalOf(const std::string& uuid, Time revoked);

// The line of authorized_keys that lets in whom that CA, a public key, has
// certified for that principal.
[[nodiscard]] std::string AuthorityLine(const std::string& principal,
                                        const std::string& ca);

// Has the CA whose private key is that file certify a public key, for ten
// minutes from now on, by ssh-keygen: the certificate, a line. Blocks. Throws
// Error.
struct CertificateRequest {
  std::string key;  // public
  std::string principal;
  std::string id;  // for people: sshd logs it
  uint64_t serial = 0;
};
[[nodiscard]] std::string SignCertificate(const std::string& ca_file,
                                          const CertificateRequest& request);

// ssh_cert: short-lived certificates for the ssh of sandboxes whose config.yaml
// has ssh.ca. None is stored; the guest knows the CA by its authorized_keys.
class Certificates {
 public:
  explicit Certificates(Core& core) : core_(core) {}

  // As Backend has it.
  void Certify(const Caller& caller, const std::string& uuid,
               const std::string& key, Reply<Certificate> reply);
  // Blocks, with the sandbox's turn held: none counts any more, once the guest
  // has its authorized_keys anew.
  void Revoke(const std::string& uuid, const std::string& what);

 private:
  [[nodiscard]] Certificate CertifyNow(const Caller& caller,
                                       const std::string& uuid,
                                       const std::string& key);
  // The public key that somebody logs in with. Throws Error(ENOKEY).
  [[nodiscard]] std::string UsualKey(const Caller& caller) const;
  [[nodiscard]] uint64_t NextSerial() EXCLUDES(mutex_);

  Core& core_;
  Mutex mutex_;
  uint64_t last_serial_ GUARDED_BY(mutex_) = 0;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_CERTIFICATES_H_
