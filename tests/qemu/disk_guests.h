#ifndef SBXFS_TESTS_QEMU_DISK_GUESTS_H_
#define SBXFS_TESTS_QEMU_DISK_GUESTS_H_

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "tests/support/guest_mount.h"

namespace sbxfs {

// Whether there are block devices made of files: the namespace's own /dev has
// their nodes then. Kernels in containers have none.
[[nodiscard]] inline bool HasLoopDevices() {
  mknod("/dev/loop-control", S_IFCHR | 0600, makedev(10, 237));
  for (unsigned i = 0; i < 64; ++i) {
    mknod(fmt::format("/dev/loop{}", i).c_str(), S_IFBLK | 0600, makedev(7, i));
  }
  return RunProgram({"losetup", "--find"}).status == 0;
}

// Sandboxes with additional disks. What is left of both goes at the end.
class DiskGuests : public BlankGuests {
 protected:
  void TearDown() override {
    if (mount_ == nullptr) return;
    Clear(Dir());
    for (const auto& entry :
         std::filesystem::directory_iterator(Host() / "disks")) {
      EXPECT_EQ(unlink(entry.path().c_str()), 0) << entry.path();
    }
    BlankGuests::TearDown();
  }
  [[nodiscard]] std::filesystem::path Disk(const std::string& name) const {
    return Host() / "disks" / name;
  }
  // A new file or an old one, as a shell's > has it.
  [[nodiscard]] Verdict SetDisk(const std::string& name,
                                const std::string& size) const {
    return WriteText(Disk(name), size + "\n", O_CREAT);
  }
  // `disks` as YAML has items of a list.
  [[nodiscard]] Verdict NameDisks(const std::string& box,
                                  const std::string& disks) const {
    return WriteText(Dir() / box / "config.yaml",
                     "additionalDisks: [" + disks + "]\n");
  }
  [[nodiscard]] Verdict Write(const std::string& box,
                              const std::string& verb) const {
    return WriteText(Dir() / box / "status", verb + "\n");
  }
  // A snapshot, a way back, saved and started again: none of it is an
  // additional disk's affair.
  void UseOwnDisk(const std::string& box) {
    EXPECT_EQ(mkdir((Dir() / box / "snapshots/one").c_str(), 0777), 0);
    EXPECT_EQ(WriteText(Dir() / box / "snapshot", "one!\n"), Verdict{});
    EXPECT_EQ(Write(box, "save"), Verdict{});
    Boot(box);
  }
  // Of .host/capacity.
  [[nodiscard]] std::string Capacity(const std::string& key) const {
    const std::string text = ReadText(Host() / "capacity");
    const auto at = text.find("\n" + key + " ");
    if (at == std::string::npos) return "";
    const auto begin = at + key.size() + 2;
    return text.substr(begin, text.find('\n', begin) - begin);
  }
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_QEMU_DISK_GUESTS_H_
