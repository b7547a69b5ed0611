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

// Lima's vocabulary, key by key: what is done in the guest, and whole texts.

namespace sbxfs {
namespace {

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
      {"ssh: {ca: true}", {"ssh.ca"}, [](const Spec& s) { return s.ssh_ca; }},
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
  EXPECT_EQ(spec.provision[0].script,
            "lima-box@sbxfs-uid:1000@! {{json .}} {{.x}} .");
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
  EXPECT_EQ(WhyIdle("mounts[].sshfs.sftpDriver"),
            "sbxfs serves the files itself");
  EXPECT_EQ(WhyIdle("vmTypes"), "");
  EXPECT_EQ(WhyIdle("hostResolver.hosts"), "");
  EXPECT_EQ(WhyIdle("cpus"), "");
}

}  // namespace
}  // namespace sbxfs
