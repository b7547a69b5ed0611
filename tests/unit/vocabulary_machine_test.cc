// Lima's vocabulary, key by key: the machine, its mounts and its ports.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backend/spec/spec.h"
#include "tests/unit/config_texts.h"

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
      {"egress: ['example.com:443', '*.debian.org', '[fd00::1]:22']\n",
       {"egress"},
       [](const Spec& s) {
         return s.egress == std::vector<std::string>{"example.com:443",
                                                     "*.debian.org",
                                                     "[fd00::1]:22"};
       }},
      {"network: none\n",
       {"network"},
       [](const Spec& s) { return s.isolated; }},
      {"network: user\n", {}, [](const Spec& s) { return !s.isolated; }},
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
      {"egress: example.com",
       "line 1, column 9: egress is 'example.com'; it must be a list of hosts "
       "and ports, as in '- example.com:443'"},
      {"egress: ['*']",
       "line 1, column 10: egress[0] is the text \"*\"; it must be a host and "
       "port, as in "
       "'example.com:443', '*.debian.org' (80 and 443) or '10.0.0.7:*'"},
      {"network: host",
       "line 1, column 10: network is 'host'; it must be one of user, none"},
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

}  // namespace
}  // namespace sbxfs
