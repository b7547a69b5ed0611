#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "backend/spec/spec.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

using Set = std::string (*)(std::string_view, std::string_view,
                            std::string_view);

struct EditCase {
  const char* what;
  std::string text;
  const char* name;
  const char* value;
  std::string expected;
};

void ExpectEdits(Set set, const std::vector<EditCase>& cases) {
  for (const auto& [what, text, name, value, expected] : cases) {
    try {
      const std::string edited = set(text, name, value);
      EXPECT_EQ(edited, expected) << what;
      EXPECT_EQ(set(edited, name, value), edited) << what << ", again";
    } catch (const Error& error) {
      ADD_FAILURE() << what << ": " << error.Sentence();
    }
  }
}

std::string Refusal(Set set, const std::string& text, const char* name,
                    const char* value) {
  try {
    return "edited: " + set(text, name, value);
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL);
    return error.Sentence();
  }
}

TEST(SetMountTest, Adds) {
  ExpectEdits(
      SetMount,
      {
          {"to nothing", "", "src", "/srv/src",
           "mounts:\n- location: /srv/src\n"},
          {"writable", "cpus: 2\n", "src", "/srv/src:w",
           "cpus: 2\nmounts:\n- location: /srv/src\n  writable: true\n"},
          {"under another name", "cpus: 2", "code", "/srv/src",
           "cpus: 2\nmounts:\n- location: /srv/src\n  name: code\n"},
          {"the home", "", "home", "~", "mounts:\n- location: \"~\"\n"},
          {"below the home", "", "src", "~/src",
           "mounts:\n- location: ~/src\n"},
          {"a path with blanks and colons", "", "b", "/a: b/b",
           "mounts:\n- location: \"/a: b/b\"\n"},
          {"behind the commented-out key",
           "# mounts:\n#   - location: /x\n\n# c\ncpus: 2\n", "src", "/srv/src",
           "# mounts:\n#   - location: /x\nmounts:\n- location: /srv/src\n\n"
           "# c\ncpus: 2\n"},
          {"to a list",
           "mounts:\n- location: /a\n  writable: true # yes\n"
           "# end\ncpus: 2\n",
           "b", "/b",
           "mounts:\n- location: /a\n  writable: true # yes\n- location: /b\n"
           "# end\ncpus: 2\n"},
          {"to an indented list", "mounts:\n    # mine\n    - location: /a\n",
           "b", "/b:w",
           "mounts:\n    # mine\n    - location: /a\n    - location: /b\n"
           "      writable: true\n"},
          {"without a newline at the end", "mounts:\n- location: /a", "b", "/b",
           "mounts:\n- location: /a\n- location: /b\n"},
          {"to null", "mounts:\ncpus: 2\n", "b", "/b",
           "mounts:\n- location: /b\ncpus: 2\n"},
          {"to an empty list", "mounts: []\ncpus: 2\n", "b", "/b",
           "mounts:\n- location: /b\ncpus: 2\n"},
          {"to ~", "mounts: ~\n", "b", "/b", "mounts:\n- location: /b\n"},
          {"to a flow list", "mounts: [{location: /a}] # m\n", "b", "/b:w",
           "mounts: [{location: /a}, {location: /b, writable: true}] # m\n"},
          {"to a flow document", "{cpus: 2}", "b", "/b",
           "{cpus: 2, mounts: [{location: /b}]}"},
          {"to an empty flow document", "{}", "b", "/b",
           "{mounts: [{location: /b}]}"},
          {"CRLF", "cpus: 2\r\n", "b", "/b:w",
           "cpus: 2\r\nmounts:\r\n- location: /b\r\n  writable: true\r\n"},
          {"before the end of the document", "cpus: 2\n...\n", "b", "/b",
           "cpus: 2\nmounts:\n- location: /b\n...\n"},
          {"a number as a name", "", "12", "/srv/src",
           "mounts:\n- location: /srv/src\n  name: \"12\"\n"},
      });
}

