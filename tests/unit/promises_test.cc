// The tests that tests/promises names are there.
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

TEST(PromisesTest, EachHasATest) {
  const stdfs::path tests = stdfs::path(SBXFS_SOURCE_DIR) / "tests";
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
  const std::string promises = TextOf(tests / "promises");
  int count = 0;
  for (const std::string_view line : Split(promises, '\n')) {
    if (line.empty() || line.starts_with('#')) continue;
    const auto bar = line.find(" | ");
    ASSERT_NE(bar, line.npos) << line;
    for (const std::string_view name : Split(line.substr(bar + 3), ',')) {
      ++count;
      EXPECT_TRUE(there.contains(std::string(Trim(name)))) << name;
    }
  }
  EXPECT_GT(count, 40);
}

}  // namespace
}  // namespace sbxfs
