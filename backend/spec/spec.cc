#include "backend/spec/spec.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <set>

#include "backend/spec/keys.h"
#include "backend/spec/merge.h"
#include "backend/spec/scalar.h"
#include "backend/spec/yaml.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr char kImageUrl[] =
    "https://cloud.debian.org/images/cloud/bookworm/latest/"
    "debian-12-generic";

std::string OwnArch() {
  utsname system{};
  return uname(&system) == 0 ? system.machine : "";
}

// A text as YAML, empty for an empty one.
std::string PlainWord(std::string_view text) {
  return text.empty() ? "" : FormatScalar(text, ValueType::kText, false, '\0');
}

std::string ImagesSkeleton(const Spec& defaults) {
  std::string text = "# images:\n";
  for (const ImageSource& image : defaults.images) {
    text += fmt::format("#   - location: {}\n", PlainWord(image.location));
    if (!image.arch.empty())
      text += fmt::format("#     arch: {}\n", image.arch);
    if (!image.digest.empty()) {
      text += fmt::format("#     digest: {}\n", PlainWord(image.digest));
    }
  }
  return text;
}

// `#   key: value`, or without the value when nothing is set.
std::string Shown(std::string_view key, std::string_view value) {
  return value.empty() ? fmt::format("#   {}: null\n", key)
                       : fmt::format("#   {}: {}\n", key, value);
}

std::string UserSkeleton(const Spec& d) {
  return "# user:\n" + Shown("name", PlainWord(d.user)) +
         Shown("uid", d.uid ? fmt::to_string(*d.uid) : "") +
         Shown("home", d.home) + Shown("shell", d.shell) +
         Shown("comment", PlainWord(d.comment));
}

std::string CpuTypeSkeleton(const Spec& defaults) {
  std::string text = "# cpuType:\n";
  for (const auto& [arch, type] : defaults.cpu_types) {
    if (!type.empty()) text += Shown(arch, type);
  }
  if (text.ends_with(":\n")) text += Shown("x86_64", "");
  return text;
}

}  // namespace

std::string BuiltInLayer(std::string_view user) {
  return fmt::format(R"(images:
  - location: debian-12
  - location: {0}-amd64.qcow2
    arch: x86_64
  - location: {0}-arm64.qcow2
    arch: aarch64
arch: default
cpus: 2
memory: 1GiB
disk: 20GiB
autostart: false
idle: 0
snapshotMemory: false
warm: true
user:
  name: {1}
ssh:
  localPort: 0
  loadDotSSHPubKeys: false
  ca: false
  forwardAgent: false
  forwardX11: false
  forwardX11Trusted: false
caCerts:
  removeDefaults: false
mounts: []
mountType: default
nestedVirtualization: false
network: user
plain: false
portForwards: []
propagateProxyEnv: true
tpm: false
upgradePackages: false
video:
  display: none
)",
                     kImageUrl, PlainWord(IsLogin(user) ? user : "sandbox"));
}

Spec ParseSpec(const std::vector<Layer>& layers) {
  YamlNode merged;
  for (const Layer& layer : layers) {
    const YamlNode root = ReadYaml(layer.name, layer.text);
    // A fault is one, though a stronger layer hides it.
    (void)ReadKeys(root, /*whole=*/false);
    merged = MergeLayers(std::move(merged), root);
  }
  Spec spec = ReadKeys(merged, /*whole=*/true);
  const auto type =
      spec.cpu_types.find(spec.arch.empty() ? OwnArch() : spec.arch);
  if (type != spec.cpu_types.end()) spec.cpu_type = type->second;
  return spec;
}

