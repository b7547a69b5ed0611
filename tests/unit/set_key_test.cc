#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "backend/spec/spec.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

struct Case {
  const char* what;
  std::string text;
  const char* key;
  const char* value;
  std::string expected;
};

void ExpectEdits(const std::vector<Case>& cases) {
  for (const auto& [what, text, key, value, expected] : cases) {
    try {
      EXPECT_EQ(SetKey(text, key, value), expected) << what;
    } catch (const Error& error) {
      ADD_FAILURE() << what << ": " << error.Sentence();
    }
  }
}

TEST(SetKeyTest, Replaces) {
  ExpectEdits({
      {"plain", "cpus: 2\nmemory: 1GiB\n", "cpus", "4",
       "cpus: 4\nmemory: 1GiB\n"},
      {"the same", "cpus:  2 #\n", "cpus", "2", "cpus:  2 #\n"},
      {"comment and spaces", "# a\ncpus:   2   # two\n# b\n", "cpus", "16",
       "# a\ncpus:   16   # two\n# b\n"},
      {"no newline at the end", "cpus: 2", "cpus", "4", "cpus: 4"},
      {"CRLF", "cpus: 2\r\nmemory: 1GiB\r\n", "cpus", "4",
       "cpus: 4\r\nmemory: 1GiB\r\n"},
      {"byte order mark",
       "\xef\xbb\xbf"
       "cpus: 2\n",
       "cpus", "4",
       "\xef\xbb\xbf"
       "cpus: 4\n"},
      {"behind characters of several bytes",
       "description: \xc3\xa9 # \xe2\x82\xac\ncpus: 2\n", "cpus", "4",
       "description: \xc3\xa9 # \xe2\x82\xac\ncpus: 4\n"},
      {"nested", "ssh:\n  localPort: 1 # p\n  x: 2\n", "ssh.localPort", "22",
       "ssh:\n  localPort: 22 # p\n  x: 2\n"},
      {"flow", "{cpus: 2, memory: 1GiB}", "cpus", "4",
       "{cpus: 4, memory: 1GiB}"},
      {"nested flow", "ssh: {localPort: 1, x: [a, b]}\n", "ssh.localPort", "2",
       "ssh: {localPort: 2, x: [a, b]}\n"},
      {"double quotes stay", "memory: \"1GiB\" # m\n", "memory", "2GiB",
       "memory: \"2GiB\" # m\n"},
      {"single quotes stay", "memory: '1GiB'\n", "memory", "2GiB",
       "memory: '2GiB'\n"},
      {"quotes of a number go", "cpus: \"2\"\n", "cpus", "4", "cpus: 4\n"},
      {"quoted with quotes", "description: 'it''s' # c\n", "description",
       "that's", "description: 'that''s' # c\n"},
      {"escaped quote", "description: \"a\\\"b\" # c\n", "description", "d",
       "description: \"d\" # c\n"},
      {"quoted key", "\"cpus\" : 2\n", "cpus", "4", "\"cpus\" : 4\n"},
      {"value on the next line", "cpus:\n  2 # two\n", "cpus", "3",
       "cpus:\n  3 # two\n"},
      {"folded over lines", "description: a\n  b\n\n  c\ncpus: 2\n",
       "description", "d", "description: d\ncpus: 2\n"},
      {"quoted over lines", "description: \"a\n  b\"\ncpus: 2\n", "description",
       "d", "description: \"d\"\ncpus: 2\n"},
      {"literal block", "description: |\n  a\n   b\n\n  # c\ncpus: 2\n",
       "description", "d", "description: d\ncpus: 2\n"},
      {"folded block with a comment", "description: >-  # hm\n  a\n# b\n",
       "description", "d", "description: d # hm\n# b\n"},
      {"empty value", "cpus:   # none\n", "cpus", "3", "cpus: 3   # none\n"},
      {"empty value at the end", "cpus:", "cpus", "3", "cpus: 3"},
      {"null", "cpus: null # none\n", "cpus", "3", "cpus: 3 # none\n"},
      {"tilde in flow", "{cpus: ~, x: 1}", "cpus", "3", "{cpus: 3, x: 1}"},
      {"empty in flow", "{cpus: , x: 1}", "cpus", "3", "{cpus: 3 , x: 1}"},
      {"explicit key", "? cpus\n: 4\n", "cpus", "1", "? cpus\n: 1\n"},
      {"the same name elsewhere",
       "description: |\n  cpus: 1\nssh:\n  cpus: 1\ncpus: 1\n", "cpus", "2",
       "description: |\n  cpus: 1\nssh:\n  cpus: 1\ncpus: 2\n"},
  });
}

