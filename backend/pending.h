#ifndef SBXFS_BACKEND_PENDING_H_
#define SBXFS_BACKEND_PENDING_H_

#include <optional>
#include <string>
#include <string_view>

#include "backend/core.h"

namespace sbxfs {

// NAME/pending: the keys in which what a guest has, or a stopped one will start
// with, is not what config.yaml comes to, which is `now`; a line each.
// `served`, for a guest that is on, is the same with its templates put in, to
// be held against the notes of what is served in its `xml`.
[[nodiscard]] std::string PendingOf(Core& core, const DomainFacts& facts,
                                    const Spec& now,
                                    const std::optional<Spec>& served,
                                    std::string_view xml);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_PENDING_H_
