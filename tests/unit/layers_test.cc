#include "backend/spec/layers.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <string>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

using Templates = std::map<std::string, std::string>;

FindTemplate In(const Templates& templates) {
  return [&templates](const std::string& path) -> std::optional<std::string> {
    const auto found = templates.find(path);
    if (found == templates.end()) return std::nullopt;
    return found->second;
  };
}

std::string KeyNames(const std::string& text, const Templates& templates) {
  std::string names;
  try {
    for (const Layer& layer : TakeBases(text, In(templates))) {
      names += (names.empty() ? "" : " ") + layer.name;
    }
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL);
    return error.Sentence();
  }
  return names;
}

TEST(LayersTest, PackedReadBack) {
  const std::vector<Layer> layers = {
      {"defaults.yaml", ""}, {"a b", "12 x\ny"}, {"config.yaml", "cpus: 2\n"}};
  const auto back = UnpackLayers(PackLayers(layers));
  ASSERT_EQ(back.size(), layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    EXPECT_EQ(back[i].name, layers[i].name);
    EXPECT_EQ(back[i].text, layers[i].text);
  }
  EXPECT_TRUE(UnpackLayers("").empty());
  for (const char* damaged : {"x", "5 a\nxyz", "cpus: 2\n", "9\n", "-1 a\n"}) {
    EXPECT_TRUE(UnpackLayers(damaged).empty()) << damaged;
  }
}

TEST(LayersTest, BasesWeakestFirst) {
  const Templates templates = {
      {"docker.yaml", "base: [_images/debian.yaml, template://_default/m]"},
      {"_images/debian.yaml", "base: ./debian-12"},
      {"_images/debian-12.yaml", "images: [{location: debian-12}]"},
      {"_default/m.yaml", "base: ../_images/debian-12.yaml"},
      {"other.yaml", ""}};
  EXPECT_EQ(KeyNames("", templates), "");
  EXPECT_EQ(KeyNames("base:\n", templates), "");
  EXPECT_EQ(KeyNames("base: template:other", templates), "template:other");
  EXPECT_EQ(KeyNames("base: [{url: template:other}]", templates),
            "template:other");
  EXPECT_EQ(KeyNames("base: _images/debian.yaml", templates),
            "template:_images/debian-12 template:_images/debian");
  // The first is the strongest; what two stand on is there once.
  EXPECT_EQ(KeyNames("base: [template:docker, other]", templates),
            "template:other template:_default/m template:_images/debian-12 "
            "template:_images/debian template:docker");
}

TEST(LayersTest, BasesThatAreRefused) {
  const Templates templates = {{"a.yaml", "base: b"},
                               {"b.yaml", "cpus: 1\nbase:\n- template:a\n"},
                               {"self.yaml", "base: self"},
                               {"bad.yaml", "cpus: ["},
                               {"_x/up.yaml", "base: ../../a"}};
  const std::string config = "Cannot accept 'config.yaml': line 1, column 7: ";
  EXPECT_EQ(KeyNames("base: template:none", templates),
            config +
                "base 'template:none': there is no "
                ".host/templates/none.yaml; cp it there");
  EXPECT_EQ(KeyNames("base: /etc/a.yaml", templates),
            config +
                "base '/etc/a.yaml': files of the host are not read; cp "
                "it to .host/templates/ and write template:NAME");
  EXPECT_EQ(KeyNames("base: ~/a.yaml", templates),
            config +
                "base '~/a.yaml': files of the host are not read; cp it "
                "to .host/templates/ and write template:NAME");
  EXPECT_EQ(KeyNames("base: https://example.org/a.yaml", templates),
            config +
                "base 'https://example.org/a.yaml': nothing is fetched; "
                "cp the text to .host/templates/ and write "
                "template:NAME");
  EXPECT_EQ(KeyNames("base: template:../a", templates),
            config + "base 'template:../a': it leads out of .host/templates");
  EXPECT_EQ(KeyNames("base: template:_x/up", templates),
            "Cannot accept 'template:_x/up': line 1, column 7: base "
            "'../../a': it leads out of .host/templates");
  EXPECT_EQ(KeyNames("base: 3\ncpus: 2", templates),
            config +
                "base '3': there is no .host/templates/3.yaml; cp it "
                "there");
  EXPECT_EQ(KeyNames("base: {a: b}", templates),
            config +
                "base is a map; it must be a template of "
                ".host/templates, as in 'template:NAME', or a list of "
                "such");
  EXPECT_EQ(KeyNames("base: a", templates),
            "Cannot accept 'template:b': line 3, column 3: base "
            "'template:a': it stands on itself; remove one of the bases");
  EXPECT_EQ(KeyNames("base: self", templates),
            "Cannot accept 'template:self': line 1, column 7: base 'self': "
            "it stands on itself; remove one of the bases");
  EXPECT_EQ(KeyNames("base: bad", templates),
            "Cannot accept 'template:bad': line 1, column 7: a bracket that "
            "is opened here never closes");
}

