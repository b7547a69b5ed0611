#ifndef SBXFS_BACKEND_WARM_SPLIT_H_
#define SBXFS_BACKEND_WARM_SPLIT_H_

#include <functional>
#include <string>

#include "backend/core.h"
#include "backend/warm_xml.h"

namespace sbxfs {

// A word that changes with a volume's size or time.
[[nodiscard]] std::string StampOf(Core& core, const std::string& volume);

// Blocks: splits a save image of libvirt's, the volume `saved`, into what many
// guests go on from: `memory`, as QEMU maps it, and `state`, all the rest,
// which is made last. `note` has all but what it says of the memory. `check` is
// called often, and throws when it is not to go on. Callers delete what is
// there when it throws.
void SplitSaved(Core& core, const std::string& saved, const std::string& memory,
                const std::string& state, WarmNote note,
                const std::function<void()>& check, const std::string& what);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_WARM_SPLIT_H_