TEST(SetMountTest, Changes) {
  const std::string two =
      "mounts:\n# first\n- location: /a  # one\n- name: b # two\n"
      "  location: '/x'\n  writable: true\n  mountPoint: /mnt\n";
  ExpectEdits(
      SetMount,
      {
          {"to the same", two, "a", "/a", two},
          {"to writable", two, "a", "/a:w",
           "mounts:\n# first\n- location: /a  # one\n  writable: true\n"
           "- name: b # two\n  location: '/x'\n  writable: true\n"
           "  mountPoint: /mnt\n"},
          {"to read-only", two, "b", "/x",
           "mounts:\n# first\n- location: /a  # one\n- name: b # two\n"
           "  location: '/x'\n  writable: false\n  mountPoint: /mnt\n"},
          {"the location of one with a name", two, "b", "/y:w",
           "mounts:\n# first\n- location: /a  # one\n- name: b # two\n"
           "  location: /y\n  writable: true\n  mountPoint: /mnt\n"},
          {"the location of one without", two, "a", "/z",
           "mounts:\n# first\n- location: /z  # one\n  name: a\n"
           "- name: b # two\n  location: '/x'\n  writable: true\n"
           "  mountPoint: /mnt\n"},
          {"one that keeps its last part", "mounts:\n- location: /a/src\n",
           "src", "/b/src", "mounts:\n- location: /b/src\n"},
          {"in a flow", "mounts: [{location: /a}, {location: /b}]", "b", "/b:w",
           "mounts: [{location: /a}, {location: /b, writable: true}]"},
          {"the dash alone on its line", "mounts:\n-\n  location: /a\n", "a",
           "/a:w", "mounts:\n-\n  location: /a\n  writable: true\n"},
          {"a second one of the same last part",
           "mounts:\n- location: /a/src\n- location: /b/src\n", "src-2",
           "/b/src:w",
           "mounts:\n- location: /a/src\n- location: /b/src\n"
           "  writable: true\n"},
      });
}

TEST(SetMountTest, Removes) {
  ExpectEdits(
      SetMount,
      {
          {"what is not there", "mounts:\n- location: /a\n", "b", "",
           "mounts:\n- location: /a\n"},
          {"the only one", "cpus: 2\nmounts:\n- location: /a\n  name: x\n# c\n",
           "x", "", "cpus: 2\n# c\n"},
          {"the first",
           "mounts:\n- location: /a\n  writable: true\n"
           "- location: /b\n",
           "a", "", "mounts:\n- location: /b\n"},
          {"the last, with what is below it",
           "mounts:\n- location: /a\n# keep\n- location: /b\n  9p:\n"
           "    cache: none\n    # of b\ncpus: 2\n",
           "b", "", "mounts:\n- location: /a\n# keep\ncpus: 2\n"},
          {"out of a flow", "mounts: [{location: /a}, {location: /b}] # m\n",
           "a", "", "mounts: [{location: /b}] # m\n"},
          {"the last of a flow", "mounts: [{location: /a}, {location: /b}]\n",
           "b", "", "mounts: [{location: /a}]\n"},
          {"the only one of a flow", "{mounts: [{location: /a}], cpus: 2}", "a",
           "", "{cpus: 2}"},
      });
}

TEST(SetMountTest, Refuses) {
  EXPECT_EQ(Refusal(SetMount, "", "a b", "/a"),
            "Cannot mount 'a b': a mount's name has letters, digits and ._-, "
            "58 at most");
  EXPECT_EQ(Refusal(SetMount, "", "a", "src:w"),
            "Cannot mount 'a': 'src' is no absolute path; write LOCATION, or "
            "LOCATION:w for a writable one");
  EXPECT_EQ(Refusal(SetMount, "mounts: 3\n", "a", "/a"),
            "Cannot accept 'config.yaml': line 1, column 9: mounts is '3'; it "
            "must be a list of mounts, each with its location, as in "
            "'- location: /srv/src'");
  EXPECT_EQ(
      Refusal(SetMount, "mounts:\n- # first\n  location: /a\n- location: /b\n",
              "a", ""),
      "Cannot unmount 'a': the text is laid out in a way that cannot be "
      "edited in place; change it in config.yaml by hand");
}

