#ifndef SBXFS_BACKEND_RUN_INFO_H_
#define SBXFS_BACKEND_RUN_INFO_H_

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "backend/backend.h"

namespace sbxfs {

// The element's namespace and prefix: libvirt keeps one element a namespace.
inline constexpr char kRunUri[] = "https://sbxfs.org/xmlns/run/1";
inline constexpr char kRunPrefix[] = "sbxfs-run";

// What the running guest is known for, kept in the live definition alone, so
// that it goes when the guest stops and every mount sees it.
struct RunInfo {
  double ready_seconds = -1;  // below zero: not ready yet
  Time started;
  std::string failed;             // a sentence: it will not become ready
  std::set<std::string> secrets;  // names of those it was given
  // It goes on from a template and may still be known by that one's names.
  bool becoming = false;
  std::string starter;  // ThisProcessMark of whose daemon makes it itself
  // It went on from one, which had nothing left to do at its boot.
  bool settled = false;
  uint64_t disk = 0;  // the size its file system was grown to; 0: not grown
};

// Whether it can be a secret's name: a variable's.
inline constexpr std::size_t kLongestSecretName = 128;
[[nodiscard]] bool IsSecretName(std::string_view name);

// The element <run>, as virDomainSetMetadata wants it. What is in it must be
// plain text.
[[nodiscard]] std::string FormatRun(const RunInfo& run);
// From that element or a whole domain's XML, written by anyone.
[[nodiscard]] RunInfo ParseRun(std::string_view xml);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_RUN_INFO_H_
