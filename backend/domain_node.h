#ifndef SBXFS_BACKEND_DOMAIN_NODE_H_
#define SBXFS_BACKEND_DOMAIN_NODE_H_

#include <optional>

#include "backend/domain_xml.h"
#include "backend/metadata.h"
#include "backend/xml.h"

// What ParseDomain and ParseMetadata do, with a text that is parsed already:
// for all domains of a hypervisor that is most of the work.

namespace sbxfs {

// `domain`: the <domain>.
[[nodiscard]] DomainFacts DomainOf(const xmlNode* domain);
// `root`: a <domain>, or our element; null: nothing.
[[nodiscard]] std::optional<Metadata> MetadataOf(const xmlNode* root);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DOMAIN_NODE_H_
