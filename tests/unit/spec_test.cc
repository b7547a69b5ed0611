#include "backend/spec/spec.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <regex>
#include <string>

#include "backend/spec/yaml.h"
#include "backend/util/error.h"
#include "tests/unit/config_texts.h"

namespace sbxfs {
namespace {

using namespace std::string_literals;  // NOLINT: texts with NUL

constexpr uint64_t kMiB = 1ULL << 20;
constexpr uint64_t kGiB = 1ULL << 30;
std::string Refusal(const std::string& text) {
  try {
    (void)ParseText(text);
    return "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL) << text;
    return error.Sentence();
  }
}

TEST(SpecTest, GoodTexts) {
  const std::string digest256(64, 'a');
  const std::string digest512(128, 'B');
  const std::vector<Good> cases = {
      {"", {}, [](const Spec&) { return true; }},
      {"# nothing\n", {}, [](const Spec&) { return true; }},
      {"---\n", {}, [](const Spec&) { return true; }},
      {"~", {}, [](const Spec&) { return true; }},
      {"{}", {}, [](const Spec&) { return true; }},
      {"cpus:\nmemory: null\ndisk: ~\n", {}, [](const Spec&) { return true; }},
      {"ssh:\nuser: {}\n", {}, [](const Spec&) { return true; }},
      {"cpus: 4", {"cpus"}, [](const Spec& s) { return s.cpus == 4; }},
      {"maxCPUs: 8",
       {"maxCPUs"},
       [](const Spec& s) { return s.max_cpus == 8; }},
      {"snapshotMemory: true",
       {"snapshotMemory"},
       [](const Spec& s) { return s.snapshot_memory == true; }},
      {"maxMemory: 8GiB",
       {"maxMemory"},
       [](const Spec& s) { return s.max_memory == 8 * kGiB; }},
      {"cpus: 255\n", {"cpus"}, [](const Spec& s) { return s.cpus == 255; }},
      {"\xef\xbb\xbf"
       "cpus: 3\n",
       {"cpus"},
       [](const Spec& s) { return s.cpus == 3; }},
      {"%YAML 1.2\n---\ncpus: 3\n...\n",
       {"cpus"},
       [](const Spec& s) { return s.cpus == 3; }},
      {"cpus: 3\r\nmemory: 2GiB\r\n",
       {"cpus", "memory"},
       [](const Spec& s) { return s.cpus == 3 && s.memory == 2 * kGiB; }},
      {"{cpus: 3, disk: 5GiB}",
       {"cpus", "disk"},
       [](const Spec& s) { return s.cpus == 3 && s.disk == 5 * kGiB; }},
      {"{description: a 'b and it's, cpus: 3}",
       {"cpus", "description"},
       [](const Spec& s) {
         return s.description == "a 'b and it's" && s.cpus == 3;
       }},
      {"{ # ] 'a\n  description: '}', # b\n  cpus: 3\n}",
       {"cpus", "description"},
       [](const Spec& s) { return s.description == "}" && s.cpus == 3; }},
      {"\"cpus\": 3", {"cpus"}, [](const Spec& s) { return s.cpus == 3; }},
      {"cpus:\t3", {"cpus"}, [](const Spec& s) { return s.cpus == 3; }},
      {"memory: 4GiB",
       {"memory"},
       [](const Spec& s) { return s.memory == 4 * kGiB; }},
      {"memory: \"512MiB\"",
       {"memory"},
       [](const Spec& s) { return s.memory == 512 * kMiB; }},
      {"memory: 1073741824",
       {"memory"},
       [](const Spec& s) { return s.memory == kGiB; }},
      {"memory: 1.5G",
       {"memory"},
       [](const Spec& s) { return s.memory == 1536 * kMiB; }},
      {"memory: 500MB",
       {"memory"},
       [](const Spec& s) { return s.memory == 500 * kMiB; }},
      {"memory: 16MiB",
       {"memory"},
       [](const Spec& s) { return s.memory == 16 * kMiB; }},
      {"disk: 100GiB",
       {"disk"},
       [](const Spec& s) { return s.disk == 100 * kGiB; }},
      {"disk: 64TiB",
       {"disk"},
       [](const Spec& s) { return s.disk == 65536 * kGiB; }},
      {"disk: 1MiB", {"disk"}, [](const Spec& s) { return s.disk == kMiB; }},
      {"arch: aarch64",
       {"arch"},
       [](const Spec& s) { return s.arch == "aarch64"; }},
      {"arch: default", {}, [](const Spec& s) { return s.arch.empty(); }},
      {"autostart: true",
       {"autostart"},
       [](const Spec& s) { return s.autostart; }},
      {"autostart: False", {}, [](const Spec& s) { return !s.autostart; }},
      {"description: a box\n",
       {"description"},
       [](const Spec& s) { return s.description == "a box"; }},
      {"description: 12\n",
       {"description"},
       [](const Spec& s) { return s.description == "12"; }},
      {"description: |\n  two\n  lines\n\n",
       {"description"},
       [](const Spec& s) { return s.description == "two\nlines"; }},
      {"description: \"caf\xc3\xa9 \\u20ac\"",
       {"description"},
       [](const Spec& s) {
         return s.description == "caf\xc3\xa9 \xe2\x82\xac";
       }},
      {"description: ''",
       {},
       [](const Spec& s) { return s.description == ""; }},
      {"user:\n  name: alice\n  uid: 1234\n  home: /home/alice.guest\n"
       "  shell: /bin/zsh\n  comment: Alice A.\n",
       {"user.comment", "user.home", "user.name", "user.shell", "user.uid"},
       [](const Spec& s) {
         return s.user == "alice" && s.uid == 1234U &&
                s.home == "/home/alice.guest" && s.shell == "/bin/zsh" &&
                s.comment == "Alice A.";
       }},
      {"user: {name: _a-1}",
       {"user.name"},
       [](const Spec& s) { return s.user == "_a-1"; }},
      {"ssh: {localPort: 2222}",
       {"ssh.localPort"},
       [](const Spec& s) { return s.ssh_port == 2222; }},
      {"ssh:\n  localPort: 0\n",
       {},
       [](const Spec& s) { return s.ssh_port == 0; }},
      {"ssh:\n  loadDotSSHPubKeys: true\n",
       {"ssh.loadDotSSHPubKeys"},
       [](const Spec& s) { return s.load_dot_ssh_pub_keys; }},
      {"firmware:\n  legacyBIOS: true",
       {"firmware.legacyBIOS"},
       [](const Spec& s) { return s.legacy_bios == true; }},
      {"firmware: {legacyBIOS: false}",
       {"firmware.legacyBIOS"},
       [](const Spec& s) { return s.legacy_bios == false; }},
      {"arch: aarch64\ncpuType:\n  x86_64: max\n  aarch64: cortex-a72\n",
       {"arch", "cpuType"},
       [](const Spec& s) {
         return s.cpu_type == "cortex-a72" && s.cpu_types.at("x86_64") == "max";
       }},
      {"arch: x86_64\ncpuType: {x86_64: 'qemu64,+ssse3,-vmx,avx=off'}",
       {"arch", "cpuType"},
       [](const Spec& s) {
         return s.cpu_type == "qemu64,+ssse3,-vmx,avx=off";
       }},
      {"images:\n- location: debian-12\n",
       {"images"},
       [](const Spec& s) {
         return s.images.size() == 1 && s.images[0].location == "debian-12" &&
                s.images[0].arch.empty() && s.images[0].digest.empty();
       }},
      {"images:\n"
       "  - location: /srv/a b.qcow2\n"
       "    arch: x86_64\n"
       "    digest: sha256:" +
           digest256 +
           "\n"
           "  - location: https://example.org/a.qcow2?x=1#y\n"
           "    arch: aarch64\n"
           "    digest: \"sha512:" +
           digest512 +
           "\"\n"
           "  - location: http://127.0.0.1:8000/a.img\n"
           "  - location: http://localhost/a.img\n",
       {"images"},
       [&](const Spec& s) {
         return s.images.size() == 4 &&
                s.images[0].location == "/srv/a b.qcow2" &&
                s.images[0].digest == "sha256:" + digest256 &&
                s.images[1].arch == "aarch64" &&
                s.images[1].digest == "sha512:" + digest512;
       }},
  };
  ExpectGood(cases);
}

std::string Times(int count, std::string_view part) {
  std::string text;
  for (int i = 0; i < count; ++i) text += part;
  return text;
}

TEST(SpecTest, Keys) {
  ExpectBad({
      {"# c\n\ncpuz: 2\n",
       "line 3, column 1: unknown key 'cpuz'; did you mean 'cpus'?"},
      {"Memory: 2GiB",
       "line 1, column 1: unknown key 'Memory'; did you mean 'memory'?"},
      {"cpus: 2\nxyzzy: 1",
       "line 2, column 1: unknown key 'xyzzy'; sbxfs(5) has them all"},
      {"mountz: []",
       "line 1, column 1: unknown key 'mountz'; did you mean 'mounts'?"},
      {"? '" + std::string(50, 'k') + "'\n: 1",
       fmt::format("line 1, column 3: unknown key '{}…'; sbxfs(5) has them all",
                   std::string(40, 'k'))},
      {"\"a\\x1bb\\n\": 1",
       "line 1, column 1: unknown key 'a?b '; sbxfs(5) has them all"},
      {"useHostResolver: true",
       "line 1, column 1: unknown key 'useHostResolver'; did you mean "
       "'hostResolver'?"},
      {"ssh:\n  localport: 22\n",
       "line 2, column 3: unknown key 'ssh.localport'; did you mean "
       "'ssh.localPort'? Known keys of ssh: address, forwardAgent, "
       "forwardX11, forwardX11Trusted, loadDotSSHPubKeys, localPort, "
       "overVsock"},
      {"user: {login: a}",
       "line 1, column 8: unknown key 'user.login'; known keys of user: "
       "comment, home, name, shell, uid"},
      {"firmware: {bios: true}",
       "line 1, column 12: unknown key 'firmware.bios'; known keys of "
       "firmware: images, legacyBIOS"},
      {"images:\n- location: a\n  sha256: b\n",
       "line 3, column 3: unknown key 'images[0].sha256'; known keys of "
       "images[0]: arch, digest, initrd, kernel, location"},
      {"cpuType: {arm64: a}",
       "line 1, column 11: unknown key 'cpuType.arm64'; did you mean "
       "'cpuType.aarch64'? Known keys of cpuType: x86_64, aarch64, armv7l, "
       "riscv64"},
      {"mounts:\n- location: /srv\n  writeable: true\n",
       "line 3, column 3: unknown key 'mounts[0].writeable'; did you mean "
       "'mounts[0].writable'? Known keys of mounts[0]: 9p, location, "
       "mountPoint, name, sshfs, virtiofs, writable"},
      {"<<: 1", "line 1, column 1: unknown key '<<'; sbxfs(5) has them all"},
      {"cpus: 2\nmemory: 1GiB\ncpus: 2\n",
       "line 3, column 1: duplicate key 'cpus', first on line 1; remove one "
       "of them"},
      {"ssh: {localPort: 1, \"localPort\": 1}",
       "line 1, column 21: duplicate key 'localPort', first on line 1; remove "
       "one of them"},
      {"unknown: {a: 1, a: 2}",
       "line 1, column 17: duplicate key 'a', first on line 1; remove one of "
       "them"},
      {"? [a]\n: 1",
       "line 1, column 3: a key must be a word; check the brackets, colons and "
       "quotes"},
      {": 1",
       "line 1, column 1: a key must be a word; check the brackets, colons and "
       "quotes"},
  });
}

TEST(SpecTest, Values) {
  const std::string cpus = "; it must be a whole number from 1 to 255";
  const std::string memory =
      "; it must be a size from 16MiB to 16TiB, as in '4GiB'";
  const std::string disk =
      "; it must be a size from 1MiB to 64TiB, as in '4GiB'";
  const std::string location =
      "; it must be a name in .host/images, an absolute path or an https URL";
  const std::string digest =
      "; it must be 'sha256:' and 64, or 'sha512:' and 128 hexadecimal digits";
  const std::string login =
      "; it must be a login: a small letter or _, then small letters, digits, "
      "- and _, 32 at most";
  const std::string path =
      "; it must be an absolute path in the guest, of letters, digits and "
      "._-+@/";
  const std::string arch =
      "; it must be one of x86_64, aarch64, armv7l, riscv64, or default";
  const std::string port =
      "; it must be a port from 1 to 65535, or 0 for one that is free";
  const std::string cpu_type =
      "; it must be a CPU type as QEMU names it, as in 'max' or 'Nehalem,+aes'";
  ExpectBad({
      {"cpus: many", "line 1, column 7: cpus is 'many'" + cpus},
      {"cpus: \"4\"", "line 1, column 7: cpus is the text \"4\"" + cpus},
      {"cpus: 0", "line 1, column 7: cpus is '0'" + cpus},
      {"cpus: 256", "line 1, column 7: cpus is '256'" + cpus},
      {"cpus: -1", "line 1, column 7: cpus is '-1'" + cpus},
      {"cpus: 2.5", "line 1, column 7: cpus is '2.5'" + cpus},
      {"cpus: 010", "line 1, column 7: cpus is '010'" + cpus},
      {"cpus: 0x4", "line 1, column 7: cpus is '0x4'" + cpus},
      {"cpus: 99999999999999999999",
       "line 1, column 7: cpus is '99999999999999999999'" + cpus},
      {"cpus: [2]", "line 1, column 7: cpus is a list" + cpus},
      {"cpus:\n  a: 2", "line 2, column 3: cpus is a map" + cpus},
      {"memory: lots", "line 1, column 9: memory is 'lots'" + memory},
      {"memory: 4", "line 1, column 9: memory is '4'" + memory},
      {"memory: 15MiB", "line 1, column 9: memory is '15MiB'" + memory},
      {"memory: 17TiB", "line 1, column 9: memory is '17TiB'" + memory},
      {"memory: -1GiB", "line 1, column 9: memory is '-1GiB'" + memory},
      {"memory: 4 GiB of it",
       "line 1, column 9: memory is '4 GiB of it'" + memory},
      {"memory: ''", "line 1, column 9: memory is the text \"\"" + memory},
      {"disk: []", "line 1, column 7: disk is a list" + disk},
      {"disk: 65TiB", "line 1, column 7: disk is '65TiB'" + disk},
      {"disk: 0", "line 1, column 7: disk is '0'" + disk},
      {"arch: arm64", "line 1, column 7: arch is 'arm64'" + arch},
      {"arch: [x86_64]", "line 1, column 7: arch is a list" + arch},
      {"autostart: yes",
       "line 1, column 12: autostart is 'yes'; it must be true or false"},
      {"autostart: \"true\"",
       "line 1, column 12: autostart is the text \"true\"; it must be true or "
       "false"},
      {"autostart: 1",
       "line 1, column 12: autostart is '1'; it must be true or false"},
      {"description: {a: b}",
       "line 1, column 14: description is a map; it must be a text"},
      {"description: \"a\\x1b[31mb\"",
       "line 1, column 14: description is the text \"a?[31mb\"; it must be a "
       "text without control characters"},
      {"description: \"a\\0b\"",
       "line 1, column 14: description is the text \"a?b\"; it must be a text "
       "without control characters"},
      {"description: \"a\\rb\"",
       "line 1, column 14: description is the text \"a b\"; it must be a text "
       "without control characters"},
      {"images: debian-12",
       "line 1, column 9: images is 'debian-12'; it must be a list of images, "
       "each with its location, as in '- location: debian-12'"},
      {"images: []",
       "line 1, column 9: images is an empty list; name an image, or remove "
       "the key"},
      {"images: [debian-12]",
       "line 1, column 10: images[0] is 'debian-12'; it must be a map, as in "
       "'location: debian-12'"},
      {"images:\n- location: a\n-\n",
       "line 4, column 1: images[1] is empty; it must be a map with the keys "
       "arch, digest, initrd, kernel, location"},
      {"images:\n- arch: x86_64\n",
       "line 2, column 3: images[0] has no location; add one, as in "
       "'location: debian-12'"},
      {"images: [{location: a}, {location: null}]",
       "line 1, column 25: images[1] has no location; add one, as in "
       "'location: debian-12'"},
      {"images: [{location: ''}]",
       "line 1, column 21: images[0].location is the text \"\"" + location},
      {"images: [{location: a/b}]",
       "line 1, column 21: images[0].location is 'a/b'" + location},
      {"images: [{location: ../b}]",
       "line 1, column 21: images[0].location is '../b'" + location},
      {"images: [{location: ..}]",
       "line 1, column 21: images[0].location is '..'" + location},
      {"images: [{location: ~/a.img}]",
       "line 1, column 21: images[0].location is '~/a.img'" + location},
      {"images: [{location: 'http://example.org/a'}]",
       "line 1, column 21: images[0].location is the text "
       "\"http://example.org/a\"" +
           location},
      {"images: [{location: 'http://localhost.example.org/a'}]",
       "line 1, column 21: images[0].location is the text "
       "\"http://localhost.example.org/a\"" +
           location},
      {"images: [{location: 'https://'}]",
       "line 1, column 21: images[0].location is the text \"https://\"" +
           location},
      {"images: [{location: 'https://a b'}]",
       "line 1, column 21: images[0].location is the text \"https://a b\"" +
           location},
      {"images: [{location: \"/a\\nb\"}]",
       "line 1, column 21: images[0].location is the text \"/a b\"" + location},
      {"images: [{location: a, arch: i386}]",
       "line 1, column 30: images[0].arch is 'i386'; it must be one of "
       "x86_64, aarch64, armv7l, riscv64"},
      {"images: [{location: a, digest: 'md5:00'}]",
       "line 1, column 32: images[0].digest is the text \"md5:00\"" + digest},
      {"images: [{location: a, digest: sha256}]",
       "line 1, column 32: images[0].digest is 'sha256'" + digest},
      {"images: [{location: a, digest: 'sha256:" + std::string(63, 'a') + "'}]",
       "line 1, column 32: images[0].digest is the text \"sha256:" +
           std::string(33, 'a') + "…\"" + digest},
      {"images: [{location: a, digest: 'sha256:" + std::string(64, 'g') + "'}]",
       "line 1, column 32: images[0].digest is the text \"sha256:" +
           std::string(33, 'g') + "…\"" + digest},
      {"user: alice",
       "line 1, column 7: user is 'alice'; it must be a map with the keys "
       "comment, home, name, shell, uid"},
      {"user: {name: Alice}",
       "line 1, column 14: user.name is 'Alice'" + login},
      {"user: {name: 1a}", "line 1, column 14: user.name is '1a'" + login},
      {"user: {name: \"a\\nb\"}",
       "line 1, column 14: user.name is the text \"a b\"" + login},
      {"user: {name: " + std::string(33, 'a') + "}",
       "line 1, column 14: user.name is '" + std::string(33, 'a') + "'" +
           login},
      {"user: {uid: 0}",
       "line 1, column 13: user.uid is '0'; it must be a whole number from 1 "
       "to 2147483647"},
      {"user: {home: home/a}",
       "line 1, column 14: user.home is 'home/a'" + path},
      {"user: {home: \"/home/{{.Home}}\"}",
       "line 1, column 14: user.home is the text \"/home/{{.Home}}\"" + path},
      {"user: {shell: '/bin/a:b'}",
       "line 1, column 15: user.shell is the text \"/bin/a:b\"" + path},
      {"user: {comment: 'a:b'}",
       "line 1, column 17: user.comment is the text \"a:b\"; it must be one "
       "line without ':'"},
      {"ssh: 22",
       "line 1, column 6: ssh is '22'; it must be a map with the keys "
       "address, forwardAgent, forwardX11, forwardX11Trusted, "
       "loadDotSSHPubKeys, localPort, overVsock"},
      {"ssh: {localPort: 65536}",
       "line 1, column 18: ssh.localPort is '65536'" + port},
      {"ssh: {localPort: ssh}",
       "line 1, column 18: ssh.localPort is 'ssh'" + port},
      {"ssh: {loadDotSSHPubKeys: y}",
       "line 1, column 26: ssh.loadDotSSHPubKeys is 'y'; it must be true or "
       "false"},
      {"firmware: {legacyBIOS: 1}",
       "line 1, column 24: firmware.legacyBIOS is '1'; it must be true or "
       "false"},
      {"cpuType: max",
       "line 1, column 10: cpuType is 'max'; it must be a map of CPU types by "
       "architecture"},
      {"cpuType: {x86_64: 'a b'}",
       "line 1, column 19: cpuType.x86_64 is the text \"a b\"" + cpu_type},
      {"cpuType: {x86_64: -host}",
       "line 1, column 19: cpuType.x86_64 is '-host'" + cpu_type},
  });
}

TEST(SpecTest, Texts) {
  const std::string no_yaml = "; check the indentation, colons and quotes";
  const std::string anchors =
      "anchors and aliases (&, *) are not supported; write the value out";
  ExpectBad({
      {"start\n",
       "line 1, column 1: the text is 'start'; it must be keys with their "
       "values, as in 'cpus: 2'"},
      {"- cpus\n",
       "line 1, column 1: the text is a list; it must be keys with their "
       "values, as in 'cpus: 2'"},
      {"cpus: 2\nmemory 4GiB\n",
       fmt::format("line 2, column 1: no ':' behind 'memory 4GiB'; write a "
                   "key, a colon, a space and a value")},
      {"cpus: 2\nautostart\n",
       "line 2, column 1: no ':' behind 'autostart'; write a key, a colon, a "
       "space and a value"},
      {"{cpus}",
       "line 1, column 2: no ':' behind 'cpus'; write a key, a colon, a space "
       "and a value"},
      {"? cpus\n",
       "line 1, column 3: no ':' behind 'cpus'; write a key, a colon, a space "
       "and a value"},
      {"cpus: 2: 3",
       "line 1, column 8: this is no YAML (illegal map value)" + no_yaml},
      {"description: \"a\n",
       "line 1, column 14: a quote that is opened here never closes"},
      {"description: \"a\\\"\n\n",
       "line 1, column 14: a quote that is opened here never closes"},
      {"description: 'it''s\ncpus: 2\n",
       "line 1, column 14: a quote that is opened here never closes"},
      {"description: \"a",
       "line 1, column 16: this is no YAML (illegal EOF in scalar)" + no_yaml},
      {"images: [{location: a}",
       "line 1, column 9: a bracket that is opened here never closes"},
      {"images: [a, b\n",
       "line 1, column 9: a bracket that is opened here never closes"},
      {"ssh:\n\tlocalPort: 22\n",
       "line 2, column 1: a tab indents this line; YAML takes spaces alone"},
      {"cpus: 2\n\tmemory: 1GiB\n",
       "line 2, column 1: a tab indents this line; YAML takes spaces alone"},
      {"ssh:\n  \tlocalPort: 22\n",
       "line 2, column 3: a tab indents this line; YAML takes spaces alone"},
      {"cpus: 2\n---\ncpus: 3\n",
       "line 2, column 1: another document begins here; leave one, and check "
       "the "
       "indentation"},
      {"cpus: 2\n...\nmemory: 1GiB\n",
       "line 3, column 1: another document begins here; leave one, and check "
       "the indentation"},
      {"{cpus: 2}}\n",
       "line 1, column 10: this is no YAML (illegal flow end)" + no_yaml},
      {"cpus: 2\n}\nmemory: 1GiB\n",
       "line 2, column 1: this is no YAML (illegal flow end)" + no_yaml},
      {"ssh:\n  localPort: 1\n cpus: 2\n",
       "line 3, column 2: this is no YAML (end of map not found)" + no_yaml},
      {"cpus: &a 2", "line 1, column 7: " + anchors},
      {"a: &a [x, x]\nb: &b [*a, *a]\n", "line 1, column 4: " + anchors},
      {"cpus: *a", "line 1, column 7: " + anchors},
      {"cpus: !!int 2",
       "line 1, column 7: tags (!) are not supported; remove it"},
      {"cpus: !x 2", "line 1, column 7: tags (!) are not supported; remove it"},
      {"cpus: 2\ndescription: a\0b"s,
       "line 2, column 15: control character 0x00; remove it"},
      {"# \x1b[31m\n", "line 1, column 3: control character 0x1b; remove it"},
      {"cpus: 2\x7f", "line 1, column 8: control character 0x7f; remove it"},
      {"# \xc3\xa9\xc3\xa9 \xff\n",
       "line 1, column 6: byte 0xff is not UTF-8 text, or a control "
       "character; save it as UTF-8"},
      {"# \xc0\xaf\n",
       "line 1, column 3: byte 0xc0 is not UTF-8 text, or a control "
       "character; save it as UTF-8"},
      {"# \xed\xa0\x80\n",
       "line 1, column 3: byte 0xed is not UTF-8 text, or a control "
       "character; save it as UTF-8"},
      {"# \xc2\x9b\n",
       "line 1, column 3: byte 0xc2 is not UTF-8 text, or a control "
       "character; save it as UTF-8"},
      {"\xff\xfe"
       "c\0p\0"s,
       "line 1, column 1: byte 0xff is not UTF-8 text, or a control "
       "character; save it as UTF-8"},
      {"{\xc3\xa9: 1, cpus: x}",
       "line 1, column 2: unknown key '\xc3\xa9'; sbxfs(5) has them all"},
      {"description: \xc3\xa9\xc3\xa9 \xc3\xa9 # \xc3\xa9\ncpus: "
       "\"\xc3\xa9\"",
       "line 2, column 7: cpus is the text \"\xc3\xa9\"; it must be a whole "
       "number from 1 to 255"},
      {"{description: \"\xc3\xa9\xc3\xa9\", cpus: x}",
       "line 1, column 27: cpus is 'x'; it must be a whole number from 1 to "
       "255"},
      {"\xef\xbb\xbf"
       "cpuz: 2",
       "line 1, column 2: unknown key 'cpuz'; did you mean 'cpus'?"},
      {std::string(kMaxYamlSize + 1, '#'),
       "it has 262145 bytes; 262144 are allowed"},
      {"a: " + std::string(300, '[') + std::string(300, ']'),
       "line 1, column 23: more than 20 levels of nesting"},
      {Times(50000, "{a: "),
       "line 1, column 1: a bracket that is opened here never closes"},
      {Times(30000, "{a: ") + std::string(30000, '}'),
       "line 1, column 81: more than 20 levels of nesting"},
      {"cpus: '" + std::string(39, 'x') + "\xc3\xa9\xc3\xa9'",
       "line 1, column 7: cpus is the text \"" + std::string(39, 'x') +
           "…\"; it must be a whole number from 1 to 255"},
  });
}

TEST(SpecTest, HostileNestingInBlockStyleEnds) {
  std::string text;
  for (int i = 0; i < 600; ++i) text += std::string(i, ' ') + "a:\n";
  EXPECT_EQ(Refusal(text),
            "Cannot accept 'config.yaml': line 21, column 21: more than 20 "
            "levels of nesting");
  EXPECT_EQ(Refusal(std::string(100000, '-')),
            "Cannot accept 'config.yaml': line 1, column 1: the text is "
            "'----------------------------------------…'; it must be keys "
            "with their values, as in 'cpus: 2'");
}

TEST(SpecTest, StrongerLayersWin) {
  const Spec spec = ParseSpec(
      {{"built-in", BuiltInLayer("debian")},
       {"defaults.yaml",
        "cpus: 4\nuser: {shell: /bin/zsh}\nssh: {localPort: 2222}\n"
        "images: [{location: a}, {location: b}]\nautostart: true\n"
        "cpuType: {x86_64: max, aarch64: cortex-a72}\narch: x86_64\n"},
       {"config.yaml",
        "cpus: null\nmemory: 2GiB\nuser: {comment: C}\nssh: {localPort: 0}\n"
        "images: [{location: c}]\nautostart: false\ncpuType: {x86_64: ''}\n"}});
  EXPECT_EQ(spec.cpus, 4U);
  EXPECT_EQ(spec.memory, 2 * kGiB);
  EXPECT_EQ(spec.disk, 20 * kGiB);
  EXPECT_EQ(spec.user, "debian");
  EXPECT_EQ(spec.shell, "/bin/zsh");
  EXPECT_EQ(spec.comment, "C");
  EXPECT_EQ(spec.ssh_port, 0);
  EXPECT_FALSE(spec.autostart);
  ASSERT_EQ(spec.images.size(), 1U);
  EXPECT_EQ(spec.images[0].location, "c");
  EXPECT_EQ(spec.cpu_type, "");
  EXPECT_EQ(spec.cpu_types.at("aarch64"), "cortex-a72");
}

TEST(SpecTest, TheSentenceNamesTheLayer) {
  try {
    (void)ParseSpec({{"built-in", BuiltInLayer("a")},
                     {"defaults.yaml", "cpus: x"},
                     {"config.yaml", "cpus: y"}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.Sentence(),
              "Cannot accept 'defaults.yaml': line 1, column 7: cpus is 'x'; "
              "it must be a whole number from 1 to 255");
  }
}

TEST(SpecTest, BuiltInLayer) {
  const Spec spec = ParseSpec({{"built-in", BuiltInLayer("debian")}});
  EXPECT_EQ(spec.cpus, 2U);
  EXPECT_EQ(spec.memory, kGiB);
  EXPECT_EQ(spec.disk, 20 * kGiB);
  EXPECT_EQ(spec.user, "debian");
  ASSERT_EQ(spec.images.size(), 3U);
  EXPECT_EQ(spec.images[0].location, "debian-12");
  EXPECT_EQ(spec.images[1].location,
            "https://cloud.debian.org/images/cloud/bookworm/latest/"
            "debian-12-generic-amd64.qcow2");
  EXPECT_EQ(spec.images[1].arch, "x86_64");
  EXPECT_EQ(spec.images[2].location,
            "https://cloud.debian.org/images/cloud/bookworm/latest/"
            "debian-12-generic-arm64.qcow2");
  EXPECT_EQ(spec.images[2].arch, "aarch64");
}

TEST(SpecTest, BuiltInLayerTakesAnyUser) {
  const std::pair<const char*, const char*> kUsers[] = {
      {"alice", "alice"},        {"yes", "yes"},  {"Alice", "sandbox"},
      {"first.last", "sandbox"}, {"", "sandbox"}, {"a: b\n", "sandbox"},
      {"null", "null"},          {"root", "root"}};
  for (const auto& [user, expected] : kUsers) {
    EXPECT_EQ(ParseSpec({{"built-in", BuiltInLayer(user)}}).user, expected);
  }
}

TEST(SpecTest, Differences) {
  const Spec a = ParseSpec({{"built-in", BuiltInLayer("a")}});
  EXPECT_EQ(Differences(a, a), std::vector<std::string>());
  Spec b = a;
  b.cpus = 3;
  b.memory = 1;
  b.max_cpus = 4;
  b.max_memory = 2;
  b.disk = 1;
  b.arch = "aarch64";
  b.user = "b";
  b.uid = 1;
  b.home = b.shell = b.comment = b.description = "x";
  b.ssh_port = 1;
  b.load_dot_ssh_pub_keys = true;
  b.legacy_bios = false;
  b.cpu_types["x86_64"] = "max";
  b.autostart = true;
  b.images[0].digest = "sha256:";
  EXPECT_EQ(
      Differences(a, b),
      (std::vector<std::string>{
          "arch", "autostart", "cpuType", "cpus", "description", "disk",
          "firmware.legacyBIOS", "images", "maxCPUs", "maxMemory", "memory",
          "ssh.loadDotSSHPubKeys", "ssh.localPort", "user.comment", "user.home",
          "user.name", "user.shell", "user.uid"}));
  EXPECT_EQ(Differences(a, b), Differences(b, a));
}

// Takes the "# " away from the lines that are keys, as its reader would.
std::string Uncommented(const std::string& skeleton) {
  static const std::regex key("^# ( *(- )?[A-Za-z0-9_]+:( .*)?)$");
  std::string text;
  size_t begin = 0;
  for (size_t end; (end = skeleton.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    const std::string line = skeleton.substr(begin, end - begin);
    text += std::regex_replace(line, key, "$1") + "\n";
  }
  return text;
}

TEST(SpecTest, SkeletonSetsNothing) {
  const Spec defaults = ParseSpec({{"built-in", BuiltInLayer("debian")}});
  EXPECT_EQ(Differences(ParseText(Skeleton(defaults)), Spec()),
            std::vector<std::string>());
}

TEST(SpecTest, SkeletonUncommentedIsTheDefaults) {
  const Spec built_in = ParseSpec({{"built-in", BuiltInLayer("debian")}});
  EXPECT_EQ(Differences(ParseText(Uncommented(Skeleton(built_in))), built_in),
            std::vector<std::string>());

  const std::string every =
      "images: [{location: 'a: b', arch: aarch64, digest: 'sha256:" +
      std::string(64, '0') +
      "'}]\n"
      "cpus: 7\nmemory: 1000000000\nmaxCPUs: 9\nmaxMemory: 3GiB\ndisk: "
      "33MiB\narch: aarch64\n"
      "description: \"a: \\\"b\\\" # 'c'\\n\\\\d\"\nautostart: true\n"
      "user: {name: 'null', uid: 5, home: /h, shell: /s, comment: 'no'}\n"
      "ssh: {localPort: 22, loadDotSSHPubKeys: true}\n"
      "firmware: {legacyBIOS: true}\n"
      "cpuType: {aarch64: max, x86_64: 'qemu64,+aes'}\n";
  const Spec all = ParseText(every);
  EXPECT_EQ(Differences(ParseText(Uncommented(Skeleton(all))), all),
            std::vector<std::string>());
}

TEST(SpecTest, SkeletonLinesAreShort) {
  const std::string text = Skeleton(Spec());
  size_t begin = 0;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    EXPECT_LE(end - begin, 80U) << text.substr(begin, end - begin);
  }
}

}  // namespace
}  // namespace sbxfs
