#ifndef SBXFS_FS_LAYOUT_H_
#define SBXFS_FS_LAYOUT_H_

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

// The table of the tree. Lookup, listings, the README files and the test of
// the manual page read it; nothing else knows what there is.

namespace sbxfs {

class Tree;

// What a file is shown from: one moment, and who reads.
struct View {
  Tree& tree;
  Caller reader;
  HostPtr host;
  SandboxPtr sandbox;  // null in .host
  // One of the sandbox's, which keeps it alive; null elsewhere.
  const Snapshot* snapshot = nullptr;
  JobPtr job = nullptr;  // null but for a job's files
  // One of the host's, which keeps it alive; null but for a network's files.
  const Network* network = nullptr;
  bool steady = false;  // leave out what changes by the clock alone (for poll)
};

// What is written to a file, without the newline.
struct Change {
  Tree& tree;
  Caller caller;
  SandboxPtr sandbox;  // null in .host
  std::string text;
  bool wait = true;  // false: answer once an action is taken on (O_NONBLOCK)
  std::string entry = {};  // the snapshot or network whose file it is
  JobPtr job = nullptr;    // of a job's file
};

using Show = std::string (*)(const View& view);
using Store = void (*)(const Change& change, Reply<Done> reply);

enum class DirKind {
  kRoot,
  kHost,
  kHypervisor,
  kNetwork,
  kSandbox,
  kSnapshot,
  kJob
};

enum class Form {
  kValue,      // rendered at open; a line is a command
  kDocument,   // staged, taken whole at flush
  kLog,        // of events; grows
  kConsole,    // grows, and is fetched
  kDirectory,  // has a class of its own
};

// Where a file's time comes from.
enum class Clock {
  kUsed,
  kState,
  kConfig,
  kLastEvent,
  kConnected,
  kDefaults,
  kOverrides
};

struct Row {
  DirKind dir;
  std::string_view name;
  mode_t mode;
  Form form;
  Show show;    // null for directories and logs
  Store store;  // null: read-only
  Clock clock;
  std::string_view help;
  bool poll = false;
  std::optional<Facet> fresh = {};         // refreshed at open
  bool (*present)(const View&) = nullptr;  // null: always
  bool for_all = false;  // root's and 0444 whatever the directory's mode
  bool listed = true;    // false: there for who names it
  bool issued = false;   // a certificate: made at open for who opens it
};

// In the order of listings: built-in files, then directories.
[[nodiscard]] std::span<const Row> Rows(DirKind dir);
// Null when there is none.
[[nodiscard]] const Row* FindRow(DirKind dir, std::string_view name);
// The built-in names of a directory, for "did you mean".
[[nodiscard]] std::vector<std::string_view> RowNames(DirKind dir);

}  // namespace sbxfs

#endif  // SBXFS_FS_LAYOUT_H_
