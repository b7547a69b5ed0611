#ifndef SBXFS_FS_OPEN_TEXT_H_
#define SBXFS_FS_OPEN_TEXT_H_

#include <memory>

#include "fs/text_file.h"

namespace sbxfs {

// The open file that fits the row's form.
[[nodiscard]] OpenFilePtr OpenRow(const std::shared_ptr<TextFile>& file,
                                  const Caller& caller, int flags);

}  // namespace sbxfs

#endif  // SBXFS_FS_OPEN_TEXT_H_
