#ifndef SBXFS_FS_SHOW_H_
#define SBXFS_FS_SHOW_H_

#include <string>

#include "fs/layout.h"

// The texts of the files that are read: the `show` column of the table. All
// are pure functions of a view.

namespace sbxfs::show {

std::string SandboxReadme(const View& view);
std::string Config(const View& view);
std::string Rejected(const View& view);
std::string Cpus(const View& view);
std::string Memory(const View& view);
std::string Disk(const View& view);
std::string Description(const View& view);
std::string Autostart(const View& view);
std::string Pending(const View& view);
std::string Status(const View& view);
std::string Reason(const View& view);
std::string Ready(const View& view);
std::string Progress(const View& view);
std::string SandboxError(const View& view);
std::string UsageText(const View& view);
std::string HostName(const View& view);
std::string SshPort(const View& view);
std::string SshConfig(const View& view);
std::string AuthorizedKeys(const View& view);
std::string KnownHosts(const View& view);
std::string Ip(const View& view);
std::string Effective(const View& view);
std::string ProvisionLog(const View& view);
std::string DomainXml(const View& view);
std::string StandsOn(const View& view);
// Of a file that is written alone, or made at open.
std::string Nothing(const View& view);

std::string SnapshotCreated(const View& view);
std::string SnapshotKind(const View& view);
std::string SnapshotSize(const View& view);
std::string SnapshotParent(const View& view);
std::string SnapshotDescription(const View& view);
std::string SnapshotConfig(const View& view);

std::string NetworkConfig(const View& view);
std::string NetworkState(const View& view);
std::string NetworkLeases(const View& view);
std::string NetworkMembers(const View& view);

std::string HostReadme(const View& view);
std::string List(const View& view);
std::string Uri(const View& view);
std::string UriExplain(const View& view);
std::string Connection(const View& view);
std::string HostError(const View& view);
std::string DiskList(const View& view);
std::string Capacity(const View& view);
std::string Warm(const View& view);
std::string Defaults(const View& view);
std::string Overrides(const View& view);
std::string HostAuthorizedKeys(const View& view);
std::string SshCa(const View& view);
std::string HostSshConfig(const View& view);

}  // namespace sbxfs::show

#endif  // SBXFS_FS_SHOW_H_
