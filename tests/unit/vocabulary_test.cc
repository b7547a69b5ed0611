#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "backend/spec/keys.h"
#include "backend/spec/spec.h"
#include "backend/util/error.h"
#include "tests/unit/config_texts.h"

// Lima's vocabulary, key by key; spec_test.cc has YAML itself and the keys of
// the machine.

namespace sbxfs {
namespace {

TEST(VocabularyTest, Machine) {
  ExpectGood({
      {"vmType: qemu\nos: Linux\nminimumLimaVersion: 1.1.0\n",
       {},
       [](const Spec&) { return true; }},
      {"vmType: vz\nvmOpts: {vz: {rosetta: {enabled: true, binfmt: true}}}\n"
       "rosetta: {enabled: true, binfmt: false}\n",
       {},
       [](const Spec&) { return true; }},
      {"vmOpts:\n  qemu:\n    minimumVersion: 8.0.0\n    cpuType:\n"
       "      x86_64: max\ncpuType: {x86_64: host}\narch: x86_64\n",
       {"arch", "cpuType"},
       [](const Spec& s) { return s.cpu_type == "max"; }},
      {"cpuType: {s390x: max}", {}, [](const Spec&) { return true; }},
      {"images:\n- location: a\n  arch: s390x\n- location: b\n"
       "  kernel:\n    location: k\n    cmdline: root=/dev/vda1 ro\n"
       "    digest: sha256:" +
           std::string(64, '1') + "\n  initrd: {location: /boot/i}\n",
       {"images"},
       [](const Spec& s) {
         return s.images[0].arch == "s390x" && s.images[1].kernel == "k" &&
                s.images[1].kernel_cmdline == "root=/dev/vda1 ro" &&
                s.images[1].kernel_digest.size() == 71 &&
                s.images[1].initrd == "/boot/i";
       }},
      {"additionalDisks:\n- data\n- name: more\n  format: false\n"
       "  fsType: xfs\n  fsArgs: [-i, size=512]\n",
       {"additionalDisks"},
       [](const Spec& s) {
         return s.additional_disks.size() == 2 &&
                s.additional_disks[0].name == "data" &&
                s.additional_disks[0].format && !s.additional_disks[1].format &&
                s.additional_disks[1].fs_type == "xfs" &&
                s.additional_disks[1].fs_args ==
                    std::vector<std::string>{"-i", "size=512"};
       }},
      {"memory: 1GB\ndisk: \"10G\"\n",
       {"disk", "memory"},
       [](const Spec& s) {
         return s.memory == 1ULL << 30 && s.disk == 10ULL << 30;
       }},
      {"tpm: true\nnestedVirtualization: true\nplain: true\n",
       {"nestedVirtualization", "plain", "tpm"},
       [](const Spec& s) {
         return s.tpm && s.nested_virtualization && s.plain;
       }},
      {"video: {display: vnc, vnc: {display: '127.0.0.1:0,to=9'}}\n"
       "audio: {device: none}\n",
       {"video.display"},
       [](const Spec& s) { return s.video_display == "vnc"; }},
      {"firmware:\n  images:\n  - location: ~/edk2.fd.gz\n    arch: aarch64\n"
       "    vmType: qemu\n",
       {},
       [](const Spec& s) { return !s.legacy_bios; }},
      {"networks:\n- lima: shared\n  interface: lima0\n"
       "  macAddress: 52:54:00:12:34:56\n  metric: 200\n- lima: user-v2\n"
       "- socket: /run/socket_vmnet\n- vzNAT: true\n",
       {"networks"},
       [](const Spec& s) {
         return s.networks.size() == 2 && s.networks[0].name == "shared" &&
                s.networks[0].mac_address == "52:54:00:12:34:56" &&
                s.networks[0].interface == "lima0" &&
                s.networks[0].metric == 200 && s.networks[1].metric == 100;
       }},
      {"base: [template:_images/debian-12, template:mine]\n",
       {},
       [](const Spec&) { return true; }},
      {"message: |\n  Hello {{.Name}}\n",
       {"message"},
       [](const Spec& s) { return s.message == "Hello {{.Name}}"; }},
      {"saveOnStop: true\nguestInstallPrefix: /opt\nmountInotify: true\n"
       "containerd: {system: false, user: true, archives: []}\n"
       "copyToHost:\n- guest: /etc/a\n  host: \"{{.Dir}}/a\"\n"
       "  deleteOnStop: true\n",
       {},
       [](const Spec&) { return true; }},
  });
  const std::string one_of = "; it must be one of ";
  ExpectBad({
      {"vmType: wsl2",
       "line 1, column 9: vmType is 'wsl2'" + one_of + "default, qemu, vz"},
      {"os: Darwin",
       "line 1, column 5: os is 'Darwin'" + one_of + "Linux, default"},
      {"minimumLimaVersion: new",
       "line 1, column 21: minimumLimaVersion is 'new'; it must be a version, "
       "as in '1.0.0'"},
      {"images: [{location: a, initrd: {location: b}}]",
       "line 1, column 10: images[0] has an initrd, but no kernel; add one, or "
       "remove it"},
      {"images: [{location: a, kernel: {cmdline: b}}]",
       "line 1, column 32: images[0].kernel has no location; add one, as in "
       "'location: /boot/vmlinuz'"},
      {"vmOpts: {qemu: {cpus: 2}}",
       "line 1, column 17: unknown key 'vmOpts.qemu.cpus'; known keys of "
       "vmOpts.qemu: cpuType, minimumVersion"},
      {"rosetta: true",
       "line 1, column 10: rosetta is 'true'; it must be a map with the keys "
       "binfmt, enabled"},
      {"additionalDisks: [{format: true}]",
       "line 1, column 19: additionalDisks[0] has no name; add one, as in "
       "'name: data'"},
      {"additionalDisks: [../x]",
       "line 1, column 19: additionalDisks[0] is '../x'; it must be a disk's "
       "name, of letters, digits and ._-"},
      {"additionalDisks: [{name: a, fsType: 'ext4 -x'}]",
       "line 1, column 37: additionalDisks[0].fsType is the text \"ext4 -x\"; "
       "it must be a file system, as in 'ext4'"},
      {"networks: [{interface: eth0}]",
       "line 1, column 24: networks[0].interface is 'eth0'; it must be an "
       "interface's name, of 15 bytes at most, not eth0"},
      {"networks: [{metric: 1}]",
       "line 1, column 12: networks[0] names no network; add one, as in "
       "'lima: shared'"},
      {"networks: [{lima: a, socket: /b}]",
       "line 1, column 12: networks[0] has both lima and socket or vzNAT; "
       "leave one"},
      {"networks: [{lima: a, macAddress: '52:54'}]",
       "line 1, column 34: networks[0].macAddress is the text \"52:54\"; it "
       "must be a MAC address, as in '52:54:00:12:34:56'"},
      {"tpm: 1", "line 1, column 6: tpm is '1'; it must be true or false"},
      {"video: vnc",
       "line 1, column 8: video is 'vnc'; it must be a map with the keys "
       "display, vnc"},
      {"containerd: {user: maybe}",
       "line 1, column 20: containerd.user is 'maybe'; it must be true or "
       "false"},
  });
}

TEST(VocabularyTest, Mounts) {
  ExpectGood({
      {"mounts: []", {}, [](const Spec& s) { return s.mounts.empty(); }},
      {"mounts:\n- location: \"~\"\n- location: /tmp/lima\n  writable: true\n",
       {"mounts"},
       [](const Spec& s) {
         return s.mounts.size() == 2 && s.mounts[0].location == "~" &&
                s.mounts[0].name == "home" && !s.mounts[0].writable &&
                s.mounts[1].mount_point == "/tmp/lima" &&
                s.mounts[1].name == "lima" && s.mounts[1].writable;
       }},
      {"mounts:\n- location: /srv/a/\n  mountPoint: /mnt/{{.Name}}/\n"
       "  name: code\n  sshfs: {cache: false, followSymlinks: true, "
       "sftpDriver: builtin}\n  9p: {securityModel: mapped-xattr, "
       "protocolVersion: 9p2000.L, msize: 128KiB, cache: mmap}\n"
       "  virtiofs: {queueSize: 512}\n",
       {"mounts"},
       [](const Spec& s) {
         const MountSpec& m = s.mounts.at(0);
         return m.location == "/srv/a" && m.name == "code" &&
                m.mount_point == "/mnt/{{.Name}}" && m.sshfs_cache == false &&
                m.sshfs_follow_symlinks == true && m.msize == 131072 &&
                m.ninep_cache == "mmap" && m.ninep_security == "mapped-xattr" &&
                m.ninep_version == "9p2000.L" && m.virtiofs_queue_size == 512;
       }},
      {"mounts: [{location: /home, mountPoint: /mnt/home}]",
       {"mounts"},
       [](const Spec& s) { return s.mounts[0].mount_point == "/mnt/home"; }},
      {"mountType: default", {}, [](const Spec&) { return true; }},
      {"mountType: reverse-sshfs",
       {"mountType"},
       [](const Spec& s) { return s.mount_type == MountType::kReverseSshfs; }},
      {"mountType: virtiofs\nmountTypesUnsupported: [9p]\n",
       {"mountType", "mountTypesUnsupported"},
       [](const Spec& s) {
         return s.mount_type == MountType::kVirtiofs &&
                s.mount_types_unsupported ==
                    std::vector<MountType>{MountType::k9p};
       }},
  });
  const std::string location =
      "; it must be an absolute path of the host, or one that begins with ~/";
  ExpectBad({
      {"mounts: [~]",
       "line 1, column 10: mounts[0] is empty; it must be a map with the keys "
       "9p, location, mountPoint, name, sshfs, virtiofs, writable"},
      {"mounts:\n- location: ~\n",
       "line 2, column 3: mounts[0] has no location; add one, as in "
       "'location: /srv/src' (and write \"~\" in quotes)"},
      {"mounts: [{location: src}]",
       "line 1, column 21: mounts[0].location is 'src'" + location},
      {"mounts: [{location: /a/../b}]",
       "line 1, column 21: mounts[0].location is '/a/../b'" + location},
      {"mounts: [{location: ~bob/x}]",
       "line 1, column 21: mounts[0].location is '~bob/x'" + location},
      {"mounts: [{location: \"/a\\nb\"}]",
       "line 1, column 21: mounts[0].location is the text \"/a b\"" + location},
      {"mounts: [{location: /usr}]",
       "line 1, column 10: mounts[0] has no mountPoint, and the guest needs "
       "its own '/usr'; add one, as in 'mountPoint: /mnt/host'"},
      {"mounts: [{location: /a, mountPoint: /etc/}]",
       "line 1, column 37: mounts[0].mountPoint is '/etc', which the guest's "
       "system needs; name a directory of its own"},
      {"mounts: [{location: /a, mountPoint: b}]",
       "line 1, column 37: mounts[0].mountPoint is 'b'; it must be an "
       "absolute path in the guest"},
      {"mounts:\n- location: /a\n- location: /a\n",
       "line 3, column 3: mounts[1] has the same mountPoint as another; "
       "change or remove one"},
      {"mounts:\n- location: /a\n  name: x\n- location: /b\n  name: x\n",
       "line 4, column 3: mounts[1] has the name 'x' of another; change or "
       "remove one"},
      {"mounts: [{location: /a, name: a/b}]",
       "line 1, column 31: mounts[0].name is 'a/b'; it must be a name of "
       "letters, digits and ._-, as it is to stand in mounts/"},
      {"mounts: [{location: /a, writable: yes}]",
       "line 1, column 35: mounts[0].writable is 'yes'; it must be true or "
       "false"},
      {"mounts: [{location: /a, 9p: {cache: all}}]",
       "line 1, column 37: mounts[0].9p.cache is 'all'; it must be one of "
       "none, loose, fscache, mmap"},
      {"mounts: [{location: /a, 9p: {msize: 1}}]",
       "line 1, column 37: mounts[0].9p.msize is '1'; it must be a size from "
       "4KiB to 16MiB, as in '4GiB'"},
      {"mounts: [{location: /a, virtiofs: {queueSize: 300}}]",
       "line 1, column 47: mounts[0].virtiofs.queueSize is '300'; it must be "
       "a power of two from 128 to 1024"},
      {"mountType: nfs",
       "line 1, column 12: mountType is 'nfs'; it must be one of default, "
       "reverse-sshfs, 9p, virtiofs"},
      {"mountTypesUnsupported: 9p",
       "line 1, column 24: mountTypesUnsupported is '9p'; it must be a list "
       "of mount types"},
  });
}

TEST(VocabularyTest, Ports) {
  using Proto = PortForward::Proto;
  ExpectGood({
      {"portForwards:\n- guestPort: 443\n  hostIP: 0.0.0.0\n",
       {"portForwards"},
       [](const Spec& s) {
         const PortForward& p = s.port_forwards.at(0);
         return p.guest_first == 443 && p.guest_last == 443 &&
                p.host_first == 443 && p.host_last == 443 &&
                p.host_ip == "0.0.0.0" && p.guest_ip.empty() &&
                p.proto == Proto::kTcp;
       }},
      {"portForwards:\n- guestPortRange: [4000, 4999]\n"
       "  hostPortRange: [5000, 5999]\n  proto: udp\n",
       {"portForwards"},
       [](const Spec& s) {
         const PortForward& p = s.port_forwards.at(0);
         return p.guest_last == 4999 && p.host_first == 5000 &&
                p.host_last == 5999 && p.proto == Proto::kUdp;
       }},
      {"portForwards:\n- guestIP: 127.0.0.2\n  hostIP: 127.0.0.2\n"
       "  proto: any\n",
       {"portForwards"},
       [](const Spec& s) {
         const PortForward& p = s.port_forwards.at(0);
         return p.guest_first == 1 && p.guest_last == 65535 &&
                p.host_last == 65535 && p.guest_ip == "127.0.0.2" &&
                p.proto == Proto::kAny;
       }},
      {"portForwards:\n- guestPort: 7443\n  guestIPMustBeZero: true\n"
       "- guestPort: 8888\n  ignore: true\n- guestPortRange: [1, 65535]\n"
       "  ignore: true\n  static: false\n",
       {"portForwards"},
       [](const Spec& s) {
         return s.port_forwards.size() == 3 &&
                s.port_forwards[0].guest_ip == "0.0.0.0" &&
                s.port_forwards[1].ignore &&
                s.port_forwards[2].guest_last == 65535;
       }},
      {"portForwards:\n- guestSocket: \"/run/user/{{.UID}}/docker.sock\"\n"
       "  hostSocket: docker.sock\n- guestSocket: /run/a\n  hostPort: 99\n"
       "- guestPort: 80\n  hostSocket: /tmp/web\n- guestSocket: /run/agent\n"
       "  hostSocket: \"{{.Home}}/agent\"\n  reverse: true\n",
       {"portForwards"},
       [](const Spec& s) {
         return s.port_forwards[0].host_socket == "docker.sock" &&
                s.port_forwards[1].host_first == 99 &&
                s.port_forwards[2].host_socket == "/tmp/web" &&
                s.port_forwards[3].reverse;
       }},
  });
  const std::string port = "; it must be a port from 1 to 65535";
  const std::string rule = "line 1, column 16: portForwards[0] ";
  ExpectBad({
      {"portForwards: 80",
       "line 1, column 15: portForwards is '80'; it must be a list of rules, "
       "as in '- guestPort: 80'"},
      {"portForwards: [{guestPort: 65536}]",
       "line 1, column 28: portForwards[0].guestPort is '65536'" + port},
      {"portForwards: [{guestPort: \"80\"}]",
       "line 1, column 28: portForwards[0].guestPort is the text \"80\"" +
           port},
      {"portForwards: [{guestPortRange: [80]}]",
       "line 1, column 33: portForwards[0].guestPortRange is a list; it must "
       "be two ports, as in [4000, 4010]"},
      {"portForwards: [{guestPortRange: [90, 80]}]",
       "line 1, column 33: portForwards[0].guestPortRange is 90 to 80; the "
       "first must not be the greater"},
      {"portForwards: [{guestPortRange: [0, 80]}]",
       "line 1, column 34: portForwards[0].guestPortRange[0] is '0'" + port},
      {"portForwards: [{guestPort: 1, guestPortRange: [1, 2]}]",
       rule + "has both guestPort and guestPortRange; leave one"},
      {"portForwards: [{guestPort: 1, hostPort: 1, hostPortRange: [1, 2]}]",
       rule + "has both hostPort and hostPortRange; leave one"},
      {"portForwards: [{guestPortRange: [1, 2], hostPortRange: [1, 3]}]",
       rule + "has not as many host ports as guest ports"},
      {"portForwards: [{guestSocket: /a, guestPort: 1, hostPort: 2}]",
       rule + "has both a guestSocket and a guest port; leave one"},
      {"portForwards: [{guestPort: 1, hostPort: 1, hostSocket: /a}]",
       rule + "has both a hostSocket and a host port; leave one"},
      {"portForwards: [{guestSocket: /a}]",
       rule + "has a guestSocket, which needs a hostSocket or one hostPort"},
      {"portForwards: [{hostSocket: /a}]",
       rule + "has a hostSocket, which needs a guestSocket or one guestPort"},
      {"portForwards: [{guestPort: 1, reverse: true}]",
       rule + "is reverse, which needs guestSocket and hostSocket"},
      {"portForwards: [{guestIP: 1.1.1.1, guestIPMustBeZero: true}]",
       rule + "has guestIPMustBeZero, which needs guestIP to be 0.0.0.0"},
      {"portForwards: [{guestPort: 1, hostIP: localhost}]",
       "line 1, column 39: portForwards[0].hostIP is 'localhost'; it must be "
       "an IP address"},
      {"portForwards: [{guestPort: 1, proto: sctp}]",
       "line 1, column 38: portForwards[0].proto is 'sctp'; it must be one of "
       "tcp, udp, any"},
      {"portForwards: [{guestSocket: a, hostPort: 1}]",
       "line 1, column 30: portForwards[0].guestSocket is 'a'; it must be an "
       "absolute path in the guest"},
      {"portForwards: [{guestPort: 1, hostSocket: '{{.Dirr}}/a'}]",
       "line 1, column 43: portForwards[0].hostSocket has the template "
       "'{{.Dirr}}', which is not known here; known are Name, Hostname, User, "
       "Home, UID, Dir, Instance, TempDir, GlobalTempDir, Param.KEY; for the "
       "braces themselves write {{\"{{\"}}"},
      {"portForwards: [{port: 80}]",
       "line 1, column 17: unknown key 'portForwards[0].port'; did you mean "
       "'portForwards[0].proto'? Known keys of portForwards[0]: guestIP, "
       "guestIPMustBeZero, guestPort, guestPortRange, guestSocket, hostIP, "
       "hostPort, hostPortRange, hostSocket, ignore, proto, reverse, static"},
  });
}

TEST(VocabularyTest, Provisioning) {
  using Mode = ProvisionStep::Mode;
  ExpectGood({
      {"provision:\n- script: |\n    #!/bin/sh\n    true\n"
       "- mode: user\n  script: 'id'\n- mode: boot\n  script: 'x'\n"
       "- mode: dependency\n  skipDefaultDependencyResolution: true\n"
       "  script: y\n",
       {"provision"},
       [](const Spec& s) {
         return s.provision.size() == 4 &&
                s.provision[0].mode == Mode::kSystem &&
                s.provision[0].script == "#!/bin/sh\ntrue\n" &&
                s.provision[1].mode == Mode::kUser &&
                s.provision[2].mode == Mode::kBoot &&
                s.provision[3].mode == Mode::kDependency;
       }},
      {"provision:\n- mode: data\n  path: /etc/a.conf\n  content: |\n    x\n"
       "- mode: data\n  path: \"{{.Home}}/.a\"\n  owner: \"{{.User}}\"\n"
       "  permissions: 600\n  overwrite: false\n",
       {"provision"},
       [](const Spec& s) {
         const auto& p = s.provision;
         return p[0].mode == Mode::kData && p[0].content == "x\n" &&
                p[0].owner == "root:root" && p[0].permissions == "644" &&
                p[0].overwrite && p[1].owner == "{{.User}}" &&
                p[1].permissions == "600" && !p[1].overwrite;
       }},
      // No template of Lima's, and what stands for braces.
      {"provision: [{script: \"docker ps --format '{{json .}}' "
       "{{\\\"{{\\\"}}.Names{{`}}`}} {{/* note */}} {{ .Name }} {{ nothing\"}]",
       {"provision"},
       [](const Spec&) { return true; }},
      {"probes:\n- script: |\n    #!/bin/bash\n    true\n"
       "- mode: readiness\n  description: vim to be there\n"
       "  script: \"#!/bin/sh\\nvim\"\n  hint: |\n    See {{.Home}}\n\n",
       {"probes"},
       [](const Spec& s) {
         return s.probes[0].description == "user probe 1/2" &&
                s.probes[1].description == "vim to be there" &&
                s.probes[1].hint == "See {{.Home}}";
       }},
      {"param: {Key: value, other: false}\n"
       "provision: [{script: 'echo {{.Param.Key}} {{- .Param.other -}} x'}]\n",
       {"param", "provision"},
       [](const Spec& s) { return s.param.at("other") == "false"; }},
      {"env:\n  KEY: value\n  EMPTY:\n  _x1: \"1\"\n",
       {"env"},
       [](const Spec& s) {
         return s.env.size() == 3 && s.env.at("EMPTY").empty();
       }},
      {"propagateProxyEnv: false\nupgradePackages: true\n"
       "timezone: America/Argentina/Buenos_Aires\n",
       {"propagateProxyEnv", "timezone", "upgradePackages"},
       [](const Spec& s) {
         return !s.propagate_proxy_env && s.upgrade_packages &&
                s.timezone == "America/Argentina/Buenos_Aires";
       }},
      {"timezone: ''", {}, [](const Spec&) { return true; }},
      {"caCerts:\n  removeDefaults: true\n  files: []\n  certs:\n  - |\n"
       "    -----BEGIN CERTIFICATE-----\n    AA==\n"
       "    -----END CERTIFICATE-----\n",
       {"caCerts"},
       [](const Spec& s) {
         return s.remove_default_ca_certs && s.ca_certs.size() == 1;
       }},
      {"dns: [1.1.1.1, '2606:4700::1111']\n"
       "hostResolver:\n  enabled: false\n  ipv6: true\n  hosts:\n"
       "    guest.name: 127.1.1.1\n    host.docker.internal: "
       "host.lima.internal\n",
       {"dns", "hostResolver.hosts"},
       [](const Spec& s) {
         return s.dns.size() == 2 &&
                s.hosts.at("host.docker.internal") == "host.lima.internal";
       }},
      {"ssh: {forwardAgent: true, forwardX11: true, forwardX11Trusted: true, "
       "address: 127.0.0.1, overVsock: false}",
       {"ssh.forwardAgent", "ssh.forwardX11", "ssh.forwardX11Trusted"},
       [](const Spec& s) {
         return s.forward_agent && s.forward_x11 && s.forward_x11_trusted;
       }},
      {"user: {home: \"/home/{{.User}}.guest\"}",
       {"user.home"},
       [](const Spec& s) { return s.home == "/home/{{.User}}.guest"; }},
  });
  const std::string known =
      "known are Name, Hostname, User, Home, UID, Param.KEY; for the braces "
      "themselves write {{\"{{\"}}";
  ExpectBad({
      {"provision: [{mode: system}]",
       "line 1, column 13: provision[0] has no script; add one"},
      {"provision: [{mode: root, script: x}]",
       "line 1, column 20: provision[0].mode is 'root'; it must be one of "
       "system, user, boot, dependency, data"},
      {"provision: [{mode: ansible, playbook: p.yaml}]",
       "line 1, column 20: provision[0].mode is 'ansible', which sbxfs has "
       "not; run ansible-playbook in a system script"},
      {"provision: [{mode: yq, path: /a}]",
       "line 1, column 20: provision[0].mode is 'yq', which sbxfs has not; "
       "edit the file in a script"},
      {"provision: [{file: a.sh}]",
       "line 1, column 20: provision[0].file names a file, which sbxfs does "
       "not read; put its text under script"},
      {"provision: [{script: ''}]",
       "line 1, column 22: provision[0].script is the text \"\"; it must be a "
       "script"},
      {"provision: [{mode: data, content: x}]",
       "line 1, column 13: provision[0] has mode data, but no path; add one"},
      {"provision: [{mode: data, path: /a, script: x}]",
       "line 1, column 13: provision[0] has mode data and a script; put the "
       "text under content"},
      {"provision: [{script: x, owner: root}]",
       "line 1, column 13: provision[0] has mode system, but content, "
       "overwrite, owner, path and permissions are of mode data; set the "
       "mode, or remove them"},
      {"provision: [{mode: data, path: /a, permissions: rwx}]",
       "line 1, column 49: provision[0].permissions is 'rwx'; it must be a "
       "mode in octal digits, as in '644'"},
      {"provision: [{script: x, skipDefaultDependencyResolution: true}]",
       "line 1, column 13: provision[0] has mode system, but "
       "skipDefaultDependencyResolution is of mode dependency; remove it"},
      {"provision:\n- script: |\n    echo {{.Nmae}}\n",
       "line 2, column 11: provision[0].script has the template "
       "'{{.Nmae}}', which is not known here; " +
           known},
      {"provision: [{script: '{{if .Name}}x{{end}}'}]",
       "line 1, column 22: provision[0].script has the template "
       "'{{if .Name}}', which is more than sbxfs expands; for the braces "
       "themselves write {{\"{{\"}}"},
      {"provision: [{script: '{{.Param.x}}'}]",
       "line 1, column 22: provision[0].script has the template "
       "'{{.Param.x}}', but param has no 'x'; there are none"},
      {"param: {a: '1', b: '2'}\nprobes: [{script: '#!x {{.Param.c}}'}]",
       "line 2, column 19: probes[0].script has the template "
       "'{{.Param.c}}', but param has no 'c'; there are a, b"},
      {"probes: [{script: 'true'}]",
       "line 1, column 19: probes[0].script does not begin with '#!'; add a "
       "line such as '#!/bin/bash'"},
      {"probes: [{description: x}]",
       "line 1, column 10: probes[0] has no script; add one"},
      {"probes: [{mode: liveness, script: '#!x'}]",
       "line 1, column 17: probes[0].mode is 'liveness'; it must be one of "
       "readiness"},
      {"env: {A B: c}",
       "line 1, column 7: 'A B' in env is not good; it must be one of names "
       "of letters, digits and _"},
      {"env: {A: [b]}",
       "line 1, column 10: env.A is a list; it must be one line of text"},
      {"env: {A: \"b\\nc\"}",
       "line 1, column 10: env.A is the text \"b c\"; it must be one line of "
       "text"},
      {"env: [A=b]",
       "line 1, column 6: env is a list; it must be a map of names of "
       "letters, digits and _"},
      {"param: {_a: b}",
       "line 1, column 9: '_a' in param is not good; it must be one of names "
       "of letters, digits and _, beginning with a letter"},
      {"caCerts: {certs: [x]}",
       "line 1, column 19: caCerts.certs[0] is 'x'; it must be a certificate "
       "in PEM"},
      {"caCerts: {files: [a.crt]}",
       "line 1, column 19: caCerts.files[0] names a file, which sbxfs does "
       "not read; put its text under caCerts.certs"},
      {"dns: [localhost]",
       "line 1, column 7: dns[0] is 'localhost'; it must be an IP address"},
      {"hostResolver: {hosts: {a: 'b c'}}",
       "line 1, column 27: hostResolver.hosts.a is the text \"b c\"; it must "
       "be an IP address or a host's name"},
      {"timezone: /etc/localtime",
       "line 1, column 11: timezone is '/etc/localtime'; it must be a zone's "
       "name, as in 'Europe/Lisbon'"},
      {"message: '{{.Nmae}}'",
       "line 1, column 10: message has the template '{{.Nmae}}', which is not "
       "known here; known are Name, Hostname, User, Home, UID, Dir, Instance, "
       "HostOS, HostArch, SSHLocalPort, Param.KEY; for the braces themselves "
       "write {{\"{{\"}}"},
  });
}

// Of the kind that Lima's QEMU driver runs: Docker in a sandbox.
constexpr char kDocker[] = R"(minimumLimaVersion: 1.1.0
vmType: qemu
images:
- location: "https://example.org/ubuntu-24.04-amd64.img"
  arch: "x86_64"
  digest: "sha256:b1b653186a01eb75bacb6bf15eac494d888f61f7adc3084e3d94fd117ddc82f5"
- location: "https://example.org/ubuntu-24.04-s390x.img"
  arch: "s390x"
cpus: null
memory: "4GiB"
disk: "100GiB"
mounts:
- location: "~"
  mountPoint: null
  writable: null
  9p:
    cache: null
- location: "/tmp/lima"
  writable: true
mountType: null
containerd:
  system: false
  user: false
provision:
- mode: system
  script: |
    #!/bin/bash
    set -eux -o pipefail
    command -v docker >/dev/null 2>&1 && exit 0
    export DEBIAN_FRONTEND=noninteractive
    curl -fsSL https://get.docker.com | sh
    usermod -aG docker "{{.User}}"
- mode: user
  script: |
    #!/bin/bash
    mkdir -p "{{.Home}}/.docker"
probes:
- script: |
    #!/bin/bash
    set -eux -o pipefail
    if ! timeout 30s bash -c "until command -v docker; do sleep 3; done"; then
      echo >&2 "docker is not installed yet"
      exit 1
    fi
  hint: See "/var/log/cloud-init-output.log" in the guest
hostResolver:
  hosts:
    host.docker.internal: host.lima.internal
portForwards:
- guestSocket: "/run/user/{{.UID}}/docker.sock"
  hostSocket: "{{.Dir}}/sock/docker.sock"
- guestPortRange: [1, 65535]
  ignore: true
message: |
  docker context create lima-{{.Name}} --docker "host=unix://{{.Dir}}/sock/docker.sock"
ssh:
  localPort: 0
  loadDotSSHPubKeys: false
  forwardAgent: true
rosetta:
  enabled: true
)";

TEST(VocabularyTest, ALimaYamlIsTakenAsItIs) {
  Spec spec = ParseSpec(
      {{"built-in", BuiltInLayer("alice")}, {"config.yaml", kDocker}});
  Expand({.name = "box",
          .hostname = "lima-box",
          .dir = "/run/user/7/sbxfs/U",
          .uid = "1000",
          .home = "/home/alice",
          .host_user = "bob",
          .host_uid = "7",
          .host_home = "/home/bob",
          .host_arch = "amd64",
          .ssh_port = "2222"},
         spec);
  EXPECT_EQ(spec.cpus, 2U);
  EXPECT_EQ(spec.disk, 100ULL << 30);
  ASSERT_EQ(spec.mounts.size(), 2U);
  EXPECT_EQ(spec.mounts[0].location, "/home/bob");
  EXPECT_EQ(spec.mounts[0].mount_point, "/home/bob");
  ASSERT_EQ(spec.provision.size(), 2U);
  EXPECT_TRUE(spec.provision[0].script.ends_with("docker \"alice\"\n"));
  EXPECT_EQ(spec.provision[1].script,
            "#!/bin/bash\nmkdir -p \"/home/alice/.docker\"\n");
  EXPECT_EQ(spec.port_forwards[0].guest_socket, "/run/user/1000/docker.sock");
  EXPECT_EQ(spec.port_forwards[0].host_socket,
            "/run/user/7/sbxfs/U/sock/docker.sock");
  EXPECT_EQ(spec.message,
            "docker context create lima-box --docker "
            "\"host=unix:///run/user/7/sbxfs/U/sock/docker.sock\"");
}

TEST(VocabularyTest, Expand) {
  Spec spec = ParseText(
      "param: {P: 'a b'}\nuser: {name: eve, home: '/h/{{.User}}'}\n"
      "mounts:\n- location: ~/src\n- location: '{{.Home}}/x'\n"
      "  mountPoint: '{{.Home}}/x'\n- location: '{{.Dir}}/{{.Param.P}}'\n"
      "provision:\n- script: \"{{.Hostname}} {{- .UID -}} ! {{json .}} "
      "{{\\\"{{\\\"}}.x}} {{/* c */}}.\"\n"
      "- mode: data\n  path: '{{.Home}}/a'\n  content: '{{.Param.P}}'\n"
      "  owner: '{{.User}}'\n"
      "probes: [{script: '#!{{.Name}}', hint: '{{ .Name }}'}]\n"
      "portForwards:\n- guestPort: 1\n  hostSocket: web\n"
      "- guestPort: 2\n  hostSocket: '{{.TempDir}}/{{.UID}}{{.User}}'\n"
      "message: '{{.HostOS}} {{.HostArch}} {{.SSHLocalPort}} {{if .x}}'\n");
  Expand({.name = "box",
          .hostname = "lima-box",
          .dir = "/run/d",
          .uid = "1000",
          .home = "/home/unused",
          .host_user = "bob",
          .host_uid = "7",
          .host_home = "/home/bob",
          .host_arch = "amd64",
          .ssh_port = "2222"},
         spec);
  EXPECT_EQ(spec.home, "/h/eve");
  EXPECT_EQ(spec.mounts[0].mount_point, "/home/bob/src");
  EXPECT_EQ(spec.mounts[1].location, "/home/bob/x");
  EXPECT_EQ(spec.mounts[1].mount_point, "/h/eve/x");
  EXPECT_EQ(spec.mounts[2].location, "/run/d/a b");
  EXPECT_EQ(spec.provision[0].script, "lima-box1000! {{json .}} {{.x}} .");
  EXPECT_EQ(spec.provision[1].path, "/h/eve/a");
  EXPECT_EQ(spec.provision[1].content, "a b");
  EXPECT_EQ(spec.provision[1].owner, "eve");
  EXPECT_EQ(spec.probes[0].script, "#!box");
  EXPECT_EQ(spec.probes[0].hint, "box");
  EXPECT_EQ(spec.port_forwards[0].host_socket, "/run/d/sock/web");
  EXPECT_EQ(spec.port_forwards[1].host_socket, "/tmp/7bob");
  EXPECT_EQ(spec.message, "linux amd64 2222 {{if .x}}");
}

TEST(VocabularyTest, EveryIdleKeyIsKnown) {
  EXPECT_EQ(WhyIdle("rosetta.enabled"), "it is for macOS");
  EXPECT_EQ(WhyIdle("networks[].vzNAT"), "it is for macOS");
  EXPECT_EQ(WhyIdle("vmType"), "a sandbox is a QEMU machine");
  EXPECT_EQ(WhyIdle("mounts[].9p.cache"), "every mount is by reverse sshfs");
  EXPECT_EQ(WhyIdle("vmTypes"), "");
  EXPECT_EQ(WhyIdle("hostResolver.hosts"), "");
  EXPECT_EQ(WhyIdle("cpus"), "");
}

}  // namespace
}  // namespace sbxfs
