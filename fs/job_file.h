#ifndef SBXFS_FS_JOB_FILE_H_
#define SBXFS_FS_JOB_FILE_H_

#include <memory>
#include <string>

#include "fs/layout.h"
#include "fs/node.h"
#include "fs/tree.h"

namespace sbxfs {

// The view with the job in it. Throws Error(ENOENT) when it is gone.
[[nodiscard]] View JobView(Tree& tree, const Caller& reader,
                           const std::string& uuid, const std::string& id);

// The file of a job's row.
[[nodiscard]] std::shared_ptr<File> JobFile(const TreePtr& tree, const Row& row,
                                            const JobPtr& job);

// exec/new: each open file of it is a job of its own, which begins with what is
// written and is read from the same open file; gone when that is closed.
[[nodiscard]] std::shared_ptr<File> NewJobFile(const TreePtr& tree,
                                               const std::string& uuid);

// Gives `reply` a value, late rather than never: the kernel holds a directory
// while it waits for a removal.
void EndJob(const TreePtr& tree, const JobPtr& job, Reply<Done> reply);

}  // namespace sbxfs

#endif  // SBXFS_FS_JOB_FILE_H_
