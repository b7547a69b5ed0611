#ifndef SBXFS_FS_ATTRIBUTES_H_
#define SBXFS_FS_ATTRIBUTES_H_

#include <sys/stat.h>

#include "fs/layout.h"

// What stat(2) shows.

namespace sbxfs {

// A row's mode in a directory of mode `dir`: the owner's bits are the row's,
// the others get what the directory lets them do.
[[nodiscard]] mode_t FileMode(mode_t row, mode_t dir);

// A file or a fixed directory of the table.
[[nodiscard]] struct stat RowStat(const View& view, const Row& row,
                                  uint64_t size);
// chmod or chown of a file or fixed directory of the table that is now as
// `now` says; kept when something differs. Throws Error(EPERM) for what does
// not belong to a sandbox, and for rights the table does not give; `lenient`
// leaves those out, for files that tools put their own modes on.
void ChangeRow(const View& view, const Row& row, const struct stat& now,
               const FileRights& rights, bool lenient, Reply<Done> reply);
// A sandbox's directory.
[[nodiscard]] struct stat SandboxStat(const Sandbox& sandbox);
// A directory or file of the mount's owner.
[[nodiscard]] struct stat OwnStat(const Tree& tree, mode_t mode, Time time);

void SetSize(struct stat& stat, uint64_t size);
void SetTime(struct stat& stat, Time time);

}  // namespace sbxfs

#endif  // SBXFS_FS_ATTRIBUTES_H_
