// The keys that join a sandbox to its host: mounts, networks, disks.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "backend/egress/rules.h"
#include "backend/spec/readers.h"
#include "backend/spec/value.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

using enum ValueType;

constexpr char kLocation[] =
    "an absolute path of the host, or one that begins with ~/";
constexpr char kMountName[] =
    "a name of letters, digits and ._-, as it is to stand in mounts/";
constexpr char kMountPoint[] = "an absolute path in the guest";

constexpr std::string_view kSystemPaths[] = {
    "/",     "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt",
    "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr",  "/var"};

bool IsSystemPath(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return std::find(std::begin(kSystemPaths), std::end(kSystemPaths), path) !=
         std::end(kSystemPaths);
}

std::string ReadHostPath(const Value& value, std::string_view allowed) {
  std::string path = value.Template(allowed, TemplateSide::kHost);
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  const bool good = IsAbsolute(path) || path == "~" || path.starts_with("~/");
  if (!good || !IsPlainLine(path) || HasDots(path)) throw value.Wrong(allowed);
  return path;
}

constexpr Key<MountSpec> kNinepKeys[] = {
    {"cache", kText,
     [](const Value& v, MountSpec& mount) {
       constexpr std::string_view kCaches[] = {"none", "loose", "fscache",
                                               "mmap"};
       mount.ninep_cache = v.OneOf(kCaches);
     }},
    {"msize", kSize,
     [](const Value& v, MountSpec& mount) {
       mount.msize = v.Size(4096, 16 << 20);
     }},
    {"protocolVersion", kText,
     [](const Value& v, MountSpec& mount) {
       constexpr std::string_view kVersions[] = {"9p2000", "9p2000.u",
                                                 "9p2000.L"};
       mount.ninep_version = v.OneOf(kVersions);
     }},
    {"securityModel", kText,
     [](const Value& v, MountSpec& mount) {
       constexpr std::string_view kModels[] = {"passthrough", "mapped-xattr",
                                               "mapped-file", "none"};
       mount.ninep_security = v.OneOf(kModels);
     }},
};
constexpr Key<MountSpec> kSshfsKeys[] = {
    {"cache", kPlain,
     [](const Value& v, MountSpec& mount) { mount.sshfs_cache = v.Bool(); }},
    {"followSymlinks", kPlain,
     [](const Value& v, MountSpec& mount) {
       mount.sshfs_follow_symlinks = v.Bool();
     }},
    {"sftpDriver", kText,
     [](const Value& v, MountSpec&) {
       constexpr std::string_view kDrivers[] = {"builtin",
                                                "openssh-sftp-server"};
       (void)v.OneOf(kDrivers);
     }},
};
constexpr Key<MountSpec> kVirtiofsKeys[] = {
    {"queueSize", kPlain,
     [](const Value& v, MountSpec& mount) {
       constexpr char kAllowed[] = "a power of two from 128 to 1024";
       const uint64_t size = v.Number(128, 1024, kAllowed);
       if ((size & (size - 1)) != 0) throw v.Wrong(kAllowed);
       mount.virtiofs_queue_size = static_cast<unsigned>(size);
     }},
};
constexpr Key<MountSpec> kMountKeys[] = {
    {"9p", kText,
     [](const Value& v, MountSpec& mount) { ReadMap(v, kNinepKeys, mount); }},
    {"location", kText,
     [](const Value& v, MountSpec& mount) {
       mount.location = ReadHostPath(v, kLocation);
     }},
    {"mountPoint", kText,
     [](const Value& v, MountSpec& mount) {
       std::string path = v.Template(kMountPoint, TemplateSide::kGuest);
       while (path.size() > 1 && path.ends_with('/')) path.pop_back();
       if (!IsAbsolute(path) || !IsPlainLine(path) || HasDots(path)) {
         throw v.Wrong(kMountPoint);
       }
       if (IsSystemPath(path)) {
         throw v.Fault(
             fmt::format("is '{}', which the guest's system needs; "
                         "name a directory of its own",
                         path));
       }
       mount.mount_point = std::move(path);
       mount.follows = false;
     }},
    {"name", kText,
     [](const Value& v, MountSpec& mount) {
       std::string name = v.Text(kMountName);
       if (!IsMountName(name)) throw v.Wrong(kMountName);
       mount.name = std::move(name);
     }},
    {"sshfs", kText,
     [](const Value& v, MountSpec& mount) { ReadMap(v, kSshfsKeys, mount); }},
    {"virtiofs", kText,
     [](const Value& v, MountSpec& mount) {
       ReadMap(v, kVirtiofsKeys, mount);
     }},
    {"writable", kPlain,
     [](const Value& v, MountSpec& mount) { mount.writable = v.Bool(); }},
};

