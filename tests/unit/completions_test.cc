#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>

#include "fs/options.h"

// The completions of the shells and the program's options tell the same. How
// they complete is tested by tests/package/shells.

namespace sbxfs {
namespace {

using testing::Contains;
using OptionSet = std::set<std::string>;

std::string Completion(const std::string& name) {
  std::ifstream file(SBXFS_SOURCE_DIR "/mount-helper/completions/" + name);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

// What lies between two words.
std::string TextBetween(const std::string& text, std::string_view from,
                        std::string_view to) {
  const auto begin = text.find(from);
  if (begin == text.npos) return "";
  const auto start = begin + from.size();
  return text.substr(start, text.find(to, start) - start);
}

// Words of letters, with the dashes before and the = after them.
OptionSet WordsOf(const std::string& text) {
  OptionSet words;
  std::string word;
  for (const char c : text + ' ') {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' ||
        c == '=') {
      word += c;
    } else if (!word.empty()) {
      words.insert(word);
      word.clear();
    }
  }
  return words;
}

// The names in what _values of zsh is told, as NAME[TEXT]:VALUE:ACTION.
OptionSet ValuesOf(const std::string& text) {
  std::string rest;
  char until = '\0';
  for (const char c : text) {
    if (until != '\0') {
      if (c == until) until = '\0';
    } else if (c == '[') {
      until = ']';
    } else if (c == ':') {
      rest += "= ";
      until = '\'';
    } else {
      rest += c;
    }
  }
  return WordsOf(rest);
}

OptionSet AfterO() {
  OptionSet names;
  for (const std::string_view name : OptionNames()) {
    if (!name.starts_with('-')) names.emplace(name);
  }
  return names;
}

OptionSet Switches() {
  OptionSet names = {"-o"};
  for (const std::string_view name : OptionNames()) {
    if (name.starts_with('-')) names.emplace(name);
  }
  return names;
}

TEST(Completions, OfBashHaveTheProgramsOptions) {
  const std::string text = Completion("sbxfs.bash");
  EXPECT_EQ(WordsOf(TextBetween(text, "options='", "'")), AfterO());
  EXPECT_EQ(WordsOf(TextBetween(text, "switches='", "'")), Switches());
}

TEST(Completions, OfZshHaveTheProgramsOptions) {
  const std::string text = Completion("_sbxfs");
  EXPECT_EQ(ValuesOf(TextBetween(text, "_values -s , option", "\n}")),
            AfterO());
  const std::string arguments = TextBetween(text, "_arguments", "'*:URI");
  for (const std::string& name : Switches()) {
    EXPECT_THAT(WordsOf(arguments), Contains(name));
  }
}

TEST(Completions, OfFishHaveTheProgramsOptions) {
  const std::string text = Completion("sbxfs.fish");
  OptionSet names;
  const std::string list = TextBetween(text, "case '*'", "\n    end");
  for (const std::string& word : WordsOf(list)) {
    if (word != "said" && word != "printf" && word != "s" && word != "n") {
      names.insert(word);
    }
  }
  EXPECT_EQ(names, AfterO());
  for (const std::string& name : Switches()) {
    const bool is_long = name.starts_with("--");
    EXPECT_THAT(text,
                testing::ContainsRegex((is_long ? " -l " : " -s ") +
                                       name.substr(is_long ? 2 : 1) + " "));
  }
}

}  // namespace
}  // namespace sbxfs
