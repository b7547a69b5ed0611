#include "tests/support/debian_guests.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "backend/util/text.h"

namespace sbxfs {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

stdfs::path GuestImage() {
  const char* image = std::getenv("SBXFS_TEST_IMAGE");
  return image == nullptr ? "" : image;
}

std::string NoBootBecause() {
  if (auto why = NoGuestsBecause(); !why.empty()) return why;
  if (!GuestImage().empty()) return "";
  return "needs a guest image: set SBXFS_TEST_IMAGE to its path";
}

void DebianGuests::SetUp() {
  if (const auto why = NoBootBecause(); !why.empty()) GTEST_SKIP() << why;
  mount_ = std::make_unique<GuestMount>("start_timeout=600,stop_timeout=90");
  ASSERT_EQ(
      RunProgram({"cp", GuestImage(), Host() / "images/debian-12"}).status, 0);
}

void DebianGuests::TearDown() {
  if (mount_ == nullptr) return;
  Clear(mount_->Dir());
  EXPECT_EQ(unlink((Host() / "images/debian-12").c_str()), 0);
  mount_->Stop();
}

void DebianGuests::Do(const std::string& file, const std::string& text) {
  Writer writer(Dir() / file, text + "\n");
  const auto verdict = writer.Ended(650s);
  ASSERT_TRUE(verdict.has_value()) << text;
  const stdfs::path box = Dir() / *stdfs::path(file).begin();
  const std::string console = ReadText(box / "console.log");
  ASSERT_EQ(*verdict, Verdict{})
      << ReadText(box / "provision.log") << "console:\n"
      << console.substr(console.size() -
                        std::min<size_t>(console.size(), 4000));
}

std::string DebianGuests::In(const std::string& name,
                             const std::string& script) {
  const Ended ended = RunProgram({"ssh", "-F", Host() / "ssh_config", "-o",
                                  "BatchMode=yes", "sbx-" + name, script},
                                 120s);
  EXPECT_EQ(ended.status, 0) << ended.err;
  return std::string(Trim(ended.out));
}

}  // namespace sbxfs
