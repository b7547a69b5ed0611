#include "tests/unit/config_texts.h"

#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstdio>
#include <set>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

// What is to be known of config.yaml, Lima's keys and ours; [] is a list's
// item.
constexpr const char* kVocabulary[] = {
    "images[].location",
    "images[].arch",
    "images[].digest",
    "images[].kernel",
    "images[].initrd",
    "cpus",
    "maxCPUs",
    "memory",
    "maxMemory",
    "disk",
    "additionalDisks[]",
    "arch",
    "cpuType",
    "vmOpts.qemu.cpuType",
    "firmware.legacyBIOS",
    "mounts[].location",
    "mounts[].mountPoint",
    "mounts[].writable",
    "mounts[].9p",
    "mounts[].virtiofs",
    "mounts[].sshfs",
    "mounts[].name",
    "mountType",
    "ssh.localPort",
    "ssh.loadDotSSHPubKeys",
    "ssh.forwardAgent",
    "user.name",
    "user.comment",
    "user.home",
    "user.shell",
    "user.uid",
    "provision[].mode",
    "provision[].script",
    "provision[].path",
    "provision[].content",
    "provision[].owner",
    "provision[].permissions",
    "probes[].script",
    "probes[].description",
    "probes[].hint",
    "portForwards[].guestPort",
    "portForwards[].guestPortRange",
    "portForwards[].hostPort",
    "portForwards[].hostPortRange",
    "portForwards[].guestIP",
    "portForwards[].hostIP",
    "portForwards[].guestSocket",
    "portForwards[].hostSocket",
    "portForwards[].proto",
    "portForwards[].ignore",
    "portForwards[].reverse",
    "network",
    "egress[]",
    "networks[].lima",
    "dns[]",
    "hostResolver.hosts",
    "env",
    "propagateProxyEnv",
    "caCerts.files",
    "caCerts.certs",
    "timezone",
    "upgradePackages",
    "param",
    "base",
    "message",
    "plain",
    "video.display",
    "tpm",
    "nestedVirtualization",
    "minimumLimaVersion",
    "idle",
    "snapshotMemory",
    "warm",
    "rosetta.enabled",
    "vmType",
};

std::set<std::string>& Seen() {
  static std::set<std::string> seen;
  return seen;
}

void NoteKeys(const YAML::Node& node, const std::string& at) {
  if (!at.empty()) Seen().insert(at);
  if (node.IsSequence()) {
    for (const auto& item : node) NoteKeys(item, at + "[]");
  }
  if (!node.IsMap()) return;
  for (const auto& entry : node) {
    const auto key = entry.first.as<std::string>();
    NoteKeys(entry.second, at.empty() ? key : at + "." + key);
  }
}

// After all tests, when all were run.
class Vocabulary : public testing::Environment {
  void TearDown() override {
    const auto* all = testing::UnitTest::GetInstance();
    if (all->test_to_run_count() != all->total_test_count()) return;
    for (const char* key : kVocabulary) {
      EXPECT_TRUE(Seen().contains(key)) << "no good text has " << key;
    }
  }
};
[[maybe_unused]] const auto* const kVocabularyChecked =
    testing::AddGlobalTestEnvironment(new Vocabulary);

}  // namespace

Spec ParseText(const std::string& text) {
  return ParseSpec({{"config.yaml", text}});
}

void ExpectGood(const std::vector<Good>& cases) {
  for (const auto& [text, keys, right] : cases) {
    SCOPED_TRACE(text);
    try {
      const Spec spec = ParseText(text);
      EXPECT_EQ(Differences(Spec(), spec), keys);
      EXPECT_TRUE(right(spec));
      NoteKeys(YAML::Load(text), "");
    } catch (const Error& error) {
      ADD_FAILURE() << error.Sentence();
    }
  }
}

void ExpectBad(const std::vector<Bad>& cases) {
  for (const auto& [text, sentence] : cases) {
    try {
      (void)ParseText(text);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EINVAL) << text;
      EXPECT_EQ(error.Sentence(), "Cannot accept 'config.yaml': " + sentence)
          << text;
    }
  }
}

}  // namespace sbxfs
