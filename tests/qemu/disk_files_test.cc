// The files on disks at rest, over a real libvirt: of stopped guests and of
// snapshots, by a Core of the test's own beside the mount.
#include "backend/disk_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "backend/core.h"
#include "tests/support/disk_images.h"
#include "tests/support/guest_disk.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class DiskFilesTest : public BlankGuests {
 protected:
  void SetUp() override {
    BlankGuests::SetUp();
    if (mount_ == nullptr) return;
    files_ = Dir().string() + ".files";
    stdfs::create_directories(files_ / "source/etc");
    BackendOptions options;
    options.uri = "qemu:///system";
    core_ = std::make_unique<Core>(
        options,
        Connection::Listener{.connected = [] {},
                             .disconnected = [](const std::string&) {},
                             .domain = [](const std::string&, const char*) {},
                             .pool = [](const std::string&) {},
                             .network = [] {}});
    core_->connection.Open();
    core_->LearnHost();
    core_->catalog.ChangeHost([](struct Host& host) { host.connected = true; });
  }
  void TearDown() override {
    if (core_) core_->connection.Close();
    core_.reset();
    if (!files_.empty()) stdfs::remove_all(files_);
    BlankGuests::TearDown();
  }

  void Source(const std::string& path, const std::string& text) const {
    stdfs::create_directories((files_ / "source" / path).parent_path());
    std::ofstream(files_ / "source" / path, std::ios::binary) << text;
  }
  // Puts what is in `source` on the disk of a stopped guest.
  void Install(const std::string& box) const {
    Sh(fmt::format(
        "cd {} && rm -f fs.raw disk.raw && truncate -s 20M fs.raw && "
        "mkfs.ext4 -q -F -d source fs.raw && truncate -s 24M disk.raw && "
        "printf 'label: gpt\\n1M,20M,L\\n' | sfdisk -q disk.raw && "
        "dd if=fs.raw of=disk.raw bs=1M seek=1 conv=notrunc status=none && "
        "qemu-io -f qcow2 -c 'write -s disk.raw 0 24M' {} > /dev/null",
        files_.string(), DiskPath(box)));
  }
  [[nodiscard]] std::shared_ptr<FileTree> Open(const std::string& box,
                                               const std::string& tag = {}) {
    core_->ReadAll();
    return OpenDiskFiles(*core_, Virsh({"domuuid", box}), tag,
                         SBXFS_BIN_DIR "/sbxfs");
  }
  [[nodiscard]] static std::string Text(FileTree& tree,
                                        const std::string& path) {
    return tree.Open(path, O_RDONLY, 0)->Read(0, 1 << 20);
  }
  template <typename F>
  static int ErrnoOf(F&& call) {
    try {
      (void)call();
      return 0;
    } catch (const Error& error) {
      return error.Errno();
    }
  }
  void Take(const std::string& tag) const {
    ASSERT_EQ(mkdir((Dir() / "box/snapshots" / tag).c_str(), 0777), 0)
        << ReadText(Dir() / "box/error");
  }

  stdfs::path files_;
  std::unique_ptr<Core> core_;
};

TEST_F(DiskFilesTest, OfEachSnapshotAndOfNow) {
  Mkdir("box");
  EXPECT_EQ(ErrnoOf([&] { return Open("box")->Look("").mode; }), EOPNOTSUPP);
  Source("etc/hostname", "one");
  Source("noise", std::string(1'500'000, '1'));
  Install("box");
  const FileLines one = LinesOf(files_ / "source");
  Take("one");
  Source("etc/hostname", "two");
  Source("new/file", "new");
  Install("box");
  const FileLines two = LinesOf(files_ / "source");

  const auto now = Open("box");
  const auto then = Open("box", "one");
  EXPECT_EQ(Differences(LinesOf(*now), two), "");
  EXPECT_EQ(Differences(LinesOf(*then), one), "");
  EXPECT_EQ(ErrnoOf([&] {
              now->Remove("etc/hostname");
              return 0;
            }),
            EROFS);
  EXPECT_EQ(ErrnoOf([&] { return Open("box", "none"); }), ENOENT);
  const auto file = now->Open("etc/hostname", O_RDONLY, 0);

  // A guest that runs has its disk for itself; its snapshots stay.
  Boot("box");
  core_->ReadAll();
  EXPECT_EQ(ErrnoOf([&] { return now->Look("etc").mode; }), ESTALE);
  EXPECT_EQ(ErrnoOf([&] { return file->Read(0, 10); }), ESTALE);
  EXPECT_EQ(ErrnoOf([&] { return Open("box"); }), EBUSY);
  EXPECT_EQ(Differences(LinesOf(*then), one), "");
  Take("two");
  EXPECT_EQ(Differences(LinesOf(*Open("box", "two")), two), "");
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  EXPECT_TRUE(Becomes("box", "stopped"));
  EXPECT_EQ(Differences(LinesOf(*Open("box")), two), "");

  // What is gone, or gone back to.
  const auto before = Open("box");
  ASSERT_EQ(WriteText(Dir() / "box/snapshot", "one\n"), Verdict{});
  core_->ReadAll();
  EXPECT_EQ(ErrnoOf([&] { return before->Look("etc").mode; }), ESTALE);
  EXPECT_EQ(Text(*Open("box"), "etc/hostname"), "one");
  ASSERT_EQ(rmdir((Dir() / "box/snapshots/one").c_str()), 0);
  core_->ReadAll();
  EXPECT_EQ(ErrnoOf([&] { return then->Look("etc").mode; }), ESTALE);
  EXPECT_EQ(Text(*Open("box"), "etc/hostname"), "one");
}

}  // namespace
}  // namespace sbxfs
