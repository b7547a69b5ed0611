#ifndef SBXFS_BACKEND_LIMITS_H_
#define SBXFS_BACKEND_LIMITS_H_

#include <string>
#include <string_view>

#include "backend/core.h"

// What one user may have (BackendOptions::limits): the sandboxes that are
// theirs, whoever asks. Root and the mount's owner have no limits. All throw
// Error(EDQUOT), `what` first, with what there is and what to do; a change that
// takes no more than before passes. May be called from any thread.

namespace sbxfs {

// A sandbox with those settings: a new one, or `uuid` with others than it has.
void CheckSettings(Core& core, uid_t uid, const std::string& uuid,
                   const Spec& spec, int ssh_port, std::string_view what);
// A guest that starts with so much memory, or is to have it instead of
// `before` (bytes).
void CheckMemory(Core& core, const Sandbox& sandbox, uint64_t before,
                 uint64_t memory, std::string_view what);
// One snapshot more.
void CheckSnapshot(Core& core, const Sandbox& sandbox, std::string_view what);
// One job more than the `jobs` that the owner's sandboxes have.
void CheckJobs(Core& core, const Sandbox& sandbox, size_t jobs,
               std::string_view what);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIMITS_H_
