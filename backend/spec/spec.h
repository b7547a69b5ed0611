#ifndef SBXFS_BACKEND_SPEC_SPEC_H_
#define SBXFS_BACKEND_SPEC_SPEC_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sbxfs {

struct ImageSource {
  std::string location;  // a name in images/, an absolute path or an https URL
  std::string arch;      // empty: any
  std::string digest;    // "sha256:…", or empty
  // Of a direct boot; empty: the disk boots itself.
  std::string kernel = {}, kernel_digest = {}, kernel_cmdline = {};
  std::string initrd = {}, initrd_digest = {};
  bool operator==(const ImageSource&) const = default;
};

// The layer that an entry of a list comes from. No part of what it says: equal
// to any other.
struct Origin {
  std::string layer;
  bool operator==(const Origin&) const { return true; }
};

// How a host directory comes into the guest.
enum class MountType { kAuto, kReverseSshfs, k9p, kVirtiofs };

struct MountSpec {
  std::string name;  // in mounts/; `name`, else the location's last part
  // Absolute, on the machine that mounts the tree; "~" or "~/…" until Expand.
  std::string location;
  std::string mount_point;  // absolute, in the guest
  bool follows = true;      // mountPoint is not given: it is the location
  bool writable = false;
  uint64_t msize = 0;               // 9p.msize, bytes; 0: chosen
  std::string ninep_cache;          // 9p.cache; empty: chosen
  std::string ninep_security;       // 9p.securityModel; empty: chosen
  std::string ninep_version;        // 9p.protocolVersion; empty: chosen
  std::optional<bool> sshfs_cache;  // sshfs.cache
  std::optional<bool> sshfs_follow_symlinks;
  unsigned virtiofs_queue_size = 0;  // 0: chosen
  Origin origin;
  bool operator==(const MountSpec&) const = default;
};

struct ProvisionStep {
  enum class Mode { kSystem, kUser, kBoot, kDependency, kData };
  Mode mode = Mode::kSystem;
  std::string script;  // Lima's boot scripts alone may lack the "#!"
  // Of mode data:
  std::string path, content, owner, permissions;
  bool overwrite = true;
  bool operator==(const ProvisionStep&) const = default;
};

struct Probe {
  std::string description;
  std::string script;
  std::string hint;
  bool operator==(const Probe&) const = default;
};

// A rule of portForwards; the first that fits a guest port decides.
// The hostIP of a port that opens on the hypervisor, on all its addresses.
inline constexpr std::string_view kOnHypervisor = "@hv";

struct PortForward {
  std::string guest_ip;  // empty: 127.0.0.1 and 0.0.0.0, as in Lima
  bool guest_ip_must_be_zero = false;
  // Of the machine that mounted the tree, or kOnHypervisor.
  std::string host_ip = "127.0.0.1";
  int guest_first = 1, guest_last = 65535;
  int host_first = 1, host_last = 65535;
  std::string guest_socket, host_socket;  // paths; instead of ports
  enum class Proto { kAny, kTcp, kUdp } proto = Proto::kAny;
  bool reverse = false;
  bool ignore = false;
  Origin origin;
  bool operator==(const PortForward&) const = default;
};

struct NetworkSpec {
  std::string name;  // shared, host, bridged, user-v2, or a libvirt network's
  std::string mac_address;
  std::string interface;
  unsigned metric = 100;
  bool operator==(const NetworkSpec&) const = default;
};

struct DiskSpec {
  std::string name;
  bool format = true;
  std::string fs_type;
  std::vector<std::string> fs_args;
  bool operator==(const DiskSpec&) const = default;
};

// What config.yaml and its layers come to. Lima's names and meanings. Texts
// that may have templates have them until Expand.
struct Spec {
  std::vector<ImageSource> images;  // in order of preference
  std::string arch;                 // empty: the hypervisor's own
  unsigned cpus = 0;
  uint64_t memory = 0;  // bytes
  // What they can be raised to while it runs; 0: not beyond themselves.
  unsigned max_cpus = 0;
  uint64_t max_memory = 0;
  uint64_t disk = 0;  // bytes
  std::string user;   // user.name
  std::optional<unsigned> uid;
  std::string home;     // user.home; empty: /home/NAME.guest is not assumed
  std::string shell;    // user.shell
  std::string comment;  // user.comment
  int ssh_port = 0;     // ssh.localPort; 0: sbxfs chooses
  bool load_dot_ssh_pub_keys = false;
  bool ssh_ca = false;  // ssh.ca: who has a certificate of ours is let in too
  std::optional<bool> legacy_bios;  // firmware.legacyBIOS; unset: as the image
  // cpuType. `cpu_type` is the entry for `arch`; while that is empty, for the
  // architecture sbxfs itself runs on. Empty: chosen.
  std::map<std::string, std::string> cpu_types;
  std::string cpu_type;
  std::string description;
  bool autostart = false;
  std::chrono::seconds idle{0};  // saved when unused for so long; 0: never
  bool snapshot_memory = false;  // snapshots keep the memory of what runs
  bool warm = true;  // may go on from a memory template, and leave one

