#include "fs/mount_point.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTable =
    "22 1 254:0 / / rw,relatime - ext4 /dev/vda1 rw\n"
    "30 22 0:40 / /plain rw - fuse.sshfs host: rw\n"
    "31 22 0:41 / /s rw,nosuid shared:5 - fuse.sbxfs qemu:///system rw\n"
    "32 22 0:42 / /a\\040b rw - fuse.sbxfs qemu+ssh://h/s?a\\134b\\040c rw\n"
    "33 22 0:43 / /covered rw - fuse.sbxfs test:///default rw\n"
    "34 33 0:44 / /covered rw - tmpfs tmpfs rw\n"
    "35 22 0:45 / /twice rw - fuse.sbxfs test:///default rw\n"
    "36 35 0:46 / /twice rw - fuse.sbxfs qemu:///session rw\n";

TEST(MountPoint, MountTable) {
  EXPECT_EQ(SbxfsMountedOn(kTable, "/s"), "qemu:///system");
  EXPECT_EQ(SbxfsMountedOn(kTable, "/a b"), "qemu+ssh://h/s?a\\b c");
  EXPECT_EQ(SbxfsMountedOn(kTable, "/twice"), "qemu:///session");
  for (const char* dir : {"/", "/plain", "/covered", "/none", "", "/s/"}) {
    EXPECT_EQ(SbxfsMountedOn(kTable, dir), std::nullopt) << dir;
  }
  EXPECT_EQ(SbxfsMountedOn("", "/s"), std::nullopt);
  EXPECT_EQ(SbxfsMountedOn("rubbish\n1 2 3 4 /s\n - \n", "/s"), std::nullopt);
}

TEST(MountPoint, MountsOfSbxfs) {
  const std::vector<SbxfsMount> mounts = SbxfsMounts(
      std::string(kTable) +
      "37 22 0:47 / /mine rw - fuse.sbxfs u:/// rw,user_id=1000,group_id=7\n");
  EXPECT_EQ(mounts,
            (std::vector<SbxfsMount>{{"/s", "qemu:///system", {}},
                                     {"/a b", "qemu+ssh://h/s?a\\b c", {}},
                                     {"/twice", "qemu:///session", {}},
                                     {"/mine", "u:///", 1000}}));
}

class MountPointDir : public testing::Test {
 protected:
  MountPointDir() {
    std::string name = (fs::temp_directory_path() / "sbxfs-XXXXXX").string();
    root_ = fs::canonical(mkdtemp(name.data()));
    fs::create_directory(root_ / "dir");
    fs::create_directory_symlink(root_ / "dir", root_ / "link");
    std::ofstream(root_ / "file") << "x";
    before_ = fs::current_path();
    fs::current_path(root_);
  }
  ~MountPointDir() override {
    fs::current_path(before_);
    fs::remove_all(root_);
  }
  fs::path root_;
  fs::path before_;
};

TEST_F(MountPointDir, Resolves) {
  const std::string dir = (root_ / "dir").string();
  for (const char* given : {"dir", "./dir/", "dir/.", "link", "dir/../link/"}) {
    EXPECT_EQ(ResolveMountPoint(given, "u:///"), dir) << given;
  }
  EXPECT_EQ(ResolveMountPoint(dir, "u:///"), dir);
  EXPECT_EQ(ResolveMountPoint(".", "u:///"), root_.string());
  if (geteuid() == 0) {
    EXPECT_EQ(ResolveMountPoint("/", "u:///"), "/");
    return;
  }
  try {
    (void)ResolveMountPoint("/", "u:///");
    ADD_FAILURE() << "a user mounts on /";
  } catch (const Error& error) {
    EXPECT_EQ(error.Sentence(),
              "Cannot mount on '/': it is neither yours nor writable for you, "
              "as FUSE wants it; mount on a directory of yours");
  }
}

TEST_F(MountPointDir, Refuses) {
  const struct {
    const char* dir;
    int error;
    const char* sentence;
  } kCases[] = {
      {"none", ENOENT,
       "Cannot mount on 'none': No such file or directory; make it first, "
       "with mkdir"},
      {"no/such", ENOENT,
       "Cannot mount on 'no/such': No such file or directory; make it first, "
       "with mkdir"},
      {"file", ENOTDIR, "Cannot mount on 'file': Not a directory"},
  };
  for (const auto& [dir, number, sentence] : kCases) {
    try {
      (void)ResolveMountPoint(dir, "u:///");
      ADD_FAILURE() << dir;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), number);
      EXPECT_EQ(error.Sentence(), sentence);
    }
  }
}

}  // namespace
}  // namespace sbxfs
