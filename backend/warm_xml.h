#ifndef SBXFS_BACKEND_WARM_XML_H_
#define SBXFS_BACKEND_WARM_XML_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/forwards.h"
#include "backend/metadata.h"
#include "backend/run_info.h"

// The XML that a memory template is kept with. Pure functions.

namespace sbxfs {

inline constexpr char kWarmUri[] = "https://sbxfs.org/xmlns/warm/1";
inline constexpr char kWarmPrefix[] = "sbxfs-warm";
// What the domain is called that a template is made of, with a number behind
// it: the tree has no place for names that begin so.
inline constexpr char kWarmDomain[] = ".sbxfs-template-";

// What a template is of: it fits as long as all of that is as it was.
struct WarmNote {
  std::string image;       // its name; empty: it is of a sandbox's memory
  std::string hypervisor;  // QEMU and libvirt and, with KVM, the processor
  std::string documents;   // digest of what its guest's boot.sh had
  std::string scripts;     // of what sbxfs itself puts into each of them
  std::string networks;    // what gives its guest networks: "networkd", or none
  // Volumes, and a word that changes with each.
  std::string image_stamp;
  std::string disk, disk_stamp;
  std::string memory, memory_stamp;
};

// A domain's XML with that note in place of all other metadata.
[[nodiscard]] std::string WithWarmNote(std::string_view xml,
                                       const WarmNote& note);
// From such a text, written by anyone.
[[nodiscard]] std::optional<WarmNote> ParseWarmNote(std::string_view xml);

// A guest that goes on from a template as another sandbox's.
struct WarmInput {
  std::string name;
  std::string uuid;
  std::string description;
  Metadata metadata;
  RunInfo run;
  std::string console_path;
  std::string mac;
  std::vector<Forward> forwards;
  bool isolated = false;
  std::string memory_path;
  uint64_t memory = 0;     // bytes
  bool read_only = false;  // QEMU can map a file privately that it cannot write
};
// The XML of its save image; `xml` is the template's.
[[nodiscard]] std::string WarmDomainXml(std::string_view xml,
                                        const WarmInput& input);
// A running guest's XML, or a save image's, for a QEMU that is given all of the
// guest's memory, and so needs the template's file no more: that may go.
// Anything else is as it was.
[[nodiscard]] std::string WithOwnMemory(std::string_view xml);
// Of a running guest's XML, or a save image's: why no other can go on from its
// memory; empty where one can.
[[nodiscard]] std::string WhyNoFork(std::string_view xml);
// The MAC address of the template's own guest.
[[nodiscard]] std::string WarmMac(std::string_view xml);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_WARM_XML_H_