std::vector<std::string> Differences(const Spec& a, const Spec& b) {
  std::set<std::string> keys;
  const auto compare = [&](const char* key, bool same) {
    if (!same) keys.insert(key);
  };
  compare("additionalDisks", a.additional_disks == b.additional_disks);
  compare("arch", a.arch == b.arch);
  compare("autostart", a.autostart == b.autostart);
  compare("caCerts", a.ca_certs == b.ca_certs && a.remove_default_ca_certs ==
                                                     b.remove_default_ca_certs);
  compare("cpuType", a.cpu_types == b.cpu_types && a.cpu_type == b.cpu_type);
  compare("cpus", a.cpus == b.cpus);
  compare("description", a.description == b.description);
  compare("disk", a.disk == b.disk);
  compare("dns", a.dns == b.dns);
  compare("egress", a.egress == b.egress);
  compare("env", a.env == b.env);
  compare("firmware.legacyBIOS", a.legacy_bios == b.legacy_bios);
  compare("hostResolver.hosts", a.hosts == b.hosts);
  compare("idle", a.idle == b.idle);
  compare("images", a.images == b.images);
  compare("maxCPUs", a.max_cpus == b.max_cpus);
  compare("maxMemory", a.max_memory == b.max_memory);
  compare("memory", a.memory == b.memory);
  compare("message", a.message == b.message);
  compare("mountType", a.mount_type == b.mount_type);
  compare("mountTypesUnsupported",
          a.mount_types_unsupported == b.mount_types_unsupported);
  compare("mounts", a.mounts == b.mounts);
  compare("nestedVirtualization",
          a.nested_virtualization == b.nested_virtualization);
  compare("network", a.isolated == b.isolated);
  compare("networks", a.networks == b.networks);
  compare("param", a.param == b.param);
  compare("plain", a.plain == b.plain);
  compare("portForwards", a.port_forwards == b.port_forwards);
  compare("probes", a.probes == b.probes);
  compare("propagateProxyEnv", a.propagate_proxy_env == b.propagate_proxy_env);
  compare("provision", a.provision == b.provision);
  compare("snapshotMemory", a.snapshot_memory == b.snapshot_memory);
  compare("warm", a.warm == b.warm);
  compare("ssh.ca", a.ssh_ca == b.ssh_ca);
  compare("ssh.forwardAgent", a.forward_agent == b.forward_agent);
  compare("ssh.forwardX11", a.forward_x11 == b.forward_x11);
  compare("ssh.forwardX11Trusted",
          a.forward_x11_trusted == b.forward_x11_trusted);
  compare("ssh.loadDotSSHPubKeys",
          a.load_dot_ssh_pub_keys == b.load_dot_ssh_pub_keys);
  compare("ssh.localPort", a.ssh_port == b.ssh_port);
  compare("timezone", a.timezone == b.timezone);
  compare("tpm", a.tpm == b.tpm);
  compare("upgradePackages", a.upgrade_packages == b.upgrade_packages);
  compare("user.comment", a.comment == b.comment);
  compare("user.home", a.home == b.home);
  compare("user.name", a.user == b.user);
  compare("user.shell", a.shell == b.shell);
  compare("user.uid", a.uid == b.uid);
  compare("video.display", a.video_display == b.video_display);
  return {keys.begin(), keys.end()};
}

std::string Skeleton(const Spec& d) {
  const auto flag = [](bool value) { return value ? "true" : "false"; };
  return fmt::format(
      R"(# This sandbox as it is wanted, in the words of Lima. Each key shows its
# default; take the "# " away to set it. sbxfs(5) explains them all.

# Where the disk comes from. The first of these that is there and fits is
# taken; each is a name in .host/images, an absolute path or an https URL.
{images}
# The machine. Sizes take KiB, MiB, GiB and TiB.
# cpus: {cpus}
# memory: {memory}
# disk: {disk}
# arch: {arch}

# How far cpus and memory can be raised while it runs.
# maxCPUs: {max_cpus}
# maxMemory: {max_memory}

# A word about it, and whether it starts with the host.
# description: {description}
# autostart: {autostart}

# Who logs in. What is null is as the guest's system has it.
{user}
# The port on 127.0.0.1 that leads to the guest's ssh, 0 for a free one; and
# whether the public keys of ~/.ssh are let in too.
# ssh:
#   localPort: {port}
#   loadDotSSHPubKeys: {load}

# Boot as a BIOS does, not by UEFI. Null is as the image needs it.
# firmware:
#   legacyBIOS: {bios}

# Another processor than the one that sbxfs would choose, by architecture.
{cpu_type}
# A template of .host/templates to stand on, as in template:NAME.
# base: null

# Directories of the host, at the same path in the guest, read-only unless
# writable is true; an entry is "- location: ~/src". mounts/ edits this list.
# mounts: []

# Ports of the guest that are open on the host; an entry is
# "- {{guestPort: 3000, hostPort: 8080}}". ports/ edits this list.
# portForwards: []

# What the guest reaches: "user" is all that the host does, "none" nothing; ssh,
# ports and mounts work with either.
# network: user

# Whom it reaches yet, by a proxy: an entry is "example.com:443".
# egress: []

# Scripts that are run at each boot, and those that tell whether all is ready;
# an entry has mode (system, user, boot, dependency, data) and script.
# provision: []
# probes: []

# The environment of logins and scripts.
# env: {{}}
)",
      fmt::arg("images", ImagesSkeleton(d)), fmt::arg("cpus", d.cpus),
      fmt::arg("memory", FormatSize(d.memory)),
      fmt::arg("disk", FormatSize(d.disk)),
      fmt::arg("max_cpus",
               d.max_cpus == 0 ? "null" : fmt::to_string(d.max_cpus)),
      fmt::arg("max_memory",
               d.max_memory == 0 ? "null" : FormatSize(d.max_memory)),
      fmt::arg("arch", d.arch.empty() ? "default" : d.arch),
      fmt::arg("description",
               d.description.empty() ? "\"\"" : PlainWord(d.description)),
      fmt::arg("autostart", flag(d.autostart)),
      fmt::arg("user", UserSkeleton(d)), fmt::arg("port", d.ssh_port),
      fmt::arg("load", flag(d.load_dot_ssh_pub_keys)),
      fmt::arg("bios", d.legacy_bios ? flag(*d.legacy_bios) : "null"),
      fmt::arg("cpu_type", CpuTypeSkeleton(d)));
}

}  // namespace sbxfs
