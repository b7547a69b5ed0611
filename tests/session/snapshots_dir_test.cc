#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// snapshots/ and snapshot, as requests of the kernel.

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;

class SnapshotsDirTest : public testing::Test {
 protected:
  FakeBackend backend_;
  const std::string uuid_ = backend_.Add("box");
  FakeFuse fuse_{backend_};
};

TEST_F(SnapshotsDirTest, MkdirTakesRmdirDropsMvRenames) {
  EXPECT_EQ(fuse_.Mkdir("box/snapshots/one"), 0);
  EXPECT_EQ(fuse_.Mkdir("box/snapshots/two"), 0);
  EXPECT_EQ(fuse_.Mkdir("box/snapshots/two"), EEXIST);
  EXPECT_EQ(fuse_.Mkdir("box/snapshots/a b"), EINVAL);
  EXPECT_EQ(fuse_.Mkdir("box/snapshots/.undo"), EINVAL);
  EXPECT_THAT(fuse_.Ls("box/snapshots"), ElementsAre("one", "two"));
  EXPECT_THAT(fuse_.Ls("box/snapshots/two"),
              ElementsAre("created", "kind", "size", "parent", "description",
                          "config.yaml", "clones"));
  EXPECT_EQ(fuse_.Cat("box/snapshots/two/parent"), "one\n");
  EXPECT_EQ(fuse_.Cat("box/snapshots/one/parent"), "");
  EXPECT_EQ(fuse_.Cat("box/snapshots/one/size"), "196616\n");
  EXPECT_EQ(fuse_.Cat("box/snapshots/one/config.yaml"), "# skeleton\n");
  EXPECT_EQ(fuse_.Cat("box/snapshot"), "two\n");
  const uint64_t number = fuse_.Walk("box/snapshots/one");
  EXPECT_EQ(fuse_.Rename("box/snapshots/one", "box/snapshots/first"), 0);
  EXPECT_EQ(fuse_.Walk("box/snapshots/first"), number);
  EXPECT_EQ(fuse_.Rename("box/snapshots/first", "box/first"), EPERM);
  EXPECT_EQ(fuse_.Rename("box/snapshots/first", "box/snapshots/a b"), EINVAL);
  EXPECT_EQ(fuse_.Rmdir("box/snapshots/first"), 0);
  EXPECT_EQ(fuse_.Rmdir("box/snapshots/first"), ENOENT);
  EXPECT_THAT(fuse_.Ls("box/snapshots"), ElementsAre("two"));
  EXPECT_THAT(backend_.Calls(), Contains("retag box one first"));
}

TEST_F(SnapshotsDirTest, FilesAreFixedAndTheDescriptionIsWritten) {
  ASSERT_EQ(fuse_.Mkdir("box/snapshots/one"), 0);
  EXPECT_EQ(fuse_.Echo("as delivered", "box/snapshots/one/description"), 0);
  EXPECT_EQ(fuse_.Cat("box/snapshots/one/description"), "as delivered\n");
  EXPECT_EQ(fuse_.Echo("x", "box/snapshots/one/kind"), EACCES);
  EXPECT_EQ(fuse_.Mkdir("box/snapshots/one/more"), EPERM);
  EXPECT_EQ(fuse_.Unlink("box/snapshots/one/kind"), EPERM);
  // rm -r goes on to this, in the same process.
  EXPECT_EQ(fuse_.Rmdir("box/snapshots/one"), EPERM);
  EXPECT_THAT(fuse_.Ls("box/snapshots"), ElementsAre("one"));
}

TEST_F(SnapshotsDirTest, WritingATagGoesBackToIt) {
  ASSERT_EQ(fuse_.Mkdir("box/snapshots/one"), 0);
  EXPECT_EQ(fuse_.Echo("one", "box/snapshot"), 0);
  EXPECT_EQ(fuse_.Echo("one!", "box/snapshot"), 0);
  EXPECT_EQ(fuse_.Echo("!", "box/snapshot"), EINVAL);
  EXPECT_THAT(backend_.Calls(), Contains("revert box one"));
  EXPECT_THAT(backend_.Calls(), Contains("revert box one force"));
  backend_.Fail("revert", Error(ENOENT, "Cannot revert 'box': no"));
  EXPECT_EQ(fuse_.Echo("two", "box/snapshot"), ENOENT);
  EXPECT_EQ(fuse_.Cat("box/error"), "Cannot revert 'box': no\n");
}