TEST(LayersTest, BasesAreBounded) {
  Templates chain;
  for (int i = 0; i < 60; ++i) {
    chain["t" + std::to_string(i) + ".yaml"] =
        "base: t" + std::to_string(i + 1) + "\n";
  }
  EXPECT_EQ(KeyNames("base: t0", chain),
            "Cannot accept 'template:t49': line 1, column 7: base 't50': more "
            "than 50 bases, or 262144 bytes of them; take fewer");
}

std::string Refusal(const std::string& name, const std::string& text,
                    bool is_template) {
  try {
    CheckLayer(name, text, is_template);
    return "accepted";
  } catch (const Error& error) {
    return error.Sentence();
  }
}

TEST(LayersTest, DocumentsAreChecked) {
  EXPECT_EQ(Refusal("defaults.yaml", "cpus: 4\n", false), "accepted");
  EXPECT_EQ(Refusal("templates/a.yaml", "base: b\n", true), "accepted");
  EXPECT_EQ(Refusal("templates/a.yaml",
                    "probes: [{script: \"#!/bin/sh\\n{{.Param.x}}\"}]", true),
            "accepted");
  EXPECT_EQ(Refusal("override.yaml", "cpus: 2\nbase: b\n", false),
            "Cannot accept 'override.yaml': line 2, column 1: 'base' is for "
            "config.yaml and templates; write the settings into "
            "override.yaml");
  EXPECT_EQ(Refusal("defaults.yaml", "cpuz: 2\n", false),
            "Cannot accept 'defaults.yaml': line 1, column 1: unknown key "
            "'cpuz'; did you mean 'cpus'?");
}

TEST(LayersTest, SetsKey) {
  EXPECT_TRUE(SetsKey("cpus: 2", "cpus"));
  EXPECT_TRUE(SetsKey("ssh: {localPort: 0}", "ssh.localPort"));
  EXPECT_FALSE(SetsKey("", "cpus"));
  EXPECT_FALSE(SetsKey("cpus: null", "cpus"));
  EXPECT_FALSE(SetsKey("ssh: {forwardAgent: true}", "ssh.localPort"));
  EXPECT_FALSE(SetsKey("ssh: 3", "ssh.localPort"));
}

TEST(LayersTest, Joined) {
  const Spec spec = ParseSpec(
      {{"defaults.yaml",
        "provision: [{script: d}]\nprobes: [{script: '#!d'}]\n"
        "portForwards: [{guestPort: 1}]\n"
        "mounts: [{location: /a}, {location: /b, mountPoint: /x}]\n"
        "networks: [{lima: shared, interface: n0}, {lima: host}]\n"
        "additionalDisks: [one, {name: two, format: false}]\n"
        "dns: [1.1.1.1]\nenv: {A: '1', B: '1'}\nparam: {P: '1'}\n"
        "hostResolver: {hosts: {a.b: 1.1.1.1}}\nmountType: 9p\n"
        "mountTypesUnsupported: [9p]\n"},
       {"config.yaml",
        "provision: [{script: c}]\nprobes: [{script: '#!c'}]\n"
        "portForwards: [{guestPort: 2}]\n"
        "mounts: [{location: /b, writable: true}, {location: /c}]\n"
        "networks: [{lima: bridged, interface: n0}]\n"
        "additionalDisks: [{name: one, fsType: xfs}, two, three]\n"
        "dns: [8.8.8.8]\nenv: {B: '2'}\nparam: {P: '2'}\n"
        "hostResolver: {hosts: {c.d: a.b}}\nmountType: null\n"
        "mountTypesUnsupported: [virtiofs]\n"},
       {"override.yaml", "provision: [{script: o}]\nenv: {A: '3'}\n"}});
  ASSERT_EQ(spec.provision.size(), 3U);
  EXPECT_EQ(spec.provision[0].script + spec.provision[1].script +
                spec.provision[2].script,
            "dco");
  ASSERT_EQ(spec.probes.size(), 2U);
  EXPECT_EQ(spec.probes[0].script + spec.probes[1].script, "#!d#!c");
  EXPECT_EQ(spec.probes[1].description, "user probe 2/2");
  ASSERT_EQ(spec.port_forwards.size(), 2U);
  EXPECT_EQ(spec.port_forwards[0].guest_first, 2);
  ASSERT_EQ(spec.mounts.size(), 3U);
  EXPECT_EQ(spec.mounts[1].location, "/b");
  EXPECT_EQ(spec.mounts[1].mount_point, "/x");
  EXPECT_TRUE(spec.mounts[1].writable);
  EXPECT_EQ(spec.mounts[0].origin.layer, "defaults.yaml");
  EXPECT_EQ(spec.mounts[2].origin.layer, "config.yaml");
  ASSERT_EQ(spec.networks.size(), 2U);
  EXPECT_EQ(spec.networks[0].name, "bridged");
  EXPECT_EQ(spec.networks[1].name, "host");
  ASSERT_EQ(spec.additional_disks.size(), 3U);
  EXPECT_EQ(spec.additional_disks[0].fs_type, "xfs");
  EXPECT_FALSE(spec.additional_disks[1].format);
  EXPECT_EQ(spec.dns, std::vector<std::string>{"8.8.8.8"});
  EXPECT_EQ(spec.env,
            (std::map<std::string, std::string>{{"A", "3"}, {"B", "2"}}));
  EXPECT_EQ(spec.param.at("P"), "2");
  EXPECT_EQ(spec.hosts.size(), 2U);
  EXPECT_EQ(spec.mount_type, MountType::k9p);
  EXPECT_EQ(spec.mount_types_unsupported,
            (std::vector<MountType>{MountType::k9p, MountType::kVirtiofs}));
}

