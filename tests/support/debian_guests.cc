#include "tests/support/debian_guests.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <vector>

#include "backend/util/text.h"
#include "tests/support/secrets.h"

namespace sbxfs {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

namespace {

const stdfs::path kPool = "/var/lib/libvirt/sbxfs";

}  // namespace

stdfs::path GuestImage() {
  const char* image = std::getenv("SBXFS_TEST_IMAGE");
  return image == nullptr ? "" : image;
}

std::string NoBootBecause() {
  if (auto why = NoGuestsBecause(); !why.empty()) return why;
  if (!GuestImage().empty()) return "";
  return "needs a guest image: set SBXFS_TEST_IMAGE to its path";
}

void KeepTemplate() {
  const char* place = std::getenv("SBXFS_TEST_POOL");
  if (place == nullptr) return;
  stdfs::remove_all(place);
  stdfs::create_directories(place);
  std::vector<std::string> command = {"cp", "-a", "-t", place,
                                      kPool / "image.debian-12"};
  for (const auto& entry : stdfs::directory_iterator(kPool)) {
    const std::string name = entry.path().filename();
    if (name.find(".warm.") == std::string::npos) continue;
    const std::string number = name.substr(name.rfind('.'));
    for (const char* kind : {".disk", ".memory", ".warm"}) {
      command.push_back(kPool / (name.substr(0, 36) + kind + number));
    }
  }
  const Ended copied = RunProgram(command);
  EXPECT_EQ(copied.status, 0) << copied.err;
}

bool BringTemplate() {
  const char* place = std::getenv("SBXFS_TEST_POOL");
  if (place == nullptr || !stdfs::exists(place)) return false;
  stdfs::create_directory(kPool);
  stdfs::permissions(kPool, stdfs::perms(0711));
  // As old as they were: a template goes with what it was made of.
  if (RunProgram({"cp", "-a", std::string(place) + "/.", kPool}).status != 0) {
    return false;
  }
  // Of a second test in one libvirtd the pool is there.
  (void)RunProgram({"virsh", "-q", "pool-refresh", "sbxfs"});
  return true;
}

std::string CertificateOf(const stdfs::path& box, const stdfs::path& key) {
  const Ended ended = RunProgram(
      {"sh", "-c", "exec 3<>\"$1/ssh_cert\"; cat \"$2\" >&3; cat <&3", "sh",
       box.string(), key.string()});
  EXPECT_EQ(ended.status, 0) << ended.err << ended.out;
  return ended.out;
}

void DebianGuests::SetUp() {
  if (const auto why = NoBootBecause(); !why.empty()) GTEST_SKIP() << why;
  const bool warm = boots_ == Boots::kLeavesATemplate ||
                    (boots_ == Boots::kWarmIfItCan && BringTemplate());
  mount_ = std::make_unique<GuestMount>(std::string(warm ? "" : "cold,") +
                                        "start_timeout=600,stop_timeout=90");
  const stdfs::path image = Host() / "images/debian-12";
  if (stdfs::exists(image)) return;
  ASSERT_EQ(RunProgram({"cp", GuestImage(), image}).status, 0);
}

void DebianGuests::TearDown() {
  if (mount_ == nullptr) return;
  ExpectNoSecrets(mount_->Dir());
  Clear(mount_->Dir());
  // Layers go a moment after the last sandbox that stood on them.
  const stdfs::path image = Host() / "images/debian-12";
  // One that libvirt was late with may have come to its end all the same.
  EXPECT_TRUE(Eventually([&] {
    return unlink(image.c_str()) == 0 || errno == ENOENT;
  })) << ReadText(Host() / "error")
      << testing::PrintToString(Volumes("."));
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

void DebianGuests::Make(const std::string& name, const std::string& config) {
  ASSERT_EQ(mkdir((Dir() / name).c_str(), 0700), 0);
  std::ofstream(Dir() / name / "config.yaml") << config;
  ASSERT_EQ(ReadText(Dir() / name / "error"), "");
}

std::string DebianGuests::Job(const std::string& name,
                              const std::string& script) {
  const stdfs::path job = Dir() / name / "exec/one";
  EXPECT_EQ(mkdir(job.c_str(), 0700), 0);
  EXPECT_EQ(WriteText(job / "command", script + "\n"), Verdict{})
      << ReadText(job / "stderr");
  std::string said(Trim(ReadText(job / "stdout")));
  EXPECT_EQ(rmdir(job.c_str()), 0);
  return said;
}

bool DebianGuests::Says(const std::string& name, const std::string& words) {
  return Eventually([&] {
    return ReadText(Dir() / name / "progress").find(words) != std::string::npos;
  });
}

std::vector<stdfs::path> DebianGuests::Volumes(std::string_view kind) {
  std::vector<stdfs::path> found;
  for (const auto& entry : stdfs::directory_iterator(kPool)) {
    if (entry.path().native().find(kind) != std::string::npos) {
      found.push_back(entry.path());
    }
  }
  return found;
}

DebianGuests::Names DebianGuests::NamesOf(const std::string& name) {
  const auto before = static_cast<double>(time(nullptr));
  const std::string said =
      Job(name,
          "hostname; cat /etc/machine-id /sys/class/net/eth0/address; "
          "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '; date +%s; "
          "ip -4 -br address show eth0");
  const auto lines = Split(said, '\n');
  if (lines.size() != 6) {
    ADD_FAILURE() << said;
    return {};
  }
  const auto clock = static_cast<double>(ParseNumber(lines[4]).value_or(0));
  EXPECT_GT(clock, before - 3);
  EXPECT_LT(clock, static_cast<double>(time(nullptr)) + 3);
  EXPECT_NE(lines[5].find("192.168.5.15/24"), std::string_view::npos)
      << lines[5];
  return {std::string(lines[0]), std::string(lines[1]), std::string(lines[2]),
          std::string(lines[3])};
}

}  // namespace sbxfs
