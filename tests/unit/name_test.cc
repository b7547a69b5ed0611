#include "fs/name.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

int Verdict(const std::string& text) {
  try {
    EXPECT_EQ(Name::Parse("make", text).Text(), text);
    EXPECT_TRUE(Name::Valid(text));
    return 0;
  } catch (const Error& error) {
    EXPECT_FALSE(Name::Valid(text));
    EXPECT_EQ(error.Sentence().find("Cannot make '" + text + "': "), 0u);
    EXPECT_NE(error.Sentence().back(), '.');
    return error.Errno();
  }
}

TEST(Name, Good) {
  for (const char* name : {"a", "0", "box", "Box-1.2_x", "a.yaml.b", "yaml"}) {
    EXPECT_EQ(Verdict(name), 0) << name;
  }
  EXPECT_EQ(Verdict(std::string(58, 'x')), 0);
}

TEST(Name, Bad) {
  for (const char* name : {"", ".", "..", ".host", "-a", "_a", "a b", "a/b",
                           "a\n", "\xc3\xa4", "a.yaml", ".yaml"}) {
    EXPECT_EQ(Verdict(name), EINVAL) << name;
  }
  EXPECT_EQ(Verdict(std::string(59, 'x')), ENAMETOOLONG);
}

TEST(Name, StripYaml) {
  EXPECT_EQ(StripYaml("box.yaml"), "box");
  EXPECT_EQ(StripYaml("box"), "");
  EXPECT_EQ(StripYaml(".yaml"), "");
  EXPECT_EQ(StripYaml(".box.yaml"), "");
  EXPECT_EQ(StripYaml("box.yaml.yaml"), "");
}

}  // namespace
}  // namespace sbxfs