TEST(SetKeyTest, Adds) {
  ExpectEdits({
      {"to nothing", "", "cpus", "4", "cpus: 4\n"},
      {"to a comment", "# c", "cpus", "4", "# c\ncpus: 4\n"},
      {"at the end", "cpus: 2\n\n# end\n", "memory", "1GiB",
       "cpus: 2\n\n# end\nmemory: 1GiB\n"},
      {"behind an open line", "cpus: 2", "memory", "1GiB",
       "cpus: 2\nmemory: 1GiB\n"},
      {"CRLF", "cpus: 2\r\n", "ssh.localPort", "22",
       "cpus: 2\r\nssh:\r\n  localPort: 22\r\n"},
      {"before the document's end", "---\ncpus: 2\n...\n", "memory", "1GiB",
       "---\ncpus: 2\nmemory: 1GiB\n...\n"},
      {"behind a block", "description: |\n  a\n", "cpus", "2",
       "description: |\n  a\ncpus: 2\n"},
      {"behind an open block", "description: |\n  a", "cpus", "2",
       "description: |\n  a\ncpus: 2\n"},
      {"behind a list", "images:\n- location: a\n", "cpus", "2",
       "images:\n- location: a\ncpus: 2\n"},
      {"indented root", "  cpus: 2\n  disk: 1GiB\n", "memory", "1GiB",
       "  cpus: 2\n  disk: 1GiB\n  memory: 1GiB\n"},
      {"to empty brackets", "{}\n", "cpus", "2", "{cpus: 2}\n"},
      {"in flow", "{cpus: 2}", "ssh.localPort", "4",
       "{cpus: 2, ssh: {localPort: 4}}"},
      {"in flow over lines", "{\n  cpus: 2, # c\n  x: '}' # d\n}\n", "memory",
       "1GiB", "{\n  cpus: 2, # c\n  x: '}', memory: 1GiB # d\n}\n"},
      {"below its commented self", "# a\n# cpus: 2\n# memory: 1GiB\n", "cpus",
       "4", "# a\n# cpus: 2\ncpus: 4\n# memory: 1GiB\n"},
      {"below #key", "#cpus: 2\nmemory: 1GiB\n", "cpus", "4",
       "#cpus: 2\ncpus: 4\nmemory: 1GiB\n"},
      {"below the last of them", "# cpus: 2\n# or\n# cpus: 8\n\n", "cpus", "4",
       "# cpus: 2\n# or\n# cpus: 8\ncpus: 4\n\n"},
      {"not below prose", "# the cpus: many\n# x\n", "cpus", "4",
       "# the cpus: many\n# x\ncpus: 4\n"},
      {"not into a text", "description: |\n  # cpus: 2\n  b\n", "cpus", "4",
       "description: |\n  # cpus: 2\n  b\ncpus: 4\n"},
      {"not between a key and its map", "ssh:\n# cpus: 4\n  localPort: 2\n",
       "cpus", "4", "ssh:\n# cpus: 4\n  localPort: 2\ncpus: 4\n"},
      {"nested, below the commented map",
       "# ssh:\n#   localPort: 0\n#   x: 1\n\n# cpus: 2\n", "ssh.localPort",
       "22",
       "# ssh:\n#   localPort: 0\n#   x: 1\nssh:\n  localPort: 22\n\n"
       "# cpus: 2\n"},
      {"to an empty map", "ssh:\n# c\ncpus: 2\n", "ssh.localPort", "4",
       "ssh:\n  localPort: 4\n# c\ncpus: 2\n"},
      {"to an empty map at the end", "ssh:", "ssh.localPort", "4",
       "ssh:\n  localPort: 4\n"},
      {"to null", "ssh: ~ # none\n", "ssh.localPort", "4",
       "ssh: {localPort: 4} # none\n"},
      {"to empty brackets below", "ssh: { } # none\n", "ssh.localPort", "4",
       "ssh: {localPort: 4} # none\n"},
      {"to brackets with a last comma", "ssh: {x: [1, 2], }\n", "ssh.localPort",
       "4", "ssh: {x: [1, 2], localPort: 4, }\n"},
      {"to a map, at its end",
       "ssh:\n    x: 2 # p\n    # last\n\n# next\ncpus: 2\n", "ssh.localPort",
       "4",
       "ssh:\n    x: 2 # p\n    # last\n    localPort: 4\n\n# next\n"
       "cpus: 2\n"},
      {"to a map, below its commented self",
       "ssh:\n  # localPort: 5\n  x: 1\ncpus: 2\n", "ssh.localPort", "4",
       "ssh:\n  # localPort: 5\n  localPort: 4\n  x: 1\ncpus: 2\n"},
      {"a brace in quotes", "ssh: {x: \"}\"} # \xc3\xa9\n", "ssh.localPort",
       "4", "ssh: {x: \"}\", localPort: 4} # \xc3\xa9\n"},
      {"deep", "", "a.b.c", "1", "a:\n  b:\n    c: \"1\"\n"},
  });
}