MountSpec ReadMount(const Value& value) {
  MountSpec mount;
  mount.origin.layer = value.Node().document;
  ReadMap(value, kMountKeys, mount);
  if (mount.location.empty()) {
    throw value.Fault(
        "has no location; add one, as in 'location: /srv/src' (and write \"~\" "
        "in quotes)");
  }
  if (mount.mount_point.empty()) {
    if (IsSystemPath(mount.location)) {
      throw value.Fault(fmt::format(
          "has no mountPoint, and the guest needs its own '{}'; add one, as in "
          "'mountPoint: /mnt/host'",
          mount.location));
    }
    mount.mount_point = mount.location;
  }
  return mount;
}

MountType TypeOf(std::string_view word) {
  if (word == "reverse-sshfs") return MountType::kReverseSshfs;
  if (word == "9p") return MountType::k9p;
  return word == "virtiofs" ? MountType::kVirtiofs : MountType::kAuto;
}

// A network, and whether it is of a kind that is here.
struct NetworkItem {
  NetworkSpec spec;
  bool foreign = false;
};

constexpr Key<NetworkItem> kNetworkKeys[] = {
    {"interface", kText,
     [](const Value& v, NetworkItem& network) {
       constexpr char kAllowed[] =
           "an interface's name, of 15 bytes at most, not eth0";
       network.spec.interface = v.Text(kAllowed);
       if (network.spec.interface.empty() ||
           network.spec.interface.size() > 15 ||
           !Consists(network.spec.interface, "._-") ||
           network.spec.interface == "eth0") {
         throw v.Wrong(kAllowed);
       }
     }},
    {"lima", kText,
     [](const Value& v, NetworkItem& network) {
       constexpr char kAllowed[] =
           "a network's name, as in 'shared' or one of .host/networks";
       network.spec.name = v.Text(kAllowed);
       if (network.spec.name.empty() || !Consists(network.spec.name, "._-")) {
         throw v.Wrong(kAllowed);
       }
     }},
    {"macAddress", kText,
     [](const Value& v, NetworkItem& network) {
       constexpr char kAllowed[] = "a MAC address, as in '52:54:00:12:34:56'";
       const std::string mac = v.Text(kAllowed);
       bool good = mac.size() == 17;
       for (std::size_t i = 0; good && i < mac.size(); ++i) {
         good = i % 3 == 2 ? mac[i] == ':'
                           : std::isxdigit(static_cast<unsigned char>(mac[i]));
       }
       if (!good) throw v.Wrong(kAllowed);
       network.spec.mac_address = mac;
     }},
    {"metric", kPlain,
     [](const Value& v, NetworkItem& network) {
       network.spec.metric = static_cast<unsigned>(
           v.Number(0, 4294967295, "a whole number from 0 to 4294967295"));
     }},
    {"socket", kText,
     [](const Value& v, NetworkItem& network) {
       (void)v.Line("the path of a socket");
       network.foreign = true;
     }},
    {"vzNAT", kPlain,
     [](const Value& v, NetworkItem& network) { network.foreign |= v.Bool(); }},
};

constexpr Key<DiskSpec> kDiskKeys[] = {
    {"format", kPlain,
     [](const Value& v, DiskSpec& disk) { disk.format = v.Bool(); }},
    {"fsArgs", kText,
     [](const Value& v, DiskSpec& disk) {
       for (const Value& item : v.Items("a list of words")) {
         disk.fs_args.push_back(item.Line("a word"));
       }
     }},
    {"fsType", kText,
     [](const Value& v, DiskSpec& disk) {
       constexpr char kAllowed[] = "a file system, as in 'ext4'";
       disk.fs_type = v.Text(kAllowed);
       if (disk.fs_type.empty() || !Consists(disk.fs_type, "")) {
         throw v.Wrong(kAllowed);
       }
     }},
    {"name", kText,
     [](const Value& v, DiskSpec& disk) {
       constexpr char kAllowed[] = "a disk's name, of letters, digits and ._-";
       disk.name = v.Text(kAllowed);
       if (!IsMountName(disk.name)) throw v.Wrong(kAllowed);
     }},
};

