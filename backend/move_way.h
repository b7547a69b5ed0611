#ifndef SBXFS_BACKEND_MOVE_WAY_H_
#define SBXFS_BACKEND_MOVE_WAY_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/core.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

// How the QEMU of one hypervisor finds that of another while a running guest
// moves, for as long as this lives. From a hypervisor that is reached by ssh
// nothing leads to this machine but ssh itself, which carries the guest's
// memory and disk then.
class MoveWay {
 public:
  // Blocks. Throws Error, `what` first, when ssh cannot be had.
  MoveWay(Core& from, Core& to, std::string_view what);
  ~MoveWay();
  MoveWay(const MoveWay&) = delete;
  MoveWay& operator=(const MoveWay&) = delete;

  // As libvirt's migration parameters of these names; empty or 0: libvirt's own
  // choice.
  std::string uri;
  std::string listen_address;
  int disks_port = 0;

 private:
  void ThroughSsh(const std::vector<std::string>& ssh, std::string_view what);
  [[nodiscard]] bool Begin(const std::vector<std::string>& ssh, uint16_t memory,
                           uint16_t disks, std::string& said);
  void End();

  pid_t ssh_ = -1;
  UniqueFd stdin_;  // its end is ssh's
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOVE_WAY_H_