TEST(EffectiveTest, NamesTheLayerOfEachValue) {
  EXPECT_EQ(
      EffectiveText(
          {{"built-in", "cpus: 2\nssh: {localPort: 0}\nmounts: []\n"},
           {"defaults.yaml", "rosetta: {enabled: true}\nenv: {A: 'no'}\n"},
           {"template:t",
            "provision:\n- mode: user\n  script: |\n    #!/bin/sh\n\n"
            "    # two\n"},
           {"config.yaml",
            "base: template:t\nssh:\n  localPort: 22 # mine\n"
            "mounts: [{location: /a, writable: true, sshfs: {sftpDriver: "
            "builtin}}]\nuser: {}\ndescription: \"a: b\\nc\"\n"},
           {"override.yaml", "cpus: 4\ndns: [1.1.1.1]\nmessage: null\n"}},
          {{"accelerator", "kvm"}}),
      "cpus: 4  # override.yaml\n"
      "description: |-  # config.yaml\n"
      "  a: b\n"
      "  c\n"
      "dns:\n"
      "- 1.1.1.1  # override.yaml\n"
      "env:\n"
      "  A: \"no\"  # defaults.yaml\n"
      "mounts:\n"
      "- location: /a  # config.yaml\n"
      "  writable: true  # config.yaml\n"
      "  sshfs:\n"
      "    sftpDriver: builtin  # config.yaml; no effect here: sbxfs serves "
      "the files itself\n"
      "provision:\n"
      "- mode: user  # template:t\n"
      "  script: |  # template:t\n"
      "    #!/bin/sh\n"
      "\n"
      "    # two\n"
      "rosetta:\n"
      "  enabled: true  # defaults.yaml; no effect here: it is for macOS\n"
      "ssh:\n"
      "  localPort: 22  # config.yaml\n"
      "\n"
      "# Chosen by sbxfs, or found out:\n"
      "# accelerator: kvm\n");
}

// What it shows is what holds, whatever the texts are like.
TEST(EffectiveTest, SaysTheSameAsTheLayers) {
  const std::vector<Layer> layers = {
      {"built-in", BuiltInLayer("debian")},
      {"config.yaml",
       "description: \" lead\\n  x\\n\"\nmessage: \"tab\\there\\n\\n\\nend\"\n"
       "env: {A: '', B: \"'\", C: '#', D: 'x: y', E: '- a', F: ' s ', "
       "'1': ''}\n"
       "provision:\n- script: |+\n    a  \n    b\n\n\n- script: 'null'\n"
       "- mode: data\n  path: /a b\n  content: \"\\nx\"\n"
       "  permissions: '0644'\n"
       "probes:\n- script: \"#!a\\n\\tb\\n\"\n  hint: |\n    - x\n    y:\n"}};
  // A variable's name does not begin with a digit.
  EXPECT_THROW((void)ParseSpec(layers), Error);
  std::vector<Layer> good = layers;
  const auto bad = good[1].text.find(", '1': ''");
  good[1].text.erase(bad, 9);
  const Spec spec = ParseSpec(good);
  const std::string text = EffectiveText(good, {});
  EXPECT_EQ(Differences(ParseSpec({{"effective.yaml", text}}), spec),
            std::vector<std::string>())
      << text;
}

}  // namespace
}  // namespace sbxfs
