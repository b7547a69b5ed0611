// The tests that tests/promises and tests/manners name are there.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

std::string TextOf(const stdfs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::set<std::string> AllTests(const stdfs::path& tests) {
  std::set<std::string> there;
  static const std::regex kTest(R"(TEST(?:_F|_P)?\((\w+),\s*(\w+)\))");
  for (const auto& entry : stdfs::recursive_directory_iterator(tests)) {
    if (entry.path().extension() != ".cc") continue;
    const std::string text = TextOf(entry.path());
    for (auto at = std::sregex_iterator(text.begin(), text.end(), kTest);
         at != std::sregex_iterator(); ++at) {
      there.insert((*at)[1].str() + "." + (*at)[2].str());
    }
  }
  return there;
}

TEST(PromisesTest, EachHasATest) {
  const stdfs::path tests = stdfs::path(SBXFS_SOURCE_DIR) / "tests";
  const std::set<std::string> there = AllTests(tests);
  for (const char* list : {"promises", "manners"}) {
    const std::string text = TextOf(tests / list);
    int count = 0;
    for (const std::string_view line : Split(text, '\n')) {
      if (line.empty() || line.starts_with('#')) continue;
      const auto bar = line.find(" | ");
      ASSERT_NE(bar, line.npos) << line;
      const std::string_view by = line.substr(bar + 3);
      if (by.starts_with("not: ")) continue;
      for (const std::string_view name : Split(by, ',')) {
        ++count;
        EXPECT_TRUE(there.contains(std::string(Trim(name)))) << name;
      }
    }
    EXPECT_GT(count, 40) << list;
  }
}

}  // namespace
}  // namespace sbxfs
