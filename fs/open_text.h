#ifndef SBXFS_FS_OPEN_TEXT_H_
#define SBXFS_FS_OPEN_TEXT_H_

#include <memory>

#include "fs/text_file.h"

namespace sbxfs {

// The open file that fits the row's form.
[[nodiscard]] OpenFilePtr OpenRow(const std::shared_ptr<TextFile>& file,
                                  const Caller& caller, int flags);

// A log that somebody has read, at the end of what there was to another daemon:
// what this one has is what comes then.
[[nodiscard]] OpenFilePtr ContinueLog(const std::shared_ptr<TextFile>& file,
                                      const Caller& caller);

}  // namespace sbxfs

#endif  // SBXFS_FS_OPEN_TEXT_H_