TEST_F(SnapshotsDirTest, BlocksAreCountedOnce) {
  ASSERT_EQ(fuse_.Mkdir("box/snapshots/one"), 0);
  backend_.Update(uuid_, [](Sandbox& sandbox) {
    sandbox.usage.disk_bytes = 5 << 20;
    sandbox.snapshots.at("one").size = 2 << 20;
  });
  EXPECT_EQ(fuse_.Stat("box")->blocks, (3u << 20) / 512);
  EXPECT_EQ(fuse_.Stat("box/snapshots/one")->blocks, (2u << 20) / 512);
}

TEST_F(SnapshotsDirTest, MkdirInClonesMakesOneAndLeavesALink) {
  ASSERT_EQ(fuse_.Mkdir("box/snapshots/one"), 0);
  EXPECT_EQ(fuse_.Mkdir("box/clones/a"), 0);
  EXPECT_EQ(fuse_.Mkdir("box/snapshots/one/clones/b"), 0);
  EXPECT_EQ(fuse_.Mkdir("box/clones/a b"), EINVAL);
  EXPECT_THAT(backend_.Calls(), Contains("clone box  a"));
  EXPECT_THAT(backend_.Calls(), Contains("clone box one b"));
  EXPECT_THAT(fuse_.Ls("box/clones"), ElementsAre("a", "b"));
  EXPECT_THAT(fuse_.Ls("box/snapshots/one/clones"), ElementsAre("b"));
  EXPECT_TRUE(S_ISLNK(fuse_.Stat("box/clones/a")->mode));
  EXPECT_EQ(fuse_.Stat("box/clones/a")->size, 7u);
  EXPECT_EQ(fuse_.Call(FUSE_READLINK, fuse_.Walk("box/clones/a"), "").data,
            "../../a");
  EXPECT_EQ(
      fuse_.Call(FUSE_READLINK, fuse_.Walk("box/snapshots/one/clones/b"), "")
          .data,
      "../../../../b");
  EXPECT_EQ(fuse_.Call(FUSE_READLINK, fuse_.Walk("box/cpus"), "").error,
            EINVAL);
  EXPECT_EQ(fuse_.Unlink("box/clones/a"), EPERM);
  backend_.Fail("clone", Error(EEXIST, "Cannot clone 'box' to 'a': it exists"));
  EXPECT_EQ(fuse_.Mkdir("box/clones/c"), EEXIST);
  EXPECT_EQ(fuse_.Walk("box/clones/c"), 0u);
}

TEST_F(SnapshotsDirTest, CommitNamesAnImage) {
  EXPECT_EQ(fuse_.Echo("made", "box/commit"), 0);
  EXPECT_EQ(fuse_.Echo("a b", "box/commit"), EINVAL);
  EXPECT_EQ(fuse_.Cat("box/commit"), "");
  EXPECT_THAT(backend_.Calls(), Contains("commit box made"));
  EXPECT_EQ(fuse_.Stat("box/commit")->mode, mode_t{S_IFREG | 0200});
}

TEST_F(SnapshotsDirTest, InTheTrashTheyCanBeReadAlone) {
  ASSERT_EQ(fuse_.Mkdir("box/snapshots/one"), 0);
  backend_.Update(uuid_, [](Sandbox& sandbox) {
    sandbox.trashed = std::chrono::system_clock::now();
  });
  const std::string at = ".host/trash/box/snapshots";
  EXPECT_EQ(fuse_.Cat(at + "/one/kind"), "disk\n");
  EXPECT_EQ(fuse_.Mkdir(at + "/two"), EACCES);
  EXPECT_EQ(fuse_.Rmdir(at + "/one"), EACCES);
}

}  // namespace
}  // namespace sbxfs