TEST(SetKeyTest, Removes) {
  ExpectEdits({
      {"its line", "# a\ncpus: 2 # two\nmemory: 1GiB\n", "cpus", "",
       "# a\nmemory: 1GiB\n"},
      {"the only one", "cpus: 2\n", "cpus", "", ""},
      {"none", "# cpus: 2\n", "cpus", "", "# cpus: 2\n"},
      {"none below", "cpus: 2\n", "ssh.localPort", "", "cpus: 2\n"},
      {"a null", "cpus:\nx: 1\n", "cpus", "", "cpus:\nx: 1\n"},
      {"CRLF", "cpus: 2\r\nx: 1\r\n", "cpus", "", "x: 1\r\n"},
      {"at an open end", "x: 1\ncpus: 2", "cpus", "", "x: 1\n"},
      {"a block", "description: |\n  a\n\n  b\n\ncpus: 2\n", "description", "",
       "\ncpus: 2\n"},
      {"one of a map", "ssh:\n  x: 1\n  localPort: 2\n", "ssh.localPort", "",
       "ssh:\n  x: 1\n"},
      {"the last of a map", "cpus: 2\nssh:\n  localPort: 2\nx: 1\n",
       "ssh.localPort", "", "cpus: 2\nx: 1\n"},
      {"the last of a map with a comment", "ssh:\n  # c\n  localPort: 2\n",
       "ssh.localPort", "", "ssh:\n  # c\n"},
      {"the first in flow", "{cpus: 2 , x: 1}", "cpus", "", "{x: 1}"},
      {"the last in flow", "{x: 1, cpus: 2}", "cpus", "", "{x: 1}"},
      {"the only one in flow", "{cpus: 2}", "cpus", "", "{}"},
      {"the last of a map in flow", "{ssh: {localPort: 1}, x: 1}",
       "ssh.localPort", "", "{x: 1}"},
      {"a whole map", "ssh:\n  localPort: 1\n\nx: 1\n", "ssh", "", "\nx: 1\n"},
      {"a whole list", "images:\n- location: a\n- location: b\nx: 1\n",
       "images", "", "x: 1\n"},
  });
}

TEST(SetKeyTest, QuotesWhatNeedsIt) {
  const std::pair<const char*, const char*> kValues[] = {
      {"a box", "a box"},
      {"it's", "it's"},
      {"a \"b\"", "a \"b\""},
      {"a, b", "a, b"},
      {"a:b", "a:b"},
      {"a: b", "\"a: b\""},
      {"a:", "\"a:\""},
      {"a #b", "\"a #b\""},
      {"a#b", "a#b"},
      {"#a", "\"#a\""},
      {" a", "\" a\""},
      {"a ", "\"a \""},
      {"- a", "\"- a\""},
      {"-a", "\"-a\""},
      {"[a]", "\"[a]\""},
      {"{a", "\"{a\""},
      {"*a", "\"*a\""},
      {"&a", "\"&a\""},
      {"!a", "\"!a\""},
      {"%a", "\"%a\""},
      {"@a", "\"@a\""},
      {"`a", "\"`a\""},
      {"\"a\"", "\"\\\"a\\\"\""},
      {"'a'", "\"'a'\""},
      {"|", "\"|\""},
      {"a\\b", "a\\b"},
      {"null", "\"null\""},
      {"~", "\"~\""},
      {"Yes", "\"Yes\""},
      {"true", "\"true\""},
      {"12", "\"12\""},
      {"1.5e3", "\"1.5e3\""},
      {"0x1f", "\"0x1f\""},
      {"12:30", "\"12:30\""},
      {"2026-01-01", "\"2026-01-01\""},
      {"a\nb\t\"c\"", "\"a\\nb\\t\\\"c\\\"\""},
      {"caf\xc3\xa9", "caf\xc3\xa9"},
      {"---", "\"---\""},
      {"...", "\"...\""},
  };
  for (const auto& [value, written] : kValues) {
    EXPECT_EQ(SetKey("cpus: 2\n", "description", value),
              fmt::format("cpus: 2\ndescription: {}\n", written));
    const std::string in_flow = SetKey("{cpus: 2}", "description", value);
    for (const std::string& text :
         {SetKey("cpus: 2\n", "description", value), in_flow,
          SetKey("description: 'x'\n", "description", value),
          SetKey("description: \"x\"\n", "description", value)}) {
      EXPECT_EQ(ParseSpec({{"config.yaml", text}}).description, value) << text;
    }
  }
  EXPECT_EQ(SetKey("{cpus: 2}", "description", "a, b"),
            "{cpus: 2, description: \"a, b\"}");
  // Numbers and sizes are none.
  EXPECT_EQ(SetKey("", "memory", "1073741824"), "memory: 1073741824\n");
  EXPECT_EQ(SetKey("", "autostart", "true"), "autostart: true\n");
  EXPECT_EQ(SetKey("", "user.uid", "5"), "user:\n  uid: 5\n");
}