  std::vector<MountSpec> mounts;
  MountType mount_type = MountType::kAuto;
  std::vector<MountType> mount_types_unsupported;  // not to be chosen
  std::vector<PortForward> port_forwards;
  std::vector<ProvisionStep> provision;  // in the order they are run
  std::vector<Probe> probes;
  std::map<std::string, std::string> env;
  bool propagate_proxy_env = true;
  std::map<std::string, std::string> param;  // {{.Param.x}}
  std::vector<std::string> dns;              // addresses
  std::map<std::string, std::string> hosts;  // hostResolver.hosts
  bool remove_default_ca_certs = false;
  std::vector<std::string> ca_certs;  // PEM
  std::string timezone;
  bool upgrade_packages = false;
  bool forward_agent = false;  // ssh.forwardAgent
  bool forward_x11 = false, forward_x11_trusted = false;
  std::string message;
  bool plain = false;  // no mounts, ports, provisioning of Lima's kind
  std::string video_display = "none";
  bool tpm = false;
  bool nested_virtualization = false;
  // network: none. The guest reaches nobody; who is let in still comes in.
  bool isolated = false;
  std::vector<std::string> egress;  // whom it reaches yet; egress/rules.h
  std::string egress_socket;        // on this machine; Expand sets it
  std::vector<NetworkSpec> networks;
  std::vector<DiskSpec> additional_disks;
};

// What the templates of one sandbox stand for.
struct Placeholders {
  std::string name, hostname;
  std::string dir;                             // {{.Dir}}
  std::string uid, home;                       // of the guest's login
  std::string host_user, host_uid, host_home;  // of who owns the sandbox
  std::string host_arch;                       // as Go calls it: "amd64"
  std::string ssh_port;
};

// One text of several, weakest first. `name` stands in sentences and is what
// effective.yaml calls the layer ("built-in", "defaults.yaml", "config.yaml").
struct Layer {
  std::string name;
  std::string text;
};

// The built-in layer's text. `user` is the name of the guest's login; one that
// no guest would take becomes "sandbox".
[[nodiscard]] std::string BuiltInLayer(std::string_view user);

// What the layers come to. A stronger one's values replace the weaker ones',
// its maps are merged into theirs and its lists joined with them, as sbxfs(5)
// says for each; null sets nothing. Throws
// Error(EINVAL): `Cannot accept 'config.yaml': line L, column C: …` with the
// key, the value found, what is allowed, and the nearest known key.
[[nodiscard]] Spec ParseSpec(const std::vector<Layer>& layers);

// Puts in what the templates stand for, and the home for "~".
void Expand(const Placeholders& placeholders, Spec& spec);

// Whether it can name a mount in mounts/, or a disk.
[[nodiscard]] bool IsMountName(std::string_view name);
// The name of a mount that is given none: the last part of its location.
[[nodiscard]] std::string MountNameOf(std::string_view location);

// `text` with the dotted `key` set to `value` ("ssh.localPort", "2222"; an
// empty value takes the key away), comments, order and style kept. `value` is
// plain and gets quoted where YAML needs it. Throws Error(EINVAL) when `text`
// cannot be edited.
[[nodiscard]] std::string SetKey(std::string_view text, std::string_view key,
                                 std::string_view value);

// A file of mounts/ or ports/.
struct ListEntry {
  std::string value;  // as it reads
  std::string layer;  // that it comes from; SetMount and SetForward change
                      // config.yaml's alone
};
// By name: `src` → `/srv/src:w`.
[[nodiscard]] std::map<std::string, ListEntry> MountEntries(const Spec& spec);
// By guest port: `3000`, `53.udp`, `4000-4010` → `[ADDRESS:]PORT[-PORT]`. Rules
// that ignore, go the other way, join sockets or fit every port are none.
[[nodiscard]] std::map<std::string, ListEntry> ForwardEntries(const Spec& spec);

// config.yaml's `text` with the mount `name` at `LOCATION[:w]`, or without it
// when `value` is empty; edited in place, as by SetKey. Throws Error(EINVAL).
[[nodiscard]] std::string SetMount(std::string_view text, std::string_view name,
                                   std::string_view value);
// The same for a guest port, as in ForwardEntries. A new rule comes first, so
// that it decides.
[[nodiscard]] std::string SetForward(std::string_view text,
                                     std::string_view guest,
                                     std::string_view value);

// `text` with another MAC address for each of its networks that has one:
// `fresh` of the network's number.
[[nodiscard]] std::string RenewMacs(
    std::string_view text,
    const std::function<std::string(std::size_t)>& fresh);

// The dotted keys in which two specs differ, sorted ("cpus", "ssh.localPort").
[[nodiscard]] std::vector<std::string> Differences(const Spec& a,
                                                   const Spec& b);

// The commented text that a new sandbox's config.yaml begins with. It sets
// nothing: every key is shown commented out, with its default from `defaults`.
[[nodiscard]] std::string Skeleton(const Spec& defaults);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_SPEC_H_
