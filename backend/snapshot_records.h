#ifndef SBXFS_BACKEND_SNAPSHOT_RECORDS_H_
#define SBXFS_BACKEND_SNAPSHOT_RECORDS_H_

#include <string>
#include <string_view>
#include <vector>

#include "backend/libvirt_handle.h"
#include "backend/spec/spec.h"

// libvirt's snapshots as records: what they stand for is changed elsewhere. All
// block and throw Error.

namespace sbxfs {

[[nodiscard]] SnapshotPtr LookupSnapshot(virDomainPtr domain,
                                         const std::string& name,
                                         std::string_view what);
// Its XML.
[[nodiscard]] std::string SnapshotText(virDomainPtr domain,
                                       const std::string& name,
                                       std::string_view what);
// The XML of each of a domain's snapshots, parents first; ours and others'.
[[nodiscard]] std::vector<std::string> SnapshotTexts(virDomainPtr domain);
// The name of libvirt's current one, or empty.
[[nodiscard]] std::string CurrentSnapshot(virDomainPtr domain);
// Makes or replaces a record, and touches no disk.
void RecordSnapshot(virDomainPtr domain, const std::string& xml, bool current,
                    std::string_view what);
// All records of a domain, parents first: the name, the current one's after a
// '*', and the XML; and made again.
[[nodiscard]] std::vector<Layer> RecordsOf(virDomainPtr domain);
void RestoreRecords(virDomainPtr domain, const std::vector<Layer>& records,
                    std::string_view what);
// Takes all of them off, and touches no disk.
void ForgetRecords(virDomainPtr domain, std::string_view what);
// Its children get its parent; so does libvirt's mark of the current one. One
// that is not there is no error.
void ForgetSnapshot(virDomainPtr domain, const std::string& name,
                    std::string_view what);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SNAPSHOT_RECORDS_H_
