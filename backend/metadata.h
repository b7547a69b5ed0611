#ifndef SBXFS_BACKEND_METADATA_H_
#define SBXFS_BACKEND_METADATA_H_

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "backend/backend.h"

namespace sbxfs {

// All of ours begin so; the namespace and prefix of our element in a domain's
// <metadata>.
inline constexpr char kXmlNamespaces[] = "https://sbxfs.org/xmlns/";
inline constexpr char kMetadataUri[] = "https://sbxfs.org/xmlns/sandbox/1";
inline constexpr char kMetadataPrefix[] = "sbxfs";

// What a sandbox is, beyond what libvirt itself keeps of a domain. It is the
// only store: anyone with virsh can read and write it, so it holds no secret
// and is parsed as hostile input.
struct Metadata {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0700;
  std::string machine;  // the machine the ids are from
  std::map<std::string, FileRights> files;
  Time created;
  Time used;
  std::string config;  // encoded: libvirt turns CRLF to LF and refuses ESC
  Time config_time;
  std::string rejected;
  std::string rejected_reason;
  std::string bases;  // the layers that config's `base` named, packed
  // What the definition says, as NoteDefinition has it; empty: nobody knows,
  // so it is to be made anew.
  std::string defined;
  std::string applied;  // the layers the domain was last defined from, packed
  std::string user;
  std::optional<unsigned> guest_uid;  // of `user`, as its last boot told
  int ssh_port = 0;
  std::string host_key;         // public
  std::string authorized_keys;  // this sandbox's own
  std::string guest_keys;       // digest of the keys that the guest lets in
  Time certificates_revoked;    // those issued up to then count no more
  std::string pool;
  std::string disk_volume;
  std::string seed_volume;
  std::string seed_digest;  // of the seed's documents
  std::string console_volume;
  std::string image;   // the name in images/ the disk stands on; empty: none
  std::string origin;  // of a clone: the sandbox it was made from, and
  std::string origin_layer;  // the volume its own first layer stands on
  // The volume with the memory that its first start goes on from; empty: none.
  std::string origin_memory;
  std::string origin_secrets;  // names of those in it, with blanks between
  // While it moves to another hypervisor: the records of its snapshots, which
  // libvirt wants off meanwhile, packed, the current one's name after a '*';
  // and the volumes that they keep, a line.
  std::string records, keeps;
  // Its volumes are those of another hypervisor's sandbox, in a pool that both
  // have: between the two ends of a move. They stay when this one goes.
  bool borrowed = false;
  bool booted = false;  // it was started once: its disk is the user's
  // Its guest was ready once: it has its host key, and the seed no more.
  bool seeded = false;
  std::string trashed_name;  // its name before rmdir; empty: not in the trash
  Time trashed;
};

// The element <sandbox>, as virDomainSetMetadata wants it: without the
// namespace, which libvirt adds by itself and refuses to find there already.
// Throws Error(EINVAL) for a short value that ParseMetadata would not take.
[[nodiscard]] std::string FormatMetadata(const Metadata& metadata);

// From that element (with the namespace or without, as virDomainGetMetadata
// gives it) or from a whole domain's XML. Nothing when there is none. Values
// that are out of range or malformed are left at their defaults.
[[nodiscard]] std::optional<Metadata> ParseMetadata(std::string_view xml);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_METADATA_H_
