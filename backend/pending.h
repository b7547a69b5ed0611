#ifndef SBXFS_BACKEND_PENDING_H_
#define SBXFS_BACKEND_PENDING_H_

#include <string>

#include "backend/core.h"

namespace sbxfs {

// NAME/pending: the keys in which what a guest has, or a stopped one will start
// with, is not what config.yaml comes to, which is `now`; a line each.
// `sandbox` has the rest of what libvirt says already. Throws Error(EINVAL)
// for templates that cannot be put in.
[[nodiscard]] std::string PendingOf(Core& core, const DomainFacts& facts,
                                    const Sandbox& sandbox, const Spec& now);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_PENDING_H_
