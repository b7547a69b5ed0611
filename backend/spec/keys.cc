#include "backend/spec/keys.h"

#include <array>
#include <cctype>

#include "backend/spec/readers.h"
#include "backend/spec/value.h"

namespace sbxfs {
namespace {

constexpr uint64_t kMaxCpus = 255;  // of a q35 without an IOMMU
constexpr uint64_t kMinMemory = 16ULL << 20;
constexpr uint64_t kMaxMemory = 16ULL << 40;
constexpr uint64_t kMinDisk = 1ULL << 20;
constexpr uint64_t kMaxDisk = 64ULL << 40;

using enum ValueType;
using SpecKey = Key<Spec>;

template <auto member>
void ReadFlag(const Value& value, Spec& spec) {
  spec.*member = value.Bool();
}

// Of keys that have no effect here, see kIdle.
void CheckFlag(const Value& value, Spec&) { (void)value.Bool(); }
void CheckText(const Value& value, Spec&) { (void)value.Text(); }

void CheckOs(const Value& value, Spec&) {
  constexpr std::string_view kSystems[] = {"Linux", "default"};
  (void)value.OneOf(kSystems);
}

void CheckVmType(const Value& value, Spec&) {
  constexpr std::string_view kTypes[] = {"default", "qemu", "vz"};
  (void)value.OneOf(kTypes);
}

void CheckVersion(const Value& value, Spec&) {
  constexpr char kAllowed[] = "a version, as in '1.0.0'";
  const std::string version = value.Text(kAllowed);
  if (version.empty() || !Consists(version, ".-+") ||
      std::isdigit(static_cast<unsigned char>(version[0])) == 0) {
    throw value.Wrong(kAllowed);
  }
}

void CheckBase(const Value& value, Spec&) { (void)ReadBase(value.Node()); }

void CheckCopies(const Value& value, Spec& spec) {
  constexpr SpecKey kKeys[] = {
      {"deleteOnStop", kPlain, CheckFlag},
      {"guest", kText,
       [](const Value& v, Spec&) {
         (void)v.Template("a path in the guest", TemplateSide::kGuest);
       }},
      {"host", kText,
       [](const Value& v, Spec&) {
         (void)v.Template("a path on the host", TemplateSide::kHost);
       }},
  };
  for (const Value& item : value.Items("a list of files, each with guest and "
                                       "host")) {
    ReadMap(item, kKeys, spec);
  }
}

constexpr SpecKey kAudioKeys[] = {{"device", kText, CheckText}};
constexpr SpecKey kContainerdKeys[] = {{"archives", kText, CheckFiles},
                                       {"system", kPlain, CheckFlag},
                                       {"user", kPlain, CheckFlag}};
constexpr SpecKey kFirmwareKeys[] = {
    {"images", kText, CheckFiles},
    {"legacyBIOS", kPlain, ReadFlag<&Spec::legacy_bios>}};
constexpr SpecKey kHostResolverKeys[] = {{"enabled", kPlain, CheckFlag},
                                         {"hosts", kText, ReadHosts},
                                         {"ipv6", kPlain, CheckFlag}};
constexpr SpecKey kRosettaKeys[] = {{"binfmt", kPlain, CheckFlag},
                                    {"enabled", kPlain, CheckFlag}};
constexpr SpecKey kSshKeys[] = {
    {"address", kText, CheckText},
    {"ca", kPlain, ReadFlag<&Spec::ssh_ca>},
    {"forwardAgent", kPlain, ReadFlag<&Spec::forward_agent>},
    {"forwardX11", kPlain, ReadFlag<&Spec::forward_x11>},
    {"forwardX11Trusted", kPlain, ReadFlag<&Spec::forward_x11_trusted>},
    {"loadDotSSHPubKeys", kPlain, ReadFlag<&Spec::load_dot_ssh_pub_keys>},
    {"localPort", kPlain,
     [](const Value& value, Spec& spec) {
       spec.ssh_port = static_cast<int>(value.Number(
           0, 65535, "a port from 1 to 65535, or 0 for one that is free"));
     }},
    {"overVsock", kPlain, CheckFlag},
};
constexpr SpecKey kUserKeys[] = {
    {"comment", kText, ReadUserComment},
    {"home", kText, ReadUserHome},
    {"name", kText, ReadUserName},
    {"shell", kText, ReadUserShell},
    {"uid", kPlain,
     [](const Value& value, Spec& spec) {
       spec.uid = static_cast<unsigned>(
           value.Number(1, 2147483647, "a whole number from 1 to 2147483647"));
     }},
};
constexpr SpecKey kVncKeys[] = {{"display", kText, CheckText}};
constexpr SpecKey kVideoKeys[] = {
    {"display", kText,
     [](const Value& value, Spec& spec) {
       constexpr char kAllowed[] = "a display, as in 'none' or 'vnc'";
       spec.video_display = value.Line(kAllowed);
     }},
    {"vnc", kText,
     [](const Value& value, Spec& spec) { ReadMap(value, kVncKeys, spec); }},
};

template <const auto& keys>
void ReadKeysOf(const Value& value, Spec& spec) {
  ReadMap(value, keys, spec);
}

constexpr SpecKey kRootKeys[] = {
    {"additionalDisks", kText, ReadDisks},
    {"arch", kText, ReadArch},
    {"audio", kText, ReadKeysOf<kAudioKeys>},
    {"autostart", kPlain, ReadFlag<&Spec::autostart>},
    {"base", kText, CheckBase},
    {"caCerts", kText, ReadCaCerts},
    {"containerd", kText, ReadKeysOf<kContainerdKeys>},
    {"copyToHost", kText, CheckCopies},
    {"cpuType", kText, ReadCpuType},
    {"cpus", kPlain,
     [](const Value& value, Spec& spec) {
       spec.cpus = static_cast<unsigned>(
           value.Number(1, kMaxCpus, "a whole number from 1 to 255"));
     }},
    {"description", kText,
     [](const Value& value, Spec& spec) { spec.description = value.Prose(); }},
    {"disk", kSize,
     [](const Value& value, Spec& spec) {
       spec.disk = value.Size(kMinDisk, kMaxDisk);
     }},
    {"dns", kText, ReadDns},
    {"egress", kText, ReadEgress},
    {"env", kText, ReadEnv},
    {"firmware", kText, ReadKeysOf<kFirmwareKeys>},
    {"guestInstallPrefix", kText, CheckText},
    {"host", kText,
     [](const Value& value, Spec&) {
       // The making of a sandbox looks at it, and nothing later.
       constexpr char kAllowed[] = "the name of a hypervisor in .host/hosts";
       const std::string name = value.Text(kAllowed);
       if (name.empty() || !Consists(name, "-")) throw value.Wrong(kAllowed);
     }},
    {"hostResolver", kText, ReadKeysOf<kHostResolverKeys>},
    {"idle", kPlain,
     [](const Value& value, Spec& spec) { spec.idle = value.Duration(); }},
    {"images", kText, ReadImages},
    {"maxCPUs", kPlain,
     [](const Value& value, Spec& spec) {
       spec.max_cpus = static_cast<unsigned>(
           value.Number(1, kMaxCpus, "a whole number from 1 to 255"));
     }},
    {"maxMemory", kSize,
     [](const Value& value, Spec& spec) {
       spec.max_memory = value.Size(kMinMemory, kMaxMemory);
     }},
    {"memory", kSize,
     [](const Value& value, Spec& spec) {
       spec.memory = value.Size(kMinMemory, kMaxMemory);
     }},
    {"message", kText,
     [](const Value& value, Spec& spec) {
       (void)value.Template("a text", TemplateSide::kMessage);
       spec.message = value.Prose();
     }},
    {"minimumLimaVersion", kText, CheckVersion},
    {"mountInotify", kPlain, CheckFlag},
    {"mountType", kText, ReadMountType},
    {"mountTypesUnsupported", kText, ReadMountTypesUnsupported},
    {"mounts", kText, ReadMounts},
    {"nestedVirtualization", kPlain, ReadFlag<&Spec::nested_virtualization>},
    {"network", kText,
     [](const Value& value, Spec& spec) {
       constexpr std::string_view kNetworks[] = {"user", "none"};
       spec.isolated = value.OneOf(kNetworks) == "none";
     }},
    {"networks", kText, ReadNetworks},
    {"os", kText, CheckOs},
    {"param", kText, ReadParam},
    {"plain", kPlain, ReadFlag<&Spec::plain>},
    {"portForwards", kText, ReadPortForwards},
    {"probes", kText, ReadProbes},
    {"propagateProxyEnv", kPlain, ReadFlag<&Spec::propagate_proxy_env>},
    {"provision", kText, ReadProvision},
    {"rosetta", kText, ReadKeysOf<kRosettaKeys>},
    {"saveOnStop", kPlain, CheckFlag},
    {"snapshotMemory", kPlain, ReadFlag<&Spec::snapshot_memory>},
    {"ssh", kText, ReadKeysOf<kSshKeys>},
    {"timezone", kText, ReadTimezone},
    {"tpm", kPlain, ReadFlag<&Spec::tpm>},
    {"upgradePackages", kPlain, ReadFlag<&Spec::upgrade_packages>},
    {"user", kText, ReadKeysOf<kUserKeys>},
    {"video", kText, ReadKeysOf<kVideoKeys>},
    {"vmOpts", kText, ReadVmOpts},
    {"vmType", kText, CheckVmType},
    {"warm", kPlain, ReadFlag<&Spec::warm>},
};

// Keys, list items as [], that are accepted and change nothing, and why.
struct Idle {
  std::string_view key;  // and what is below it
  std::string_view why;
};
constexpr char kMac[] = "it is for macOS";
constexpr Idle kIdle[] = {
    {"audio", "a sandbox has no sound"},
    {"containerd", "containerd is not installed; a provision step can do it"},
    {"copyToHost", "nothing is copied by itself; use scp"},
    {"firmware.images", "libvirt chooses the firmware"},
    {"guestInstallPrefix", "no agent of Lima's is installed"},
    {"hostResolver.enabled", "the hypervisor's network resolves names"},
    {"hostResolver.ipv6", "the hypervisor's network resolves names"},
    {"images[].initrd", "the disk boots itself"},
    {"images[].kernel", "the disk boots itself"},
    {"message", "nothing is printed at a start"},
    {"minimumLimaVersion", "this is not Lima"},
    {"mountInotify", "changes on the host are not told to the guest's inotify"},
    {"mounts[].sshfs.sftpDriver", "sbxfs serves the files itself"},
    {"nestedVirtualization", "the CPU is as cpuType says"},
    {"networks[].socket", kMac},
    {"networks[].vzNAT", kMac},
    {"os", "Linux is all there is"},
    {"portForwards[].static", "a port that is named is always forwarded"},
    {"provision[].skipDefaultDependencyResolution",
     "sbxfs installs no packages by itself"},
    {"rosetta", kMac},
    {"saveOnStop", "write save to status"},
    {"ssh.address", "the ssh port is on 127.0.0.1"},
    {"ssh.overVsock", kMac},
    {"tpm", "a sandbox has no TPM"},
    {"video", "a sandbox has no display, but a serial console"},
    {"vmOpts.qemu.minimumVersion", "libvirt's QEMU is the one there is"},
    {"vmOpts.vz", kMac},
    {"vmType", "a sandbox is a QEMU machine"},
};

void CheckParams(const std::vector<ParamUse>& uses, const Spec& spec) {
  std::vector<std::string_view> known;
  for (const auto& [name, value] : spec.param) known.emplace_back(name);
  for (const ParamUse& use : uses) {
    if (spec.param.count(use.name) != 0) continue;
    throw YamlError(
        use.node,
        fmt::format("{} has the template '{{{{.Param.{}}}}}', but param has no "
                    "'{}'; {}",
                    use.key, use.name, use.name,
                    known.empty()
                        ? "there are none"
                        : fmt::format("there are {}", fmt::join(known, ", "))));
  }
}

}  // namespace

bool IsLogin(std::string_view text) {
  return !text.empty() && text.size() <= 32 && Consists(text, "_-") &&
         std::none_of(text.begin(), text.end(),
                      [](unsigned char c) { return std::isupper(c) != 0; }) &&
         std::string_view("-0123456789").find(text[0]) == text.npos;
}

ValueType TypeOfKey(std::string_view key) {
  const auto dot = key.find('.');
  const std::string_view map = dot == key.npos ? "" : key.substr(0, dot);
  const std::string_view name = map.empty() ? key : key.substr(dot + 1);
  std::span<const SpecKey> keys = kRootKeys;
  if (map == "ssh") keys = kSshKeys;
  if (map == "user") keys = kUserKeys;
  if (map == "firmware") keys = kFirmwareKeys;
  if (!map.empty() && keys.data() == kRootKeys) return kText;
  for (const SpecKey& known : keys) {
    if (known.name == name) return known.type;
  }
  return kText;
}

std::string_view WhyIdle(std::string_view key) {
  for (const Idle& idle : kIdle) {
    if (!key.starts_with(idle.key)) continue;
    const std::string_view rest = key.substr(idle.key.size());
    if (rest.empty() || rest[0] == '.' || rest[0] == '[') return idle.why;
  }
  return {};
}

std::vector<YamlNode> ReadBase(const YamlNode& node) {
  std::vector<ParamUse> unused;
  const Value value("base", node, unused);
  constexpr char kAllowed[] =
      "a template of .host/templates, as in 'template:NAME', or a list of such";
  std::vector<YamlNode> names;
  const auto read = [&](const Value& one) {
    // Lima takes a map with url, too.
    const YamlNode* url = one.IsMap() ? one.Node().Find("url") : nullptr;
    if (url != nullptr && one.Node().entries.size() == 1) {
      (void)one.Child("url", *url).Line(kAllowed);
      names.push_back(*url);
    } else {
      (void)one.Line(kAllowed);
      names.push_back(one.Node());
    }
  };
  if (!value.IsList()) {
    read(value);
    return names;
  }
  for (const Value& item : value.Items(kAllowed)) read(item);
  return names;
}

Spec ReadKeys(const YamlNode& root, bool whole) {
  Spec spec;
  if (root.kind == YamlNode::Kind::kNull) return spec;
  std::vector<ParamUse> uses;
  if (root.kind != YamlNode::Kind::kMap) {
    throw Value("the text", root, uses)
        .Wrong("keys with their values, as in 'cpus: 2'");
  }
  const Value value("", root, uses);
  ReadMap(value, kRootKeys, spec);
  // Its cpuType wins over the older one at the root, as in Lima.
  const YamlNode* options = root.Find("vmOpts");
  if (options != nullptr && options->kind == YamlNode::Kind::kMap) {
    ReadVmOpts(value.Child("vmOpts", *options), spec);
  }
  if (whole) CheckParams(uses, spec);
  return spec;
}

}  // namespace sbxfs
