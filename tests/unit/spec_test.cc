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
      {"idle: 1h30m",
       {"idle"},
       [](const Spec& s) { return s.idle == std::chrono::minutes(90); }},
      {"warm: false", {"warm"}, [](const Spec& s) { return s.warm == false; }},
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
  b.ssh_ca = true;
  b.legacy_bios = false;
  b.cpu_types["x86_64"] = "max";
  b.autostart = true;
  b.images[0].digest = "sha256:";
  EXPECT_EQ(
      Differences(a, b),
      (std::vector<std::string>{
          "arch", "autostart", "cpuType", "cpus", "description", "disk",
          "firmware.legacyBIOS", "images", "maxCPUs", "maxMemory", "memory",
          "ssh.ca", "ssh.loadDotSSHPubKeys", "ssh.localPort", "user.comment",
          "user.home", "user.name", "user.shell", "user.uid"}));
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
