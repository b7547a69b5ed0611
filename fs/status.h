#ifndef SBXFS_FS_STATUS_H_
#define SBXFS_FS_STATUS_H_

#include <string>
#include <string_view>
#include <vector>

#include "fs/mount_point.h"

namespace sbxfs {

// `sbxfs --status [DIR]`: what is mounted here, told by the trees alone.

// What is to be seen in a mount.
struct Sight {
  struct Hypervisor {
    std::string name;  // empty where there is one
    std::string uri;
    std::string connection;
    bool operator==(const Hypervisor&) const = default;
  };
  bool silent = false;  // it did not answer in time
  int error = 0;        // the errno of looking into it
  std::vector<Hypervisor> hypervisors;
  std::string list;
  bool operator==(const Sight&) const = default;
};

// With which status --status ends, the largest of all mounts it shows.
inline constexpr int kShownConnected = 0;
inline constexpr int kShownDisconnected = 16;
inline constexpr int kShownNoTree = 32;  // none is there, or none that answers

[[nodiscard]] int StatusOfSight(const Sight& sight);
[[nodiscard]] std::string SightText(const SbxfsMount& mount,
                                    const Sight& sight);

// One word of NULs between words, for a pipe.
[[nodiscard]] std::string PackSight(const Sight& sight);
[[nodiscard]] Sight UnpackSight(std::string_view text);

// Of the mounts the one that `path`, absolute and without dots, is or lies in.
[[nodiscard]] const SbxfsMount* MountAround(
    const std::vector<SbxfsMount>& mounts, std::string_view path);

// All mounts, or the one that `dir` is or lies in. Never waits longer than some
// seconds. Returns the exit status. Throws Error where there is nothing to
// show.
[[nodiscard]] int ShowStatus(const std::string& dir);

}  // namespace sbxfs

#endif  // SBXFS_FS_STATUS_H_