TEST(SetForwardTest, Adds) {
  ExpectEdits(
      SetForward,
      {
          {"to nothing", "", "3000", "8080",
           "portForwards:\n- guestPort: 3000\n  hostPort: 8080\n"},
          {"udp, with an address", "cpus: 2\n", "53.udp", "0.0.0.0:5353",
           "cpus: 2\nportForwards:\n- guestPort: 53\n  hostIP: \"0.0.0.0\"\n"
           "  hostPort: 5353\n  proto: udp\n"},
          {"a range", "", "4000-4010", "[::1]:5000-5010",
           "portForwards:\n- guestPortRange: [4000, 4010]\n  hostIP: \"::1\"\n"
           "  hostPortRange: [5000, 5010]\n"},
          {"before a rule that would decide",
           "portForwards:\n  # none but those above\n"
           "  - guestPortRange: [1, 65535]\n    ignore: true\n",
           "80", "8080",
           "portForwards:\n  - guestPort: 80\n    hostPort: 8080\n"
           "  # none but those above\n"
           "  - guestPortRange: [1, 65535]\n    ignore: true\n"},
          {"in a flow", "portForwards: [{guestPort: 1, ignore: true}]\n", "80",
           "80",
           "portForwards: [{guestPort: 80, hostPort: 80}, {guestPort: 1, "
           "ignore: true}]\n"},
          {"tcp beside udp", "portForwards:\n- guestPort: 53\n  proto: udp\n",
           "53", "5353",
           "portForwards:\n- guestPort: 53\n  hostPort: 5353\n"
           "- guestPort: 53\n  proto: udp\n"},
      });
}

TEST(SetForwardTest, Changes) {
  ExpectEdits(
      SetForward,
      {
          {"the port",
           "portForwards:\n- guestPort: 80 # web\n  hostPort: 8080 # here\n",
           "80", "9090",
           "portForwards:\n- guestPort: 80 # web\n  hostPort: 9090 # here\n"},
          {"one that had none", "portForwards:\n- guestPort: 80 # web\n", "80",
           "9090", "portForwards:\n- guestPort: 80 # web\n  hostPort: 9090\n"},
          {"the address", "portForwards: [{guestPort: 80, hostIP: 0.0.0.0}]",
           "80", "80",
           "portForwards: [{guestPort: 80, hostPort: 80, hostIP: "
           "\"127.0.0.1\"}]"},
          {"a range", "portForwards:\n- guestPortRange: [4000, 4010]\n",
           "4000-4010", "5000-5010",
           "portForwards:\n- guestPortRange: [4000, 4010]\n"
           "  hostPortRange: [5000, 5010]\n"},
          {"a range in block style",
           "portForwards:\n- guestPortRange: [40, 41]\n  hostPortRange:\n"
           "  - 50\n  - 51\n  proto: udp\n",
           "40-41.udp", "60-61",
           "portForwards:\n- guestPortRange: [40, 41]\n"
           "  hostPortRange: [60, 61]\n  proto: udp\n"},
          {"one protocol of any",
           "portForwards:\n- guestPort: 53\n  proto: any\n", "53", "5353",
           "portForwards:\n- guestPort: 53\n  hostPort: 5353\n"
           "- guestPort: 53\n  proto: udp\n"},
          {"one that another decides for",
           "portForwards:\n- guestPort: 80\n  ignore: true\n- guestPort: 80\n",
           "80", "8080",
           "portForwards:\n- guestPort: 80\n  hostPort: 8080\n"
           "- guestPort: 80\n  ignore: true\n"},
      });
}

TEST(SetForwardTest, Removes) {
  ExpectEdits(SetForward,
              {
                  {"what is not there", "cpus: 2\n", "80", "", "cpus: 2\n"},
                  {"the only one", "portForwards:\n- guestPort: 80\ncpus: 2\n",
                   "80", "", "cpus: 2\n"},
                  {"no rule that ignores",
                   "portForwards:\n- guestPort: 80\n  ignore: true\n", "80", "",
                   "portForwards:\n- guestPort: 80\n  ignore: true\n"},
                  {"one protocol of any",
                   "portForwards:\n- guestPort: 53\n  proto: any\n", "53.udp",
                   "", "portForwards:\n- guestPort: 53\n  proto: tcp\n"},
                  {"one of two",
                   "portForwards:\n# web\n- guestPort: 80\n- guestPort: 81\n",
                   "81", "", "portForwards:\n# web\n- guestPort: 80\n"},
              });
}

