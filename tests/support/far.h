#ifndef SBXFS_TESTS_SUPPORT_FAR_H_
#define SBXFS_TESTS_SUPPORT_FAR_H_

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "tests/support/guest_mount.h"

namespace sbxfs {

// A hypervisor somewhere else: a libvirtd with file systems of its own, which
// has no image or socket where this side has them, reached by a socket at
// another path, by an sshd of its own, by TCP and by TLS, on loopback or over a
// link of its own. For tests inside tests/support/inside; to be made before any
// mount, since its namespace would hold those that are there.
class FarLibvirtd {
 public:
  // `apart`: in a network of its own, with a link to it.
  explicit FarLibvirtd(bool apart = false);
  ~FarLibvirtd();
  FarLibvirtd(const FarLibvirtd&) = delete;
  FarLibvirtd& operator=(const FarLibvirtd&) = delete;

  // unix, ssh, libssh2, tcp or tls, each with all that it needs.
  [[nodiscard]] std::string Uri(const std::string& transport) const;
  // Keys, certificates and configurations.
  [[nodiscard]] const std::filesystem::path& Dir() const { return dir_; }
  // A script for sh, over there.
  Ended Run(const std::string& script) const;
  // virsh over there, which must succeed.
  std::string Virsh(const std::string& words) const;

  void KillLibvirtd();
  void StartLibvirtd();
  void SignalLibvirtd(int signal);
  // Of one that is apart: whether packets go through.
  void SetLink(bool up) const;
  void KillSshd();
  // At another port too.
  void StartSshd(uint16_t port);

  static constexpr uint16_t kSshPort = 2222;
  static constexpr uint16_t kTcpPort = 16599;
  static constexpr uint16_t kTlsPort = 16598;

 private:
  [[nodiscard]] std::string Inner() const;  // the pid of its shell

  std::filesystem::path dir_;
  std::string address_ = "127.0.0.1";
  pid_t pid_ = -1;  // of the shell that its processes hang on
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_FAR_H_
