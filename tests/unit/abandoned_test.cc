// How unfinished work is told from finished, and the dead from the living.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "backend/documents.h"
#include "backend/util/process_mark.h"

namespace sbxfs {
namespace {

// Replaces the word of that number, from 0.
std::string WithWord(const std::string& mark, int number,
                     const std::string& word) {
  size_t begin = 0;
  for (int i = 0; i < number; ++i) begin = mark.find(' ', begin) + 1;
  const size_t end = mark.find_first_of(" \n", begin);
  return mark.substr(0, begin) + word + mark.substr(end);
}

TEST(ProcessMark, TellsTheDeadFromTheLivingAndTheUnknown) {
  const std::string mine = ThisProcessMark();
  EXPECT_FALSE(IsMarkOfTheDead(mine));
  EXPECT_TRUE(IsMarkOfTheDead(WithWord(mine, 1, "an-earlier-boot")));
  EXPECT_TRUE(IsMarkOfTheDead(WithWord(mine, 3, "999999999")));
  // The pid is another process's by now.
  EXPECT_TRUE(IsMarkOfTheDead(WithWord(mine, 4, "1")));
  EXPECT_FALSE(IsMarkOfTheDead(WithWord(mine, 0, "another-machine")));
  EXPECT_FALSE(
      IsMarkOfTheDead(WithWord(WithWord(mine, 2, "pid:[1]"), 3, "999999999")));
  for (const char* none : {"", "\n", "some words", "a b c d e f"}) {
    EXPECT_FALSE(IsMarkOfTheDead(none)) << none;
  }
}

TEST(ProcessMark, OfAProcessThatEnded) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::string mark = ThisProcessMark();
    _exit(write(ends[1], mark.data(), mark.size()) < 0 ? 1 : 0);
  }
  char buffer[512];
  const ssize_t got = read(ends[0], buffer, sizeof buffer);
  ASSERT_GT(got, 0);
  close(ends[0]);
  close(ends[1]);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(IsMarkOfTheDead(std::string(buffer, static_cast<size_t>(got))));
}

TEST(Documents, ACutOffTextIsNone) {
  for (const std::string text : {"", "cpus: 2\n", "# a\n\n# b", "\n"}) {
    const std::string sealed = SealText(text);
    EXPECT_EQ(UnsealText(sealed), text);
    for (size_t length = 0; length < sealed.size(); ++length) {
      EXPECT_EQ(UnsealText(sealed.substr(0, length)), std::nullopt) << length;
    }
    std::string zeros = sealed;
    zeros.back() = '\0';
    EXPECT_EQ(UnsealText(zeros), std::nullopt);
    EXPECT_EQ(UnsealText(sealed + "x"), std::nullopt);
  }
  EXPECT_EQ(UnsealText("cpus: 2\n"), std::nullopt);
}

}  // namespace
}  // namespace sbxfs
