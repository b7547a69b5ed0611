#ifndef SBXFS_BACKEND_HOST_H_
#define SBXFS_BACKEND_HOST_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/sandbox.h"

// A hypervisor as a plain value, without a libvirt type.

namespace sbxfs {

// A base image in the pool.
struct Image {
  std::string name;
  uint64_t size = 0;  // bytes of the file
  Time modified;
  bool used = false;  // a sandbox stands on it
  bool operator==(const Image&) const = default;
};

// An additional disk of the pool, which outlives the sandboxes that have it.
struct ExtraDisk {
  std::string name;
  uint64_t size = 0;   // bytes, as a guest sees it
  uint64_t taken = 0;  // bytes of the pool
  Time modified;
  bool operator==(const ExtraDisk&) const = default;
};

// A libvirt network.
struct Network {
  struct Lease {
    std::string address, mac;
    std::string hostname;  // as the guest called itself, or empty
    Time expires;
    bool operator==(const Lease&) const = default;
  };
  std::string name;
  std::string config;  // what it is made from, in Lima's words
  bool ours = true;    // false: made by others, and never changed
  bool active = false;
  std::vector<std::string> members;  // names of domains that run in it, sorted
  std::vector<Lease> leases;         // by address
  bool operator==(const Network&) const = default;
};

// A text of .host.
struct HostText {
  std::string text;
  Time modified;
  bool operator==(const HostText&) const = default;
};

// The hypervisor at one moment. Immutable, like Sandbox.
struct Host {
  std::string uri;    // as given, or as libvirt chose it
  std::string route;  // how that is reached: lines for people
  bool connected = false;
  Time since;              // of `connected`
  std::string why;         // while disconnected: cause and remedy, one line
  std::string notes;       // lines: what this hypervisor cannot do, and why
  std::string hypervisor;  // "QEMU 7.2.22, libvirt 9.0.0"
  unsigned cpus = 0;
  uint64_t memory = 0, memory_free = 0;  // bytes
  std::string pool;
  uint64_t pool_size = 0, pool_available = 0;  // bytes
  std::string disk_pool;  // of additional disks; often the same
  uint64_t disk_pool_size = 0, disk_pool_available = 0;  // bytes
  std::string pool_uuid;    // tells one hypervisor from another
  std::string accelerator;  // "kvm" or "tcg: reason"
  std::string warm;         // lines: the memory templates
  std::string defaults;     // the text of .host/defaults.yaml
  Time defaults_time;
  std::string overrides;  // of .host/override.yaml
  Time overrides_time;
  // By path below .host/templates; a folder's ends with '/'.
  std::map<std::string, HostText> templates;
  std::string authorized_keys;  // of .host/authorized_keys
  std::string identity_file;    // path of the mount's private ssh key
  std::string ssh_ca;           // public key of the CA for ssh.ca
  uid_t uid = 0;                // the mount's owner
  gid_t gid = 0;
  std::vector<Image> images;      // sorted by name
  std::vector<ExtraDisk> disks;   // sorted by name
  std::vector<Network> networks;  // sorted by name
};
using HostPtr = std::shared_ptr<const Host>;

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_HOST_H_
