// A pool without room: what is refused says how much is missing and where, and
// leaves nothing.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "backend/util/process_mark.h"
#include "backend/util/text.h"
#include "tests/qemu/refusals.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

constexpr uint64_t kKiB = 1024;
constexpr char kRemedy[] =
    "rmdir what is in .host/trash, or rm images, or make it larger";

// Zeros would be kept as holes, and take no room.
std::string SolidDisk() {
  std::string disk = BlankDisk();
  std::fill(disk.begin() + 512, disk.end(), 'x');
  return disk;
}

class FullPoolTest : public RefusalTest {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    pool_ = stdfs::path(std::getenv("SBXFS_INSIDE")) / "small";
    stdfs::create_directory(pool_);
    ASSERT_EQ(mount("small", pool_.c_str(), "tmpfs", 0, "size=4m"), 0);
    Virsh({"pool-define-as", "small", "dir", "--target", pool_.string()});
    // Held here, the lease of the background work takes no page of it while
    // pages are counted.
    std::ofstream(pool_ / "lease.background") << ThisProcessMark();
    Virsh({"pool-start", "small"});
    BlankGuests::SetUp();
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    GiveRoom();
    BlankGuests::TearDown();
    Virsh({"pool-destroy", "small"});
    Virsh({"pool-undefine", "small"});
    EXPECT_EQ(umount(pool_.c_str()), 0);
  }
  [[nodiscard]] std::string Options() const override {
    return std::string(kOptions) + ",pool=small";
  }

  // A file of somebody else's that leaves so many bytes, whole pages.
  void LeaveRoom(uint64_t bytes) {
    GiveRoom();
    struct statvfs info {};
    ASSERT_EQ(statvfs(pool_.c_str(), &info), 0);
    std::ofstream(pool_ / "filler")
        << std::string(info.f_bavail * info.f_frsize - bytes, 'x');
  }
  void GiveRoom() { stdfs::remove(pool_ / "filler"); }
  // What lies in it, with sizes, but for what is made and removed by itself.
  [[nodiscard]] std::string Files() const {
    std::set<std::string> lines;
    for (const auto& entry : stdfs::directory_iterator(pool_)) {
      const std::string name = entry.path().filename();
      if (name.starts_with("lease.")) continue;
      lines.insert(fmt::format("{} {}\n", name, entry.file_size()));
    }
    std::string text;
    for (const auto& line : lines) text += line;
    return text;
  }
  [[nodiscard]] std::string Lack(uint64_t needed, uint64_t missing) const {
    return fmt::format(
        "the pool 'small' is full: of {} that are needed {} are missing in {}; "
        "{}",
        FormatSize(needed), FormatSize(missing), pool_.string(), kRemedy);
  }
  [[nodiscard]] std::string More(uint64_t room) const {
    return fmt::format(
        "the pool 'small' is full: more is needed than the {}KiB that were "
        "free in {}; {}",
        room / kKiB, pool_.string(), kRemedy);
  }

  stdfs::path pool_;
};

TEST_F(FullPoolTest, MkdirSaysWhatIsMissingAndLeavesNothing) {
  Mkdir("first");
  const std::string uuid = Virsh({"domuuid", "first"});
  struct stat disk {};
  ASSERT_EQ(stat((pool_ / (uuid + ".disk")).c_str(), &disk), 0);
  const uint64_t disk_room = static_cast<uint64_t>(disk.st_blocks) * 512;
  const uint64_t seed = stdfs::file_size(pool_ / (uuid + ".seed"));
  for (const uint64_t room : {uint64_t{0}, 4 * kKiB, 100 * kKiB}) {
    LeaveRoom(room);
    const std::string before = Files();
    Refused(Make("box"), ENOSPC,
            "Cannot create 'box': " + Lack(256 * kKiB, 256 * kKiB - room));
    EXPECT_EQ(Files(), before);
  }
  LeaveRoom(disk_room + 4 * kKiB);
  const std::string before = Files();
  Refused(Make("box"), ENOSPC,
          "Cannot create 'box': " + Lack(seed, seed - 4 * kKiB));
  EXPECT_EQ(Files(), before);
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "first");
  GiveRoom();
  Mkdir("box");
}

