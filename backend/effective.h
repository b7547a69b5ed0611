#ifndef SBXFS_BACKEND_EFFECTIVE_H_
#define SBXFS_BACKEND_EFFECTIVE_H_

#include <string>

#include "backend/core.h"

namespace sbxfs {

// effective.yaml of a sandbox, from memory. While its settings are refused it
// is the sentence, as a comment.
[[nodiscard]] std::string Effective(const Core& core, const Sandbox& sandbox);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_EFFECTIVE_H_
