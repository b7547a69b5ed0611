#include "backend/guest/exec_script.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace sbxfs {
namespace {

using Kind = JobReport::Kind;

TEST(ExecScript, ParsesAReport) {
  const JobReport report = ParseJobReport("3 late,err 4 2\nabcdef", 0, 0);
  EXPECT_EQ(report.kind, Kind::kEnded);
  EXPECT_EQ(report.status, 3);
  EXPECT_TRUE(report.late);
  EXPECT_FALSE(report.out_cut);
  EXPECT_TRUE(report.err_cut);
  EXPECT_EQ(report.out, "abcd");
  EXPECT_EQ(report.err, "ef");
  const JobReport later = ParseJobReport("runs - 4 2\nd", 3, 2);
  EXPECT_EQ(later.kind, Kind::kRuns);
  EXPECT_FALSE(later.late);
  EXPECT_EQ(later.out_size, 4u);
  EXPECT_EQ(later.out, "d");
  EXPECT_EQ(later.err, "");
  EXPECT_EQ(ParseJobReport("gone\n", 0, 0).kind, Kind::kGone);
  EXPECT_EQ(ParseJobReport("lost - 0 0\n", 0, 0).kind, Kind::kLost);
  const JobReport refused = ParseJobReport("refused no 'x'\tthere\n", 0, 0);
  EXPECT_EQ(refused.kind, Kind::kRefused);
  EXPECT_EQ(refused.words, "no 'x' there");
}

TEST(ExecScript, TakesNoPieceForALongOne) {
  const std::string piece(10, 'x');
  EXPECT_EQ(ParseJobReport("0 - 100 0\n" + piece, 0, 0, 10).out, piece);
}

TEST(ExecScript, ThrowsForNonsense) {
  for (const char* text :
       {"", "0 no 0 0", "\n", "256 no 0 0\n", "-1 no 0 0\n", "0 no 3 0\nab",
        "0 no 1 0\nab", "0 no 0\n", "0 no 0 0 0\n", "done no 0 0\n",
        "0 no 99999999999999999999999 0\n", "\xff\xfe\n"}) {
    try {
      (void)ParseJobReport(text, 0, 0);
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EPROTO) << text;
    }
  }
}

TEST(ExecScript, QuotesWhatIsTheUsers) {
  JobWish wish;
  wish.words = {"it's", "$HOME"};
  wish.env = {"A=b'c"};
  wish.cwd = "/a b";
  wish.user = "joe";
  wish.deadline = std::chrono::seconds(9);
  const std::string script = JobScript("1.f00", wish);
  EXPECT_TRUE(script.starts_with("id=1.f00\n"));
  for (const char* line :
       {"\nuser='joe'\n", "\nhow=argv\n", "\ncwd='/a b'\n", "\ndeadline=9\n",
        "\ntogether=no\n", "\n  export 'A=b'\\''c'\n"}) {
    EXPECT_NE(script.find(line), std::string::npos) << line;
  }
  EXPECT_TRUE(script.ends_with("\nJob 'it'\\''s' '$HOME'"));
}

}  // namespace
}  // namespace sbxfs
