#ifndef SBXFS_FS_STORE_H_
#define SBXFS_FS_STORE_H_

#include "fs/layout.h"

// What a write to a file does: the `store` column of the table.

namespace sbxfs {

// The word that is written to ssh_cert.
inline constexpr std::string_view kRevoke = "revoke";

}  // namespace sbxfs

namespace sbxfs::store {

void Config(const Change& change, Reply<Done> reply);
void Cpus(const Change& change, Reply<Done> reply);
void Memory(const Change& change, Reply<Done> reply);
void Disk(const Change& change, Reply<Done> reply);
void Description(const Change& change, Reply<Done> reply);
void Autostart(const Change& change, Reply<Done> reply);
void Status(const Change& change, Reply<Done> reply);
void HostName(const Change& change, Reply<Done> reply);
void SshPort(const Change& change, Reply<Done> reply);
void Certificate(const Change& change, Reply<Done> reply);
void AuthorizedKeys(const Change& change, Reply<Done> reply);
void Commit(const Change& change, Reply<Done> reply);
void Revert(const Change& change, Reply<Done> reply);
void SnapshotDescription(const Change& change, Reply<Done> reply);

void Uri(const Change& change, Reply<Done> reply);
void Defaults(const Change& change, Reply<Done> reply);
void Overrides(const Change& change, Reply<Done> reply);
void NetworkConfig(const Change& change, Reply<Done> reply);
void HostAuthorizedKeys(const Change& change, Reply<Done> reply);

}  // namespace sbxfs::store

#endif  // SBXFS_FS_STORE_H_
