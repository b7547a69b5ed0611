#ifndef SBXFS_BACKEND_SANDBOX_H_
#define SBXFS_BACKEND_SANDBOX_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/packed_text.h"

// A sandbox as a plain value, without a libvirt type.

namespace sbxfs {

using Time = std::chrono::system_clock::time_point;

// The words of NAME/status, in TREE.md's order.
enum class State {
  kProvisioning,
  kStopped,
  kStarting,
  kRunning,
  kStopping,
  kPaused,
  kSaved,
  kCrashed,
  kDestroying,
  kUnreachable
};
[[nodiscard]] std::string_view StateName(State state);
[[nodiscard]] std::optional<State> ParseState(std::string_view name);
// Whether nothing of it runs or is saved: it may be redefined and removed.
[[nodiscard]] bool IsOff(State state);
// Whether there is a guest, which has its memory.
[[nodiscard]] bool IsOn(State state);

// Counters of a running sandbox; zero while stopped, but for the sizes.
struct Usage {
  uint64_t cpu_usec = 0;
  uint64_t memory_bytes = 0;    // resident in the hypervisor
  uint64_t disk_bytes = 0;      // allocated by its own layers
  uint64_t snapshot_bytes = 0;  // by those of them that are frozen
  uint64_t block_read_bytes = 0;
  uint64_t block_written_bytes = 0;
  uint64_t net_received_bytes = 0;
  uint64_t net_sent_bytes = 0;
  std::optional<Time> started;
  bool operator==(const Usage&) const = default;
};

// What chmod and chown set of a single file; the rest follows the sandbox.
struct FileRights {
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<mode_t> mode;
  bool operator==(const FileRights&) const = default;
};

// A state of a sandbox's disk that was kept.
struct Snapshot {
  std::string tag;
  std::string parent;  // the tag it came from; empty: none
  std::string kind;    // "disk", "disk quiesced", "internal", …
  std::string description;
  std::string config;  // config.yaml as it was
  Time created;
  uint64_t size = 0;  // bytes that it takes; 0 until refreshed
  std::string layer;  // names it for its life; empty: cannot be gone back to
  bool operator==(const Snapshot&) const = default;
};

// One sandbox at one moment. Immutable: a change makes a new one.
struct Sandbox {
  std::string uuid;
  std::string name;
  bool ours = true;             // false: a domain made by others (`-o all`)
  std::optional<Time> trashed;  // set: it is listed in .host/trash alone
  std::string host;             // the name of its hypervisor, among several

  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0700;                       // permission bits of its directory
  std::map<std::string, FileRights> files;  // those that differ, by name
  Time created;
  Time used;  // last start, stop, login or accepted write

  State state = State::kStopped;
  Time state_since;
  std::string reason;     // one line, why it is in that state
  bool becoming = false;  // goes on from a template, not itself yet
  bool settled = false;   // went on from one, and has no boot to end
  bool ready = false;     // usable: ssh answers, cloud-init is done
  double ready_seconds = 0;
  std::string ready_for;  // while not ready: what is waited for
  std::string failed;     // running, but something of it failed: what and why
  // All that was waited for has come to its end, a good or a bad one.
  [[nodiscard]] bool Booted() const { return ready || !failed.empty(); }
  std::string progress;  // "step 2 of 4: …", empty when nothing is done

  std::string config;  // the text of config.yaml, as its user wrote it
  std::string bases;   // the texts its `base` named, packed
  Time config_time;
  std::string rejected;         // the text of config.yaml.rejected, or empty
  std::string rejected_reason;  // the sentence that refused it
  std::string pending;          // keys not in force yet, one a line

  // The settings that hold, all layers taken together.
  unsigned cpus = 0;
  uint64_t memory = 0;  // bytes
  uint64_t disk = 0;    // bytes
  std::string description;
  bool autostart = false;
  std::chrono::seconds idle{0};  // saved when unused for so long; 0: never

  std::string user;            // the guest's login
  int ssh_port = 0;            // on 127.0.0.1 of the hypervisor; 0: none
  bool forward_agent = false;  // what ssh_config asks ssh for
  bool forward_x11 = false, forward_x11_trusted = false;
  std::string host_key;         // "ssh-ed25519 AAAA…", or empty
  std::string authorized_keys;  // one a line, this sandbox's own
  // Whom a certificate must be for; empty: none lets in, ssh.ca is not set.
  std::string ssh_principal;

  // The entries of its collections: name to value, as it reads back.
  std::map<std::string, std::string> mounts;
  std::string no_networks;  // why it has none of config.yaml's; empty: it has
  std::string mount_way;    // how they come into the guest, and why so
  std::map<std::string, std::string> ports;
  std::set<std::string> secrets;  // their values are never shown
  // The additional disks that it is defined with, or that config.yaml names.
  std::set<std::string> disks;
  // Of a running one: the forwarded sockets, name to path on this machine.
  std::map<std::string, std::string> sockets;

  std::map<std::string, Snapshot> snapshots;  // by tag
  std::string snapshot;  // the tag the disk stands on; empty: none
  // Of a clone: the uuid of the sandbox, and the layer, it was made from.
  std::string origin, origin_layer;

  std::vector<std::string> addresses;
  Usage usage;
  std::shared_ptr<const std::string> console;  // null until refreshed
  // What this boot's provision scripts said; after it stopped, the last one's.
  std::shared_ptr<const std::string> provision_log;  // null until refreshed
  PackedText<PackedKind::kDomainXml> domain_xml;

  bool operator==(const Sandbox&) const = default;
};
using SandboxPtr = std::shared_ptr<const Sandbox>;

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SANDBOX_H_
