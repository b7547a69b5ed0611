#ifndef SBXFS_BACKEND_MOUNT_NINE_P_H_
#define SBXFS_BACKEND_MOUNT_NINE_P_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/spec.h"

// Directories that QEMU serves to its guest by virtio-9p: there from the
// guest's start to its end, with the rights of the user whom QEMU runs as.
// Pure.

namespace sbxfs {

// A <filesystem> of a domain.
struct HostDirectory {
  std::string tag;         // what the guest asks for; TagOf
  std::string location;    // absolute
  std::string accessmode;  // libvirt's word
  bool writable = false;
};
// Of the mounts of an expanded spec.
[[nodiscard]] std::vector<HostDirectory> DirectoriesOf(const Spec& spec);
// Another for everything of the mount but its name.
[[nodiscard]] std::string TagOf(const MountSpec& mount);
[[nodiscard]] bool IsTag(std::string_view name);

// For a shell in the guest: mounts it where it belongs; unmounts it, and fails
// with umount's words where it is in use and not to go `lazily`.
[[nodiscard]] std::string NinePMountScript(const MountSpec& mount);
[[nodiscard]] std::string UnmountScript(std::string_view mount_point,
                                        bool lazily);

// Who is on the two ends of a mount.
struct MountEnds {
  bool local = false;    // the hypervisor is this machine
  uid_t owner = 0;       // of the sandbox
  uid_t hypervisor = 0;  // whom QEMU runs as
  uid_t guest = 0;       // the guest's user
};
// How the mounts of `spec` come into the guest.
struct MountWay {
  bool nine_p = false;
  std::string why;  // it is not as mountType says; else empty
};
[[nodiscard]] MountWay ChooseMountWay(const Spec& spec, const MountEnds& ends);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOUNT_NINE_P_H_
