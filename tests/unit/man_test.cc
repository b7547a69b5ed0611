#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

#include "backend/backend.h"
#include "fs/layout.h"

// sbxfs(5) and the table of the tree tell the same.

namespace sbxfs {
namespace {

// The items of a list in a section: `.It MACRO NAME …`.
std::set<std::string> Items(const std::string& section,
                            const std::string& macro) {
  std::ifstream page(SBXFS_SOURCE_DIR "/man/sbxfs.5");
  EXPECT_TRUE(page.good());
  const std::string item = ".It " + macro + " ";
  std::set<std::string> names;
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with(".Sh ")) inside = line == ".Sh " + section;
    if (!inside || !line.starts_with(item)) continue;
    const std::string rest = line.substr(item.size());
    EXPECT_TRUE(names.insert(rest.substr(0, rest.find(' '))).second) << rest;
  }
  return names;
}

std::set<std::string> Table(DirKind dir) {
  std::set<std::string> names;
  for (const Row& row : Rows(dir)) names.emplace(row.name);
  return names;
}

// The text of an item, up to the next.
std::string Text(const std::string& section, std::string_view name) {
  std::ifstream page(SBXFS_SOURCE_DIR "/man/sbxfs.5");
  std::string text;
  bool inside = false;
  bool found = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with(".Sh ")) inside = line == ".Sh " + section;
    if (line.starts_with(".It ") || line.starts_with(".El")) found = false;
    if (inside && line == ".It Pa " + std::string(name)) found = true;
    if (found) text += line + '\n';
  }
  return text;
}

TEST(Man, TellsOfEveryFileAndNoOther) {
  EXPECT_EQ(Items("THE ROOT", "Pa"), Table(DirKind::kRoot));
  EXPECT_EQ(Items("THE HOST", "Pa"), Table(DirKind::kHost));
  EXPECT_EQ(Items("A HYPERVISOR", "Pa"), Table(DirKind::kHypervisor));
  EXPECT_EQ(Items("A NETWORK", "Pa"), Table(DirKind::kNetwork));
  EXPECT_EQ(Items("A SANDBOX", "Pa"), Table(DirKind::kSandbox));
  EXPECT_EQ(Items("A SNAPSHOT", "Pa"), Table(DirKind::kSnapshot));
  EXPECT_EQ(Items("A JOB", "Pa"), Table(DirKind::kJob));
}

TEST(Man, TellsFormAndMode) {
  const std::pair<const char*, DirKind> kSections[] = {
      {"THE HOST", DirKind::kHost},
      {"A HYPERVISOR", DirKind::kHypervisor},
      {"A NETWORK", DirKind::kNetwork},
      {"A SANDBOX", DirKind::kSandbox},
      {"A SNAPSHOT", DirKind::kSnapshot},
      {"A JOB", DirKind::kJob}};
  for (const auto& [section, dir] : kSections) {
    for (const Row& row : Rows(dir)) {
      if (row.form == Form::kDirectory) continue;
      const std::string text = Text(section, row.name);
      char mode[16];
      std::snprintf(mode, sizeof(mode), "Mode %04o", row.mode);
      EXPECT_NE(text.find(mode), std::string::npos) << row.name;
      EXPECT_EQ(text.find(".Em poll") != std::string::npos, row.poll)
          << row.name;
      EXPECT_EQ(text.find(", a document") != std::string::npos,
                row.form == Form::kDocument)
          << row.name;
    }
  }
}

TEST(Man, TellsOfEveryStateAndVerb) {
  std::set<std::string> states;
  for (int i = 0; i <= static_cast<int>(State::kUnreachable); ++i) {
    states.emplace(StateName(static_cast<State>(i)));
  }
  EXPECT_EQ(Items("STATES", "Li"), states);
  std::set<std::string> verbs = {"wait"};
  for (int i = 0; i <= static_cast<int>(Verb::kDestroy); ++i) {
    verbs.emplace(VerbName(static_cast<Verb>(i)));
  }
  EXPECT_EQ(Items("VERBS", "Li"), verbs);
}

}  // namespace
}  // namespace sbxfs
