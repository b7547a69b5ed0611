#ifndef SBXFS_BACKEND_CHAIN_PULL_H_
#define SBXFS_BACKEND_CHAIN_PULL_H_

#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "backend/layers.h"
#include "backend/libvirt_handle.h"

// Chains are kept short by pull alone: what the layers right below the top one
// hold is copied up into it while the guest runs, after which it stands on what
// is below them. A frozen layer is never written, and a pull that ends early,
// for whatever reason, leaves a chain as good as before. libvirt has no pull
// for a disk that rests.

namespace sbxfs {

// What a top layer need not stand on.
struct ChainCut {
  std::set<std::string> spare;  // layers that nothing else needs
  std::string base;             // the volume below them; empty for none
};

// Of the layer `top`; nothing when it stands on what is needed. A pure
// function.
[[nodiscard]] std::optional<ChainCut> CutOf(const Uses& uses,
                                            const std::string& top);

// Has the hypervisor begin; `base` is a path of its, or empty. Throws Error.
void BeginPull(virDomainPtr domain, const std::string& base,
               std::string_view what);
// Whether one is under way, begun by anybody. Throws Error.
[[nodiscard]] bool IsPulling(virDomainPtr domain, std::string_view what);
// Ends one that is under way, for what libvirt refuses beside it: a snapshot, a
// save, another size. What was pulled stays.
void EndPull(virDomainPtr domain);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_CHAIN_PULL_H_
