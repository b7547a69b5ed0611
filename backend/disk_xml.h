#ifndef SBXFS_BACKEND_DISK_XML_H_
#define SBXFS_BACKEND_DISK_XML_H_

#include <libxml/tree.h>

#include <string>

#include "backend/disk_place.h"
#include "backend/domain_xml.h"

namespace sbxfs {

// The <disk>s of a domain: its own, its seed, its additional ones.
void AddDisks(xmlNode* devices, const DomainInput& input);

// A <disk> of its own, for a guest that runs: the additional disk `name`, which
// is the sandbox's `index`th, from 0.
[[nodiscard]] std::string ExtraDiskXml(const DiskPlace& place,
                                       const std::string& name, size_t index);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_XML_H_
