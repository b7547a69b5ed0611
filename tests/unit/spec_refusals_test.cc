// Texts of config.yaml that are refused, each with its whole sentence; what is
// Lima's own has vocabulary_test.cc.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "backend/spec/spec.h"
#include "backend/spec/yaml.h"
#include "backend/util/error.h"
#include "tests/unit/config_texts.h"

namespace sbxfs {
namespace {

using namespace std::string_literals;  // NOLINT: texts with NUL

std::string TextRefusal(const std::string& text) {
  try {
    (void)ParseText(text);
    return "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL) << text;
    return error.Sentence();
  }
}

std::string Times(int count, std::string_view part) {
  std::string text;
  for (int i = 0; i < count; ++i) text += part;
  return text;
}

TEST(SpecRefusals, Keys) {
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
       "'ssh.localPort'? Known keys of ssh: address, ca, "
       "forwardAgent, forwardX11, forwardX11Trusted, loadDotSSHPubKeys, "
       "localPort, overVsock"},
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

TEST(SpecRefusals, Values) {
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
      {"idle: soon",
       "line 1, column 7: idle is 'soon'; it must be a time, as in '30m' or "
       "'2h', or 0 for never"},
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
       "address, ca, forwardAgent, forwardX11, forwardX11Trusted, "
       "loadDotSSHPubKeys, localPort, overVsock"},
      {"ssh: {localPort: 65536}",
       "line 1, column 18: ssh.localPort is '65536'" + port},
      {"ssh: {localPort: ssh}",
       "line 1, column 18: ssh.localPort is 'ssh'" + port},
      {"ssh: {loadDotSSHPubKeys: y}",
       "line 1, column 26: ssh.loadDotSSHPubKeys is 'y'; it must be true or "
       "false"},
      {"ssh: {ca: only}",
       "line 1, column 11: ssh.ca is 'only'; it must be true or false"},
      {"firmware: {legacyBIOS: 1}",
       "line 1, column 24: firmware.legacyBIOS is '1'; it must be true or "
       "false"},
      {"cpuType: max",
       "line 1, column 10: cpuType is 'max'; it must be a map of CPU types by "
       "architecture"},
      {"cpuType: {x86_64: 'a b'}",
       "line 1, column 19: cpuType.x86_64 is the text \"a b\"" + cpu_type},
      {"cpuType: {x86_64: 'host,a+b'}",
       "line 1, column 19: cpuType.x86_64 is the text \"host,a+b\"" + cpu_type},
      {"cpuType: {x86_64: -host}",
       "line 1, column 19: cpuType.x86_64 is '-host'" + cpu_type},
  });
}

TEST(SpecRefusals, Texts) {
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
      {"# one\n\n%cpus: 2\n",
       "line 3, column 1: a line that begins with % is a directive, and YAML "
       "has no such one; remove it"},
      {"%YAML 1.2\n%x\n---\ncpus: 2\n",
       "line 2, column 1: a line that begins with % is a directive, and YAML "
       "has no such one; remove it"},
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

TEST(SpecRefusals, HostileNestingInBlockStyleEnds) {
  std::string text;
  for (int i = 0; i < 600; ++i) text += std::string(i, ' ') + "a:\n";
  EXPECT_EQ(TextRefusal(text),
            "Cannot accept 'config.yaml': line 21, column 21: more than 20 "
            "levels of nesting");
  EXPECT_EQ(TextRefusal(std::string(100000, '-')),
            "Cannot accept 'config.yaml': line 1, column 1: the text is "
            "'----------------------------------------…'; it must be keys "
            "with their values, as in 'cpus: 2'");
}

}  // namespace
}  // namespace sbxfs
