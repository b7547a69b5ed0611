#include "backend/util/text.h"

#include <gtest/gtest.h>

#include <string>

namespace sbxfs {
namespace {

using std::chrono::seconds;

TEST(Text, Trim) {
  EXPECT_EQ(Trim("  a b\r\n"), "a b");
  EXPECT_EQ(Trim("\t\n "), "");
  EXPECT_EQ(Trim(""), "");
  EXPECT_EQ(Trim("a"), "a");
}

TEST(Text, Split) {
  using Parts = std::vector<std::string_view>;
  EXPECT_EQ(Split("a,b,c", ','), (Parts{"a", "b", "c"}));
  EXPECT_EQ(Split(",a,", ','), (Parts{"", "a", ""}));
  EXPECT_EQ(Split("", ','), (Parts{""}));
}

TEST(Text, ParseNumber) {
  EXPECT_EQ(ParseNumber("0"), 0);
  EXPECT_EQ(ParseNumber("18446744073709551615"), UINT64_MAX);
  for (const char* bad :
       {"", " 1", "1 ", "+1", "-1", "0x10", "1.0", "18446744073709551616"}) {
    EXPECT_EQ(ParseNumber(bad), std::nullopt) << bad;
  }
}

TEST(Text, ParseDuration) {
  const struct {
    const char* text;
    long expected;
  } kGood[] = {{"0", 0},        {"90", 90},           {"90s", 90},
               {"15m", 900},    {"2h", 7200},         {"1d", 86400},
               {"1h30m", 5400}, {" 1d12h\n", 129600}, {"0s", 0}};
  for (const auto& [text, expected] : kGood) {
    EXPECT_EQ(ParseDuration(text), seconds(expected)) << text;
  }
  for (const char* bad :
       {"", " ", "d", "1w", "-1", "1.5h", "1h30", "1 d", "1dd", "1D",
        "99999999999999999999", "99999999999d", "400000d"}) {
    EXPECT_EQ(ParseDuration(bad), std::nullopt) << bad;
  }
}

TEST(Text, FormatDurationReadsBack) {
  EXPECT_EQ(FormatDuration(seconds(86400)), "1d");
  EXPECT_EQ(FormatDuration(seconds(5400)), "90m");
  EXPECT_EQ(FormatDuration(seconds(7200)), "2h");
  EXPECT_EQ(FormatDuration(seconds(61)), "61s");
  EXPECT_EQ(FormatDuration(seconds(0)), "0s");
  for (const long count : {0L, 1L, 60L, 3600L, 90061L, 864000L}) {
    EXPECT_EQ(ParseDuration(FormatDuration(seconds(count))), seconds(count));
  }
}

TEST(Text, ParseSize) {
  const struct {
    const char* text;
    std::uint64_t expected;
  } kGood[] = {{"0", 0},
               {"1000", 1000},
               {"512b", 512},
               {"4GiB", 4ULL << 30},
               {"4gib", 4ULL << 30},
               {"4 GiB", 4ULL << 30},
               {"10G", 10ULL << 30},
               {"1Ki", 1024},
               {"512MB", 512ULL << 20},
               {"1GB", 1ULL << 30},
               {"1kB", 1024},
               {"2TiB", 2ULL << 40},
               {"3PB", 3ULL << 50},
               {"1.5GiB", 3ULL << 29},
               {"0.5K", 512},
               {".5G", 1ULL << 29},
               {"1.", 1},
               {"2.M", 2ULL << 20},
               {"1.5", 1}};
  for (const auto& [text, expected] : kGood) {
    EXPECT_EQ(ParseSize(text), expected) << text;
  }
  for (const char* bad :
       {"", "GiB", "-1", "+1G", ".", ".G", "1..5G", "1,5G", "1E", "1GG", "1iB",
        "4GiBs", "0x10", "9223372036854775808", "8192PiB", "9000.5PiB"}) {
    EXPECT_EQ(ParseSize(bad), std::nullopt) << bad;
  }
}

TEST(Text, FormatSizeReadsBack) {
  EXPECT_EQ(FormatSize(0), "0");
  EXPECT_EQ(FormatSize(4ULL << 30), "4GiB");
  EXPECT_EQ(FormatSize(1536ULL << 20), "1536MiB");
  EXPECT_EQ(FormatSize(1000), "1000");
  for (const std::uint64_t size :
       {0ULL, 1ULL, 1000ULL, 1024ULL, 1000000000ULL, 4ULL << 30, 5ULL << 50}) {
    EXPECT_EQ(ParseSize(FormatSize(size)), size);
  }
}

TEST(Text, NearestName) {
  const std::vector<std::string_view> names = {"status", "start", "stop",
                                               "memory", "cpus"};
  EXPECT_EQ(NearestName("statsu", names), "status");
  EXPECT_EQ(NearestName("Memroy", names), "memory");
  EXPECT_EQ(NearestName("mem", names), "memory");
  EXPECT_EQ(NearestName("cpu", names), "cpus");
  EXPECT_EQ(NearestName("sto", names), "stop");
  EXPECT_EQ(NearestName("cpus", names), "cpus");
  EXPECT_EQ(NearestName("flamingo", names), "");
  EXPECT_EQ(NearestName("", names), "");
  EXPECT_EQ(NearestName("x", {}), "");
}

TEST(Text, Base64) {
  // RFC 4648, section 10.
  const struct {
    const char* bytes;
    const char* text;
  } kVectors[] = {{"", ""},
                  {"f", "Zg=="},
                  {"fo", "Zm8="},
                  {"foo", "Zm9v"},
                  {"foob", "Zm9vYg=="},
                  {"fooba", "Zm9vYmE="},
                  {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : kVectors) {
    EXPECT_EQ(Base64Encode(bytes), text);
    EXPECT_EQ(Base64Decode(text), bytes);
  }
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(Base64Decode(Base64Encode(all)), all);
  EXPECT_EQ(Base64Decode(" Zm9v\nYmFy\r\n"), "foobar");
  for (const char* bad : {"Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9v=",
                          "Z-9v", "Zg=g", "Zm9vY"}) {
    EXPECT_EQ(Base64Decode(bad), std::nullopt) << bad;
  }
}

TEST(IsAddressTest, TakesTheWholeText) {
  EXPECT_TRUE(IsAddress("127.0.0.1"));
  EXPECT_TRUE(IsAddress("2001:db8::1"));
  EXPECT_FALSE(IsAddress("[::1]"));
  EXPECT_FALSE(IsAddress(std::string_view("127.0.0.1\0x", 11)));
}

}  // namespace
}  // namespace sbxfs
