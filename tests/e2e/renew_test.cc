// Templates that another sbxfs left.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class RenewTest : public DebianGuests {
 protected:
  RenewTest() : DebianGuests(Boots::kWarmIfItCan) {}
};

// Another digest of what its guest was given.
void MakeItAnothers(const stdfs::path& state) {
  std::fstream file(state, std::ios::in | std::ios::out | std::ios::binary);
  std::string head(1 << 16, '\0');
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  file.clear();
  constexpr char kBefore[] = " scripts=\"";
  const size_t at = head.find(kBefore);
  ASSERT_NE(at, head.npos);
  file.seekp(static_cast<std::streamoff>(at + sizeof kBefore - 1));
  file << "another";
}

TEST_F(RenewTest, OneOfAnotherSbxfsIsUsedAndMadeAnew) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long: a boot";
  if (Volumes(".warm.").empty()) {
    GTEST_SKIP() << "needs a template: set SBXFS_TEST_POOL to where WarmTest "
                    "left one";
  }
  const stdfs::path old = Volumes(".warm.").front();
  ASSERT_NO_FATAL_FAILURE(MakeItAnothers(old));
  Make("first", kWarmConfig);
  {
    Writer start(Dir() / "first/status", "start\n");
    EXPECT_TRUE(Says("first", "going on from a template"))
        << ReadText(Dir() / "first/progress");
    ASSERT_EQ(start.Ended(60s), Verdict{}) << ReadText(Dir() / "first/error");
  }
  EXPECT_TRUE(Eventually([&] {
    const std::string warm = ReadText(Host() / "warm");
    return warm.find(", of another sbxfs\n") != warm.npos &&
           warm.find("being made") != warm.npos;
  })) << ReadText(Host() / "warm");
  // Meanwhile it is there for others.
  Make("second", kWarmConfig);
  Do("second/status", "start");
  EXPECT_EQ(Volumes(".warm."), std::vector{old});

  ASSERT_TRUE(Eventually([&] { return !stdfs::exists(old); }, 650s))
      << ReadText(Host() / "warm");
  ASSERT_EQ(Volumes(".warm.").size(), 1U);
  EXPECT_TRUE(Eventually([&] {
    const std::string warm = ReadText(Host() / "warm");
    return warm.starts_with("debian-12: cpus 1, memory 512MiB, ") &&
           warm.find("another sbxfs") == warm.npos &&
           warm.find("being made") == warm.npos;
  })) << ReadText(Host() / "warm");
  // Who goes on from the old one has its memory still, and keeps its disk.
  const std::string name = old.filename();
  const stdfs::path disk = old.parent_path() / (name.substr(0, 36) + ".disk" +
                                                name.substr(name.rfind('.')));
  EXPECT_TRUE(stdfs::exists(disk));
  EXPECT_EQ(Job("first", "sudo cat /etc/shadow | grep -c joe; hostname"),
            "1\nlima-first");
  Make("third", kWarmConfig);
  const Stopwatch watch;
  Do("third/status", "start");
  fmt::print("ready from the new one {:.1f} s\n", watch.Seconds());
  EXPECT_EQ(Job("third", "hostname"), "lima-third");
  Clear(Dir());
  EXPECT_TRUE(Eventually([&] { return !stdfs::exists(disk); }));
}

}  // namespace
}  // namespace sbxfs