TEST(SetForwardTest, Refuses) {
  const char kName[] =
      ": a guest's port is named as in '3000', '53.udp' or '4000-4010'";
  for (const char* name : {"", "0", "web", "65536", "080", "80-80", "90-80",
                           "80.tcp", "80-081", ".udp", "1-2-3", "-1"}) {
    EXPECT_EQ(Refusal(SetForward, "", name, "80"),
              fmt::format("Cannot forward port '{}'{}", name, kName));
  }
  for (const char* value : {"0", "x", "65536", "localhost:80", "::1:80", ":80",
                            "1.2.3.4:", "1.2.3:80"}) {
    EXPECT_EQ(Refusal(SetForward, "", "80", value),
              fmt::format("Cannot forward port '80': '{}' is no port of the "
                          "host; write [ADDRESS:]PORT, as in '8080' or "
                          "'0.0.0.0:8080'",
                          value));
  }
  EXPECT_EQ(Refusal(SetForward, "", "80-81", "80"),
            "Cannot forward port '80-81': '80' has not as many ports as "
            "'80-81'");
}

std::string Shown(const std::map<std::string, ListEntry>& entries) {
  std::string text;
  for (const auto& [name, entry] : entries) {
    text += fmt::format("{} {} {}\n", name, entry.value, entry.layer);
  }
  return text;
}

TEST(ListEntriesTest, Mounts) {
  const Spec spec = ParseSpec(
      {{"defaults.yaml", "mounts: [{location: /d/src}]"},
       {"config.yaml",
        "mounts:\n- location: \"~\"\n- location: /c/src\n  writable: true\n"
        "- location: /x\n  name: y\n- location: '/a b/.c:d'\n"
        "- location: '{{.Dir}}'\n"}});
  EXPECT_EQ(Shown(MountEntries(spec)),
            "Dir-- {{.Dir}} config.yaml\n"
            "c-d /a b/.c:d config.yaml\n"
            "home ~ config.yaml\n"
            "src /d/src defaults.yaml\n"
            "src-2 /c/src:w config.yaml\n"
            "y /x config.yaml\n");
}

TEST(ListEntriesTest, Forwards) {
  const Spec spec = ParseSpec(
      {{"defaults.yaml", "portForwards: [{guestPort: 80}, {guestPort: 1}]"},
       {"config.yaml",
        "portForwards:\n- guestPort: 53\n  proto: any\n  hostPort: 5353\n"
        "- guestPort: 80\n  hostPort: 8080\n  hostIP: '::1'\n"
        "- guestPortRange: [4000, 4001]\n  hostIP: 0.0.0.0\n  proto: udp\n"
        "- guestPort: 9\n  ignore: true\n- guestPort: 9\n"
        "- guestSocket: /run/a\n  hostSocket: a\n"
        "- guestIP: 127.0.0.2\n"}});
  EXPECT_EQ(Shown(ForwardEntries(spec)),
            "1 1 defaults.yaml\n"
            "4000-4001.udp 0.0.0.0:4000-4001 config.yaml\n"
            "53 5353 config.yaml\n"
            "53.udp 5353 config.yaml\n"
            "80 [::1]:8080 config.yaml\n");
}

TEST(RenewMacsTest, ChangesThoseThatAreThere) {
  const auto fresh = [](std::size_t i) {
    return "52:54:00:00:00:0" + std::to_string(i);
  };
  EXPECT_EQ(RenewMacs("# a\nnetworks:\n- lima: a  # b\n"
                      "- lima: b\n  macAddress: 52:54:00:12:34:56  # mine\n"
                      "- {lima: c, macAddress: '52:54:00:12:34:57'}\n",
                      fresh),
            "# a\nnetworks:\n- lima: a  # b\n"
            "- lima: b\n  macAddress: \"52:54:00:00:00:01\"  # mine\n"
            "- {lima: c, macAddress: \"52:54:00:00:00:02\"}\n");
  EXPECT_EQ(RenewMacs("cpus: 3\n", fresh), "cpus: 3\n");
  EXPECT_EQ(RenewMacs("", fresh), "");
}

}  // namespace
}  // namespace sbxfs
