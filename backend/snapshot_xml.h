#ifndef SBXFS_BACKEND_SNAPSHOT_XML_H_
#define SBXFS_BACKEND_SNAPSHOT_XML_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/metadata.h"

// The XML of libvirt's snapshots. Pure functions.

namespace sbxfs {

// What a libvirt snapshot's XML (written by anyone) says.
struct SnapshotFacts {
  std::string name;  // libvirt's
  std::string parent;
  std::string description;
  Time created;
  // What its copy of the definition names.
  std::string disk;
  std::string seed;
  std::string layer;      // `disk`, frozen; empty for an internal one
  bool internal = false;  // kept inside the disk's file: not one of ours
  bool memory = false;
  std::string memory_file;  // of an external one with memory: its path
  bool quiesced = false;
  std::optional<Metadata> metadata;
};
// Throws Error(EIO) for text that is no snapshot.
[[nodiscard]] SnapshotFacts ParseSnapshot(std::string_view xml);

// For a new one: the overlay of the disk `vda` is there already. Without a
// path for its memory it is of the disk only.
[[nodiscard]] std::string SnapshotXml(std::string_view name,
                                      std::string_view description,
                                      const std::vector<std::string>& targets,
                                      std::string_view overlay_path,
                                      std::string_view memory_path = {});

// A snapshot's XML with what is set here changed, for its redefinition.
struct SnapshotEdit {
  std::optional<std::string> name;
  std::optional<std::string> parent;  // empty: none
  std::optional<std::string> description;
  bool quiesced = false;  // true: marks it as such
  // True: names its overlays by what is none, and our root disk by its volume,
  // never its path.
  bool unlinked = false;
};
[[nodiscard]] std::string EditSnapshot(std::string_view xml,
                                       const SnapshotEdit& edit);

// A domain's inactive XML with another top layer and seed (empty: as it is),
// and our metadata replaced: all of a change of disk in one definition.
[[nodiscard]] std::string DomainOnLayer(std::string_view xml,
                                        const Metadata& metadata);

// A domain's XML with the file at `path` for its root disk, whatever that was.
[[nodiscard]] std::string DomainOnFile(std::string_view xml,
                                       std::string_view path);

// The XML in a save image under another name, and without what room is made by:
// our metadata, which the next start takes from the definition.
[[nodiscard]] std::string SavedDomain(std::string_view xml,
                                      std::string_view name);

// The tag of a libvirt snapshot's name: ".undo" for our "~undo.N", empty for
// what is no state of the user's.
[[nodiscard]] std::string TagOf(std::string_view name);
// N of "~undo.N"; nothing for others.
[[nodiscard]] std::optional<uint64_t> UndoNumber(std::string_view name);

// What the tree shows of them, by tag: of several undos the last alone.
[[nodiscard]] std::map<std::string, Snapshot> DescribeSnapshots(
    const std::vector<SnapshotFacts>& snapshots);
// The tag of that snapshot or, if it is not shown, of the nearest above it
// that is; empty for none.
[[nodiscard]] std::string ShownTag(const std::vector<SnapshotFacts>& snapshots,
                                   const std::string& name);
// The one that a tag means, or null.
[[nodiscard]] const SnapshotFacts* FindTag(
    const std::vector<SnapshotFacts>& snapshots, std::string_view tag);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SNAPSHOT_XML_H_