TEST_F(FullPoolTest, AnImageThatDoesNotFitIsRefusedAndNotKept) {
  const std::string before = Files();
  LeaveRoom(2048 * kKiB);
  const std::string image = Host() / "images/large";
  // The mark beside it takes a page.
  const std::string sentence =
      "Cannot write image 'large': " + More(2044 * kKiB);
  const std::string bytes = SolidDisk();
  {
    const UniqueFd fd(open(image.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600));
    ASSERT_TRUE(fd.Valid());
    Verdict verdict;
    for (int i = 0; i < 8 && verdict.error == 0; ++i) {
      verdict = Call([&] {
        return write(fd.Get(), bytes.data(), bytes.size()) < 0 ? -1 : 0;
      });
    }
    Refused(verdict, ENOSPC, sentence);
    EXPECT_EQ(Call([&] { return write(fd.Get(), "x", 1) < 0 ? -1 : 0; }).error,
              ENOSPC);
  }
  EXPECT_TRUE(Eventually([&] { return !stdfs::exists(image); }));
  GiveRoom();
  EXPECT_TRUE(Eventually([&] { return Files() == before; })) << Files();
}

// libvirt does not tell of the end of a stream that had no room.
TEST_F(FullPoolTest, NoEndIsLostInSilence) {
  const std::string before = Files();
  const std::string image = Host() / "images/tight";
  LeaveRoom(1028 * kKiB);
  std::string bytes = SolidDisk();
  ASSERT_EQ(WriteText(image, bytes, O_CREAT).error, 0)
      << ReadText(Host() / "error");
  EXPECT_EQ(ReadText(image), bytes);
  ASSERT_EQ(unlink(image.c_str()), 0);
  bytes += std::string(4096, 'x');
  LeaveRoom(1028 * kKiB);
  EXPECT_EQ(WriteText(image, bytes, O_CREAT).error, ENOSPC);
  EXPECT_TRUE(Eventually([&] { return !stdfs::exists(image); }));
  GiveRoom();
  EXPECT_TRUE(Eventually([&] { return Files() == before; })) << Files();
}

TEST_F(FullPoolTest, AnImageIsMeasuredBeforeItIsFetched) {
  const stdfs::path file = Dir().string() + ".img";
  std::string qcow2("QFI\xfb\0\0\0\3", 8);
  qcow2.resize(9 << 20, 'x');
  std::ofstream(file) << qcow2;
  Mkdir("box");
  ASSERT_EQ(Write("box/config.yaml",
                  fmt::format("images:\n- location: {}\n", file.string())),
            Verdict{});
  LeaveRoom(1028 * kKiB);
  const Verdict verdict = Write("box/status", "start\n");
  EXPECT_EQ(verdict.error, ENOSPC);
  const std::string reason = Lack(9216 * kKiB, 8192 * kKiB);
  EXPECT_EQ(verdict.sentence, "Cannot start 'box': " + reason);
  EXPECT_EQ(Status("box"), "stopped");
}

TEST_F(FullPoolTest, ADocumentIsStoredWholeOrNotAtAll) {
  const std::string before = ReadText(Host() / "defaults.yaml");
  LeaveRoom(8 * kKiB);
  const std::string text = before + "# " + std::string(100000, 'x') + "\n";
  EXPECT_EQ(Write(".host/defaults.yaml", text).error, ENOSPC);
  // The text has a digest before it.
  EXPECT_EQ(HostError(),
            "Cannot store 'defaults.yaml': " + Lack(98 * kKiB, 90 * kKiB));
  EXPECT_EQ(ReadText(Host() / "defaults.yaml"), before);
  mount_->Crash();
  mount_->Start();
  EXPECT_EQ(ReadText(Host() / "defaults.yaml"), before);
}

// The old one is gone by then; the next start makes it anew.
TEST_F(FullPoolTest, AConfigYamlThatNeedsALargerSeed) {
  Mkdir("box");
  const std::string before = ReadText(Dir() / "box/config.yaml");
  LeaveRoom(0);
  EXPECT_EQ(Write("box/config.yaml", "provision:\n- mode: system\n  script: '" +
                                         std::string(200000, '#') + "'\n")
                .error,
            ENOSPC);
  const std::string error = ReadLine(Dir() / "box/error");
  EXPECT_TRUE(error.starts_with(
      "Cannot change config.yaml of 'box': the pool 'small' is full: of "))
      << error;
  EXPECT_EQ(ReadText(Dir() / "box/config.yaml"), before);
  EXPECT_EQ(Status("box"), "stopped");
  GiveRoom();
  Boot("box");
  EXPECT_TRUE(stdfs::exists(pool_ / (Virsh({"domuuid", "box"}) + ".seed")));
}

}  // namespace
}  // namespace sbxfs
