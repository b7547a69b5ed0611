#ifndef SBXFS_TESTS_SUPPORT_REACH_H_
#define SBXFS_TESTS_SUPPORT_REACH_H_

#include <sys/types.h>

#include <string>

#include "backend/util/unique_fd.h"

namespace sbxfs {

// Answers everybody on this machine's loopback: by TCP and UDP, IPv4 and IPv6.
class Answering {
 public:
  Answering();
  ~Answering();
  Answering(const Answering&) = delete;
  Answering& operator=(const Answering&) = delete;

  // For a shell of root's in a guest: "reached: " and the ways by which it
  // reaches this, of "tcp udp tcp6 udp6 raw", then a line for each failure.
  // QEMU's user network has this loopback as 192.168.5.2 and fec0::2.
  [[nodiscard]] std::string Probe() const;
  // For a shell in a guest: asks the proxy that egress gives it for `host` and
  // this port, or another; the first line of the answer and what came.
  [[nodiscard]] std::string Ask(const std::string& host, int port = 0) const;
  [[nodiscard]] int Port() const { return port_; }

 private:
  pid_t pid_ = -1;
  UniqueFd said_;  // closed, it would be a broken pipe
  int port_ = 0;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_REACH_H_