// Names are one each; those that were not chosen give way.
void NameMounts(const Value& value, std::vector<MountSpec>& mounts,
                const std::vector<bool>& chosen) {
  std::set<std::string> taken;
  for (std::size_t i = 0; i < mounts.size(); ++i) {
    if (chosen[i] && !taken.insert(mounts[i].name).second) {
      throw value.Item(i).Fault(
          fmt::format("has the name '{}' of another; "
                      "change or remove one",
                      mounts[i].name));
    }
  }
  for (std::size_t i = 0; i < mounts.size(); ++i) {
    if (chosen[i]) continue;
    const std::string name = MountNameOf(mounts[i].location);
    mounts[i].name = name;
    for (int n = 2; !taken.insert(mounts[i].name).second; ++n) {
      mounts[i].name = fmt::format("{}-{}", name, n);
    }
  }
}

}  // namespace

bool IsMountName(std::string_view name) {
  return !name.empty() && name.size() <= 58 && Consists(name, "._-") &&
         Consists(name.substr(0, 1), "");
}

std::string MountNameOf(std::string_view location) {
  const std::string_view last = location.substr(location.rfind('/') + 1);
  std::string name;
  for (const char c : last) {
    const char one[] = {c, '\0'};
    name += Consists(one, "._-") ? c : '-';
  }
  const auto first = name.find_first_not_of("._-");
  name.erase(0, std::min(first, name.size()));
  name.resize(std::min<std::size_t>(name.size(), 58));
  if (name.empty()) return last.starts_with('~') ? "home" : "root";
  return name;
}

void ReadMounts(const Value& value, Spec& spec) {
  spec.mounts.clear();
  std::vector<bool> chosen;
  for (const Value& item :
       value.Items("a list of mounts, each with its location, as in "
                   "'- location: /srv/src'")) {
    MountSpec mount = ReadMount(item);
    for (const MountSpec& other : spec.mounts) {
      const char* same = nullptr;
      if (other.location == mount.location) same = "location";
      if (other.mount_point == mount.mount_point) same = "mountPoint";
      if (same != nullptr) {
        throw item.Fault(
            fmt::format("has the same {} as another; change or "
                        "remove one",
                        same));
      }
    }
    chosen.push_back(!mount.name.empty());
    spec.mounts.push_back(std::move(mount));
  }
  NameMounts(value, spec.mounts, chosen);
}

void ReadMountType(const Value& value, Spec& spec) {
  constexpr std::string_view kTypes[] = {"default", "reverse-sshfs", "9p",
                                         "virtiofs"};
  spec.mount_type = TypeOf(value.OneOf(kTypes));
}

void ReadMountTypesUnsupported(const Value& value, Spec& spec) {
  constexpr std::string_view kTypes[] = {"reverse-sshfs", "9p", "virtiofs"};
  spec.mount_types_unsupported.clear();
  for (const Value& item : value.Items("a list of mount types")) {
    spec.mount_types_unsupported.push_back(TypeOf(item.OneOf(kTypes)));
  }
}

void ReadNetworks(const Value& value, Spec& spec) {
  spec.networks.clear();
  for (const Value& item :
       value.Items("a list of networks, as in '- lima: shared'")) {
    NetworkItem network;
    ReadMap(item, kNetworkKeys, network);
    if (network.spec.name.empty()) {
      if (network.foreign) continue;
      throw item.Fault("names no network; add one, as in 'lima: shared'");
    }
    if (network.foreign) {
      throw item.Fault("has both lima and socket or vzNAT; leave one");
    }
    spec.networks.push_back(std::move(network.spec));
  }
}

void ReadEgress(const Value& value, Spec& spec) {
  constexpr char kAllowed[] =
      "a host and port, as in 'example.com:443', '*.debian.org' (80 and 443) "
      "or '10.0.0.7:*'";
  spec.egress.clear();
  for (const Value& item :
       value.Items("a list of hosts and ports, as in '- example.com:443'")) {
    std::string text = item.Line(kAllowed);
    if (!ParseEgressRule(text)) throw item.Wrong(kAllowed);
    spec.egress.push_back(std::move(text));
  }
}

void ReadDisks(const Value& value, Spec& spec) {
  spec.additional_disks.clear();
  for (const Value& item :
       value.Items("a list of disks of .host/disks, as in '- name: data'")) {
    DiskSpec disk;
    if (item.IsScalar()) {
      kDiskKeys[3].read(item, disk);
    } else {
      ReadMap(item, kDiskKeys, disk);
    }
    if (disk.name.empty()) {
      throw item.Fault("has no name; add one, as in 'name: data'");
    }
    spec.additional_disks.push_back(std::move(disk));
  }
}

}  // namespace sbxfs
