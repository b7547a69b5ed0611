#include "tests/fuzz/config_words.h"

#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

// A blank line is between them.
constexpr std::string_view kLines = R"(
cpus: 4

maxCPUs: 8

memory: 2GiB

maxMemory: 4GiB

disk: 20GiB

arch: x86_64

arch: aarch64

arch: riscv64

arch: armv7l

cpuType:
  x86_64: Nehalem,+aes,-vmx

cpuType:
  aarch64: max

vmOpts:
  qemu:
    cpuType:
      x86_64: host

images:
- location: debian-12
  arch: x86_64

- location: https://example.com/a.qcow2

  digest: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

kernel:
  location: /boot/vmlinuz
  cmdline: quiet

initrd:
  location: /boot/initrd

firmware:
  legacyBIOS: true

ssh:
  localPort: 2222

ssh:
  forwardAgent: true
  loadDotSSHPubKeys: true
  ca: true

user:
  name: me
  uid: 1001
  home: /home/{{.User}}.guest

user:
  comment: "A person"
  shell: /bin/sh

mountType: 9p

mountType: virtiofs

mountType: reverse-sshfs

mountTypesUnsupported: [9p]

mounts:
- location: /srv/src
  mountPoint: /src
  writable: true

- location: "~/src"
  name: code

- location: "{{.Home}}/x"
  9p:
    securityModel: mapped-xattr

  virtiofs:
    queueSize: 256

  sshfs:
    followSymlinks: true

network: none

egress: [api.example.com:443, "*.debian.org"]

networks:
- lima: shared
  interface: lima0

- lima: host
  macAddress: 52:55:55:00:00:01
  metric: 50

additionalDisks:
- data

- name: more
  format: true
  fsType: xfs
  fsArgs: [-L, more]

portForwards:
- guestPort: 8080
  hostPort: 80

- guestPortRange: [4000, 4010]
  hostPortRange: [5000, 5010]

- guestPort: 53
  proto: udp
  hostIP: 0.0.0.0

- guestPort: 9
  hostIP: "@hv"

- guestIP: "::1"
  guestPort: 22
  hostPort: 2022

- guestSocket: /run/a.sock
  hostSocket: a.sock

- guestSocket: /run/b.sock
  hostSocket: /tmp/b.sock
  reverse: true

- guestPort: 7
  ignore: true

provision:
- mode: system
  script: |
    #!/bin/sh
    echo {{.Name}}

- mode: data
  path: /etc/motd
  content: "{{.Param.who}}"

- mode: boot
  script: true

- mode: dependency
  script: |
    #!/bin/sh
  skipDefaultDependencyResolution: true

probes:
- script: |
    #!/bin/sh
    true
  description: up
  hint: wait

env:
  A: "1"
  B_C: two

param:
  who: you

propagateProxyEnv: false

dns: [192.0.2.1, "2001:db8::1"]

hostResolver:
  hosts:
    a.internal: 192.0.2.7
    b: a.internal

caCerts:
  removeDefaults: true
  certs:
  - |
    -----BEGIN CERTIFICATE-----
    MA==
    -----END CERTIFICATE-----

timezone: Europe/Lisbon

upgradePackages: true

message: |
  Hello {{.Name}}
  of {{.User}}

description: |
  Two
  lines <&> "'

plain: true

autostart: true

idle: 1h30m

snapshotMemory: true

warm: false

tpm: true

nestedVirtualization: true

video:
  display: vnc
  vnc:
    display: 127.0.0.1:0

base: template:_images/debian-12

base:
- one
- url: template:two

vmType: qemu

minimumLimaVersion: 1.0.0

rosetta:
  enabled: true

containerd:
  system: false

copyToHost:
- guest: /a
  host: /b

os: Linux

# a comment

---

...
)";

}  // namespace

const std::vector<std::string_view>& ConfigLines() {
  static const std::vector<std::string_view> lines = Paragraphs(kLines);
  return lines;
}

const std::vector<std::string_view>& ConfigValues() {
  static const std::vector<std::string_view> values = {
      "",
      "~",
      "null",
      "true",
      "false",
      "0",
      "1",
      "-1",
      "255",
      "65535",
      "65536",
      "4294967295",
      "18446744073709551616",
      "1e3",
      "0x10",
      "010",
      ".inf",
      "512MiB",
      "1.5G",
      "16EiB",
      "9999999999PiB",
      "1d2h3m4s",
      "99999999999999d",
      "\"\"",
      "\"\\0\"",
      "\"\\x1b[31m\"",
      "\"\\ud800\"",
      "\"a\\nb\"",
      "'it''s'",
      "\"a \\\" b\"",
      "[]",
      "{}",
      "[[]]",
      "[1, 2]",
      "{a: 1, b: [x, {y: z}]}",
      "|",
      "|-\n  text",
      ">+\n  folded\n\n  text\n",
      "|2-",
      "&a x",
      "*a",
      "!!str x",
      "? x",
      "<<: *a",
      "{{.Name}}",
      "\"{{.Param.who}}\"",
      "\"{{- .Home -}}\"",
      "\"{{\\\"{{\\\"}}\"",
      "\"{{.Nmae}}\"",
      "\"{{json .}}\"",
      "{{",
      "~/x",
      "/",
      "/etc",
      "/a/../b",
      "/a b/<c>&'\"",
      "../../etc/passwd",
      "a,b=c,id=x",
      "-oProxyCommand=x",
      "$(id)",
      "'; id #'",
      "0.0.0.0",
      "::",
      "::ffff:1.2.3.4",
      "[::1]:22",
      "*.example.com:*",
      "52:54:00:ff:FF:00",
      "53:54:00:00:00:01",
      "00:00:00:00:00:00",
      "aa",
      "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
      "\xff",
      "\t",
      "x # y",
      "\"x\"y",
      "a: b",
      "- a",
      "%TAG",
      "@x",
      "`x`",
  };
  return values;
}

}  // namespace sbxfs::fuzz
