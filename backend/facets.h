#ifndef SBXFS_BACKEND_FACETS_H_
#define SBXFS_BACKEND_FACETS_H_

#include <string>

#include "backend/core.h"

namespace sbxfs {

// Brings a facet of a sandbox up to date in the catalog. Blocks; throws Error.
void RefreshFacet(Core& core, const std::string& uuid, Facet facet);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FACETS_H_
