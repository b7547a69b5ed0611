#ifndef SBXFS_BACKEND_DOMAIN_XML_H_
#define SBXFS_BACKEND_DOMAIN_XML_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/disk_place.h"
#include "backend/forwards.h"
#include "backend/metadata.h"
#include "backend/mount/host_directory.h"
#include "backend/xml.h"

namespace sbxfs {

// A NIC in a libvirt network.
struct NetworkNic {
  std::string interface;  // its name in the guest
  std::string network;
  std::string mac;
  std::string filter = {};  // an nwfilter on its tap; empty: none
};

// All that decides a domain's definition.
struct DomainInput {
  std::string name;
  std::string uuid;
  std::string description;
  Metadata metadata;
  bool test = false;  // for libvirt's test driver: type='test', no devices
  bool kvm = false;
  std::string arch = "x86_64";
  std::string cpu_type;  // empty: host-passthrough with KVM, else the quickest
  unsigned cpus = 1;
  uint64_t memory = 0;  // bytes
  // What it can be given while it runs; less than those above counts as they.
  unsigned max_cpus = 0;
  uint64_t max_memory = 0;
  bool uefi = false;
  std::string disk_volume;  // empty: no disk yet (its image is missing)
  std::string seed_volume;  // empty: none
  std::vector<std::string> extra_disks;  // names of additional disks
  DiskPlace disk_place;                  // of those
  std::string console_path;  // where the hypervisor logs the serial console
  // Where UEFI keeps its variables: libvirt's own place is named after the
  // domain, and virDomainRename leaves the file behind. Made by libvirt.
  std::string nvram_path;
  std::string mac;  // of the user-mode NIC
  std::vector<Forward> forwards;
  std::vector<NetworkNic> nics;            // beside the user-mode one
  bool isolated = false;                   // its guest reaches nobody by itself
  std::vector<HostDirectory> directories;  // which QEMU serves by 9p
  // A virtiofsd can have the guest's memory too.
  bool shared_memory = false;
  // A guest that memory templates are made of: it is nobody's sandbox.
  bool is_template = false;
};

// Ports for what is plugged into a running guest later: a q35 or virt machine
// has none but those it is defined with.
inline constexpr unsigned kSparePorts = 6;

// An <interface> of its own, for a guest that runs.
[[nodiscard]] std::string NicXml(const NetworkNic& nic);

// The XML for virDomainDefineXML, built with libxml2.
[[nodiscard]] std::string DomainXml(const DomainInput& input);

// What a domain's XML (from libvirt, written by anyone) says.
struct DomainFacts {
  std::string name;
  std::string uuid;
  std::string type;  // qemu, kvm, test, …
  std::string description;
  unsigned cpus = 0, max_cpus = 0;
  uint64_t memory = 0, max_memory = 0;  // bytes
  std::string mac;  // of the first NIC, ours on the command line included
  bool uefi = false;
  std::string cpu_type;  // custom model's name, or host-passthrough, …
  std::vector<std::string> disk_targets;  // "vda", …
  std::vector<std::string> disk_volumes;  // names; "" for others
  std::string disk_pool;  // that additional disks are in, DiskPlace::Name
  std::vector<std::string> interface_targets;  // host side, "vnet0"
  std::vector<NetworkNic> nics;                // those of ours
  // Sorted: what a running guest forwards, what another will at its start.
  std::vector<Forward> forwards;
  std::set<std::string> tags;  // of our directories, by 9p and virtiofs
  bool shared_memory = false;  // virtiofs can be plugged in
  std::string disk;            // the volume or file that vda is, without a path
  std::string seed;            // the same of vdb
  std::string recorded_disk;   // what our metadata names, if that differs
  std::optional<Metadata> metadata;
  // Not of the XML alone: keys that others gave the definition another value
  // for, as ChangedSince has them.
  std::vector<std::string> changed;
};
// The begin of the alias of a NIC of ours; the rest is its interface.
inline constexpr std::string_view kNicAlias = "ua-sbxfs-";

// Whether two sizes of memory are one to QEMU, which rounds to mebibytes.
[[nodiscard]] inline bool SameMemory(uint64_t a, uint64_t b) {
  return (a > b ? a - b : b - a) < (1U << 20);
}
// Throws Error(EIO) for text that is no domain.
[[nodiscard]] DomainFacts ParseDomain(std::string_view xml);

// The <filesystem> of that tag, whole; empty when there is none.
[[nodiscard]] std::string FilesystemXml(std::string_view xml,
                                        std::string_view tag);

// Puts our element in place of an older one in a <domain>'s metadata.
void ReplaceMetadata(xmlNode* domain, const Metadata& metadata);

// A stable, locally administered MAC address for a uuid, in QEMU's range
// (52:54:00).
[[nodiscard]] std::string MacFor(std::string_view uuid);

// A volume's XML for virStorageVolCreateXML. `backing_path` empty: none. An
// `owner` alone may read and write it.
[[nodiscard]] std::string VolumeXml(std::string_view name,
                                    std::string_view format, uint64_t capacity,
                                    uint64_t allocation,
                                    std::string_view backing_path,
                                    std::string_view backing_format,
                                    std::optional<uid_t> owner = {});
// A dir pool's XML.
[[nodiscard]] std::string PoolXml(std::string_view name, std::string_view path);
// The text of the first node an XPath finds in `xml`, or empty.
[[nodiscard]] std::string XmlText(std::string_view xml, const char* xpath);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DOMAIN_XML_H_
