#ifndef SBXFS_BACKEND_VIRSH_CHANGES_H_
#define SBXFS_BACKEND_VIRSH_CHANGES_H_

#include <string>
#include <string_view>
#include <vector>

// What others make of a definition of ours, with virsh say. Pure functions.

namespace sbxfs {

// A note of what a definition says where DomainXml decides it, to be kept as
// Metadata::defined: "cpus=1f2e3d4c memory=…". Its keys are config.yaml's where
// one decides, else the names of elements.
[[nodiscard]] std::string NoteDefinition(std::string_view xml);

// `note`, with what `xml` says now of those of its keys that are in `keys`.
[[nodiscard]] std::string RenewNote(std::string_view note, std::string_view xml,
                                    const std::vector<std::string>& keys);

// The keys of which the definition `xml` says something else than `note`,
// sorted.
[[nodiscard]] std::vector<std::string> ChangedSince(std::string_view note,
                                                    std::string_view xml);

// `fresh`, as DomainXml made it, with all that `old`, the definition it takes
// the place of, has and that DomainXml never says anything of.
[[nodiscard]] std::string KeepForeign(const std::string& fresh,
                                      std::string_view old);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_VIRSH_CHANGES_H_
