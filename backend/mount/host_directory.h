#ifndef SBXFS_BACKEND_MOUNT_HOST_DIRECTORY_H_
#define SBXFS_BACKEND_MOUNT_HOST_DIRECTORY_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/spec.h"

// Directories that the hypervisor serves to a guest, with the rights of the
// user whom QEMU runs as. By virtio-9p QEMU does, from the guest's start to its
// end; by virtiofs a virtiofsd for each, which comes and goes as it runs. Pure.

namespace sbxfs {

// A <filesystem> of a domain.
struct HostDirectory {
  std::string tag;         // what the guest asks for; TagOf
  std::string location;    // absolute
  std::string accessmode;  // libvirt's word
  bool writable = false;
};
// Of the mounts of an expanded spec, by 9p.
[[nodiscard]] std::vector<HostDirectory> DirectoriesOf(const Spec& spec);
// Another for everything of the mount but its name.
[[nodiscard]] std::string TagOf(const MountSpec& mount);

// Whose files a virtiofsd tells a guest of, and as whose.
struct IdMap {
  uid_t host_uid = 0, guest_uid = 0;
  gid_t host_gid = 0, guest_gid = 0;
};
// The <filesystem> of one by virtiofs, and its tag.
[[nodiscard]] std::string VirtiofsTag(const MountSpec& mount, const IdMap& ids);
[[nodiscard]] std::string VirtiofsXml(const MountSpec& mount, const IdMap& ids);

// Whether a tag is of ours, and then by which of the two.
[[nodiscard]] bool IsTag(std::string_view name);
[[nodiscard]] bool IsVirtiofsTag(std::string_view name);

// For a shell in the guest: mounts it where it belongs; unmounts it, and fails
// with umount's words where it is in use and not to go `lazily`.
[[nodiscard]] std::string DirectoryMountScript(const MountSpec& mount,
                                               std::string_view tag);
[[nodiscard]] std::string UnmountScript(std::string_view mount_point,
                                        bool lazily);

// Who is on the two ends of a mount.
struct MountEnds {
  bool local = false;    // the hypervisor is this machine
  uid_t owner = 0;       // of the sandbox
  uid_t hypervisor = 0;  // whom QEMU runs as
  uid_t guest = 0;       // the guest's user
  // Why the hypervisor serves no virtiofs as its user; empty where it does.
  std::string no_virtiofs = {};
};
// How the mounts of `spec` come into the guest.
struct MountWay {
  MountType type = MountType::kReverseSshfs;
  std::string why = {};  // it is not as mountType says; else empty
};
[[nodiscard]] MountWay ChooseMountWay(const Spec& spec, const MountEnds& ends);
// mountType's word for it.
[[nodiscard]] std::string_view WordFor(MountType type);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MOUNT_HOST_DIRECTORY_H_
