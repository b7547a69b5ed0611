#ifndef SBXFS_BACKEND_DISKS_H_
#define SBXFS_BACKEND_DISKS_H_

#include <string>
#include <string_view>
#include <vector>

#include "backend/core.h"
#include "backend/util/look_order.h"
#include "backend/util/worker_pool.h"

namespace sbxfs {

// Additional disks: volumes `disk.NAME`, qcow2 files or, in a pool that has no
// files, raw, which belong to no sandbox. A domain's definition has those that
// config.yaml names; one guest at a time runs with one, and QEMU's own lock on
// the file is what holds that against whoever starts another behind our back.
class Disks {
 public:
  explicit Disks(Core& core) : core_(core) {}

  // Blocks: lists them into the catalog's host.
  void Refresh();
  // Makes one of that size, or grows it, live where a guest has it.
  void Set(const std::string& name, const std::string& size, Reply<Done> reply);
  void Remove(const std::string& name, Reply<Done> reply);

  // Throws when a sandbox of `uid` cannot have what `spec` names: EPERM for
  // another's than the mount's owner or root, since a disk has no owner that
  // libvirt could note; EINVAL for too many.
  void Check(uid_t uid, const Spec& spec, std::string_view what) const;
  // Blocks: throws when a disk that the sandbox is defined with is not there
  // (ENOENT) or runs elsewhere (EBUSY). Nobody of this mount removes one, or
  // starts with it, while the result lives.
  [[nodiscard]] std::vector<Turns::Turn> Hold(const std::string& uuid,
                                              std::string_view what);

 private:
  [[nodiscard]] Turns::Turn TurnOf(const std::string& name,
                                   std::string_view what);
  void SetNow(const std::string& name, uint64_t size, const std::string& what);
  void Grow(const std::string& name, uint64_t size, const std::string& what);
  // The uuid of the sandbox, other than `uuid`, that runs or is saved with it.
  [[nodiscard]] std::string HolderOf(const std::string& name,
                                     const std::string& uuid);

  Core& core_;
  LookOrder looks_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISKS_H_
