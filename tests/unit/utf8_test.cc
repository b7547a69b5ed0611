#include "backend/util/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace sbxfs {
namespace {

constexpr auto kPlain = std::string_view::npos;

TEST(Utf8Test, FindNotPlain) {
  const std::pair<std::string, std::size_t> kCases[] = {
      {"", kPlain},
      {"a\tb\r\nc ~", kPlain},
      {"\xc2\xa0", kPlain},
      {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbd", kPlain},
      {"\xef\xbb\xbf", kPlain},
      {std::string(1, '\0'), 0},
      {"ab\x1b", 2},
      {"\x7f", 0},
      {"\xc2\x80", 0},          // a control character
      {"\xc2\x9f", 0},          // another
      {"a\x80", 1},             // continuation alone
      {"a\xc3", 1},             // cut off
      {"a\xe2\x82", 1},         // cut off
      {"\xc3(", 0},             // no continuation
      {"\xc1\xbf", 0},          // longer than need be
      {"\xe0\x9f\xbf", 0},      // longer than need be
      {"\xf0\x8f\xbf\xbf", 0},  // longer than need be
      {"\xed\xa0\x80", 0},      // a surrogate
      {"\xef\xbf\xbe", 0},      // U+FFFE
      {"\xef\xbf\xbf", 0},      // U+FFFF
      {"\xf4\x90\x80\x80", 0},  // above U+10FFFF
      {"\xf8\x88\x80\x80\x80", 0}};
  for (const auto& [text, at] : kCases) {
    EXPECT_EQ(FindNotPlain(text), at) << text;
  }
}

TEST(Utf8Test, IsPlainLine) {
  EXPECT_TRUE(IsPlainLine(""));
  EXPECT_TRUE(IsPlainLine("a \xc3\xa9"));
  for (const char* bad : {"a\n", "\ta", "a\rb", "\x1b", "\xff"}) {
    EXPECT_FALSE(IsPlainLine(bad)) << bad;
  }
}

}  // namespace
}  // namespace sbxfs
