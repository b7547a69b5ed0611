// The keys that join a sandbox to its host: mounts, ports, networks, disks.
#include <array>
#include <cctype>
#include <set>

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

bool HasDots(std::string_view path) {
  for (const std::string_view part : Split(path, '/')) {
    if (part == ".." || part == ".") return true;
  }
  return false;
}

// A path, or a template that will be one.
bool IsAbsolute(std::string_view text) {
  return text.starts_with('/') || text.starts_with("{{");
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

// What is written in a rule; Lima's defaults are filled in afterwards.
struct Rule {
  PortForward forward;
  int guest_port = 0, host_port = 0;
  bool guest_range = false, host_range = false;
};

constexpr char kPort[] = "a port from 1 to 65535";

int ReadPort(const Value& value) {
  // Lima takes 0 for one that is not given.
  return static_cast<int>(value.Number(0, 65535, kPort));
}

void ReadPortRange(const Value& value, int& first, int& last) {
  constexpr char kAllowed[] = "two ports, as in [4000, 4010]";
  const std::vector<Value> items = value.Items(kAllowed);
  if (items.size() != 2) throw value.Wrong(kAllowed);
  first = static_cast<int>(items[0].Number(1, 65535, kPort));
  last = static_cast<int>(items[1].Number(1, 65535, kPort));
  if (last < first) {
    throw value.Fault(
        fmt::format("is {} to {}; the first must not be the "
                    "greater",
                    first, last));
  }
}

std::string ReadAddress(const Value& value) {
  constexpr char kAllowed[] = "an IP address";
  std::string address = value.Text(kAllowed);
  if (!IsAddress(address)) throw value.Wrong(kAllowed);
  return address;
}

std::string ReadSocket(const Value& value, TemplateSide side) {
  constexpr char kAllowed[] = "the path of a socket";
  std::string path = value.Template(kAllowed, side);
  if (path.empty() || !IsPlainLine(path) || HasDots(path) ||
      (side == TemplateSide::kGuest && !IsAbsolute(path))) {
    throw value.Wrong(side == TemplateSide::kGuest ? "an absolute path in the "
                                                     "guest"
                                                   : kAllowed);
  }
  return path;
}

constexpr Key<Rule> kRuleKeys[] = {
    {"guestIP", kText,
     [](const Value& v, Rule& rule) {
       rule.forward.guest_ip = ReadAddress(v);
     }},
    {"guestIPMustBeZero", kPlain,
     [](const Value& v, Rule& rule) {
       rule.forward.guest_ip_must_be_zero = v.Bool();
     }},
    {"guestPort", kPlain,
     [](const Value& v, Rule& rule) { rule.guest_port = ReadPort(v); }},
    {"guestPortRange", kText,
     [](const Value& v, Rule& rule) {
       rule.guest_range = true;
       ReadPortRange(v, rule.forward.guest_first, rule.forward.guest_last);
     }},
    {"guestSocket", kText,
     [](const Value& v, Rule& rule) {
       rule.forward.guest_socket = ReadSocket(v, TemplateSide::kGuest);
     }},
    {"hostIP", kText,
     [](const Value& v, Rule& rule) { rule.forward.host_ip = ReadAddress(v); }},
    {"hostPort", kPlain,
     [](const Value& v, Rule& rule) { rule.host_port = ReadPort(v); }},
    {"hostPortRange", kText,
     [](const Value& v, Rule& rule) {
       rule.host_range = true;
       ReadPortRange(v, rule.forward.host_first, rule.forward.host_last);
     }},
    {"hostSocket", kText,
     [](const Value& v, Rule& rule) {
       rule.forward.host_socket = ReadSocket(v, TemplateSide::kHost);
     }},
    {"ignore", kPlain,
     [](const Value& v, Rule& rule) { rule.forward.ignore = v.Bool(); }},
    {"proto", kText,
     [](const Value& v, Rule& rule) {
       constexpr std::string_view kProtos[] = {"tcp", "udp", "any"};
       const std::string proto = v.OneOf(kProtos);
       using Proto = PortForward::Proto;
       rule.forward.proto = proto == "tcp"   ? Proto::kTcp
                            : proto == "udp" ? Proto::kUdp
                                             : Proto::kAny;
     }},
    {"reverse", kPlain,
     [](const Value& v, Rule& rule) { rule.forward.reverse = v.Bool(); }},
    {"static", kPlain, [](const Value& v, Rule&) { (void)v.Bool(); }},
};

// Lima's defaults: a port is its own range, all ports where none is given, and
// the host's are the guest's.
void FillPorts(Rule& rule) {
  PortForward& forward = rule.forward;
  if (rule.guest_port != 0) {
    forward.guest_first = forward.guest_last = rule.guest_port;
  }
  if (rule.host_port != 0) {
    forward.host_first = forward.host_last = rule.host_port;
  } else if (!rule.host_range) {
    forward.host_first = forward.guest_first;
    forward.host_last = forward.guest_last;
  }
}

void CheckRule(const Value& value, const Rule& rule) {
  const PortForward& forward = rule.forward;
  const int guest_count = forward.guest_last - forward.guest_first;
  const int host_count = forward.host_last - forward.host_first;
  const bool guest_socket = !forward.guest_socket.empty();
  const bool host_socket = !forward.host_socket.empty();
  const auto refuse = [&](bool wrong, const char* reason) {
    if (wrong) throw value.Fault(reason);
  };
  refuse(rule.guest_port != 0 && rule.guest_range,
         "has both guestPort and guestPortRange; leave one");
  refuse(rule.host_port != 0 && rule.host_range,
         "has both hostPort and hostPortRange; leave one");
  refuse(guest_socket && (rule.guest_port != 0 || rule.guest_range),
         "has both a guestSocket and a guest port; leave one");
  refuse(host_socket && (rule.host_port != 0 || rule.host_range),
         "has both a hostSocket and a host port; leave one");
  refuse(guest_socket && !host_socket &&
             (rule.host_port == 0 && (!rule.host_range || host_count > 0)),
         "has a guestSocket, which needs a hostSocket or one hostPort");
  refuse(host_socket && !guest_socket && guest_count > 0,
         "has a hostSocket, which needs a guestSocket or one guestPort");
  refuse(!guest_socket && !host_socket && guest_count != host_count,
         "has not as many host ports as guest ports");
  refuse(forward.reverse && !(guest_socket && host_socket),
         "is reverse, which needs guestSocket and hostSocket");
  refuse(forward.guest_ip_must_be_zero && forward.guest_ip != "0.0.0.0",
         "has guestIPMustBeZero, which needs guestIP to be 0.0.0.0");
}

PortForward ReadRule(const Value& value) {
  Rule rule;
  // Lima's default; `any` is what has to be asked for.
  rule.forward.proto = PortForward::Proto::kTcp;
  rule.forward.origin.layer = value.Node().document;
  ReadMap(value, kRuleKeys, rule);
  if (rule.forward.guest_ip_must_be_zero && rule.forward.guest_ip.empty()) {
    rule.forward.guest_ip = "0.0.0.0";
  }
  FillPorts(rule);
  CheckRule(value, rule);
  return rule.forward;
}

// A network, and whether it is of a kind that is here.
struct Network {
  NetworkSpec spec;
  bool foreign = false;
};

constexpr Key<Network> kNetworkKeys[] = {
    {"interface", kText,
     [](const Value& v, Network& network) {
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
     [](const Value& v, Network& network) {
       constexpr char kAllowed[] =
           "a network's name, as in 'shared' or one of .host/networks";
       network.spec.name = v.Text(kAllowed);
       if (network.spec.name.empty() || !Consists(network.spec.name, "._-")) {
         throw v.Wrong(kAllowed);
       }
     }},
    {"macAddress", kText,
     [](const Value& v, Network& network) {
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
     [](const Value& v, Network& network) {
       network.spec.metric = static_cast<unsigned>(
           v.Number(0, 4294967295, "a whole number from 0 to 4294967295"));
     }},
    {"socket", kText,
     [](const Value& v, Network& network) {
       (void)v.Line("the path of a socket");
       network.foreign = true;
     }},
    {"vzNAT", kPlain,
     [](const Value& v, Network& network) { network.foreign |= v.Bool(); }},
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

void ReadPortForwards(const Value& value, Spec& spec) {
  spec.port_forwards.clear();
  for (const Value& item :
       value.Items("a list of rules, as in '- guestPort: 80'")) {
    spec.port_forwards.push_back(ReadRule(item));
  }
}

void ReadNetworks(const Value& value, Spec& spec) {
  spec.networks.clear();
  for (const Value& item :
       value.Items("a list of networks, as in '- lima: shared'")) {
    Network network;
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