TEST(SetKeyTest, Refuses) {
  const struct {
    std::string text;
    const char* key;
    std::string value;
    const char* sentence;
  } kCases[] = {
      {"cpus: [\n", "cpus", "2",
       "Cannot accept 'config.yaml': line 1, column 7: a bracket that "
       "is opened here never closes"},
      {"start", "cpus", "2",
       "Cannot set 'cpus': line 1, column 1: 'config.yaml' is no map here; "
       "change it in config.yaml by hand"},
      {"ssh: 22", "ssh.localPort", "2",
       "Cannot set 'ssh.localPort': line 1, column 6: 'ssh' is no map here; "
       "change it in config.yaml by hand"},
      {"ssh: [22]", "ssh.localPort", "",
       "Cannot remove 'ssh.localPort': line 1, column 6: 'ssh' is no map "
       "here; change it in config.yaml by hand"},
      {"cpus: {a: 2}", "cpus", "2",
       "Cannot set 'cpus': line 1, column 7: 'cpus' is a list or a map here; "
       "change it in config.yaml by hand"},
      {"cpus: 2", "description", "a\x1b",
       "Cannot set 'description': the value has control characters or is not "
       "UTF-8; remove them"},
      {"cpus: 2", "description", "\xff",
       "Cannot set 'description': the value has control characters or is not "
       "UTF-8; remove them"},
      {"cpus: 2", "description", std::string("a\0", 2),
       "Cannot set 'description': the value has control characters or is not "
       "UTF-8; remove them"},
      {"? ssh\n:\n  x: 1\n", "ssh.localPort", "2",
       "Cannot set 'ssh.localPort': the text is laid out in a way that "
       "cannot be edited in place; change it in config.yaml by hand"},
  };
  for (const auto& [text, key, value, sentence] : kCases) {
    try {
      ADD_FAILURE() << text << " became " << SetKey(text, key, value);
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EINVAL);
      EXPECT_EQ(error.Sentence(), sentence) << text;
    }
  }
}

TEST(SetKeyTest, EveryKeyOfTheSkeletonGoesInAndOutAgain) {
  const Spec defaults = ParseSpec({{"built-in", BuiltInLayer("debian")}});
  const std::string skeleton = Skeleton(defaults);
  const std::pair<const char*, const char*> kKeys[] = {
      {"cpus", "4"},
      {"memory", "3GiB"},
      {"disk", "7GiB"},
      {"arch", "x86_64"},
      {"description", "a: b"},
      {"autostart", "true"},
      {"user.name", "alice"},
      {"user.uid", "7"},
      {"user.home", "/h"},
      {"user.shell", "/s"},
      {"user.comment", "C"},
      {"ssh.localPort", "2222"},
      {"ssh.loadDotSSHPubKeys", "true"},
      {"firmware.legacyBIOS", "true"},
      {"cpuType.x86_64", "max"}};
  std::string all = skeleton;
  for (const auto& [key, value] : kKeys) {
    SCOPED_TRACE(key);
    const std::string set = SetKey(skeleton, key, value);
    const auto differences =
        Differences(ParseSpec({{"config.yaml", set}}), Spec());
    ASSERT_EQ(differences.size(), 1U);
    EXPECT_TRUE(std::string(key).starts_with(differences[0]));
    EXPECT_EQ(SetKey(set, key, ""), skeleton);
    all = SetKey(all, key, value);
  }
  EXPECT_EQ(Differences(ParseSpec({{"config.yaml", all}}), Spec()).size(), 15U);
  for (const auto& [key, value] : kKeys) all = SetKey(all, key, "");
  EXPECT_EQ(all, skeleton);
}

TEST(SetKeyTest, TheSkeletonWithASetKeyReadsWell) {
  const Spec defaults = ParseSpec({{"built-in", BuiltInLayer("debian")}});
  const std::string text =
      SetKey(SetKey(Skeleton(defaults), "cpus", "4"), "ssh.localPort", "2222");
  EXPECT_NE(text.find("# cpus: 2\ncpus: 4\n# memory: 1GiB\n"),
            std::string::npos);
  EXPECT_NE(text.find("#   loadDotSSHPubKeys: false\nssh:\n  localPort: 2222\n"
                      "\n# Boot"),
            std::string::npos);
}

}  // namespace
}  // namespace sbxfs
