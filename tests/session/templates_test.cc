#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// .host/templates, .host/override.yaml, effective.yaml.

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

class Templates : public testing::Test {
 protected:
  std::string Stored(const std::string& path) {
    const HostPtr host = backend_.GetHost();
    const auto found = host->templates.find(path);
    return found == host->templates.end() ? "(none)" : found->second.text;
  }

  FakeBackend backend_;
  const std::string uuid_ = backend_.Add("box");
  FakeFuse fuse_{backend_};
};

TEST_F(Templates, AreWrittenListedReadAndRemoved) {
  EXPECT_EQ(fuse_.Copy("cpus: 4\n", ".host/templates/big.yaml"), 0);
  EXPECT_EQ(Stored("big.yaml"), "cpus: 4\n");
  EXPECT_THAT(fuse_.Ls(".host/templates"), ElementsAre("big.yaml"));
  EXPECT_EQ(fuse_.Cat(".host/templates/big.yaml"), "cpus: 4\n");
  EXPECT_EQ(fuse_.Stat(".host/templates/big.yaml")->size, 8U);
  EXPECT_EQ(fuse_.Echo("cpus: 6", ".host/templates/big.yaml"), 0);
  EXPECT_EQ(Stored("big.yaml"), "cpus: 6\n");
  EXPECT_EQ(fuse_.Unlink(".host/templates/big.yaml"), 0);
  EXPECT_EQ(Stored("big.yaml"), "(none)");
  EXPECT_EQ(fuse_.Walk(".host/templates/big.yaml"), 0U);
}

TEST_F(Templates, ARefusedOneIsNotThere) {
  backend_.Fail("document", Error(EINVAL, "Cannot accept it"));
  EXPECT_EQ(fuse_.Copy("cpuz: 4\n", ".host/templates/big.yaml"), EINVAL);
  EXPECT_THAT(fuse_.Ls(".host/templates"), ElementsAre());
  EXPECT_THAT(fuse_.Cat(".host/error"), HasSubstr("Cannot accept it"));
}

TEST_F(Templates, OneThatIsOpenedAndNotWrittenIsNone) {
  const auto file = fuse_.Create(".host/templates/a.yaml", O_WRONLY);
  EXPECT_EQ(file.error, 0);
  EXPECT_THAT(fuse_.Ls(".host/templates"), ElementsAre("a.yaml"));
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_THAT(fuse_.Ls(".host/templates"), ElementsAre());
}

TEST_F(Templates, FoldersAreMadeAndRemoved) {
  EXPECT_EQ(fuse_.Mkdir(".host/templates/_images"), 0);
  EXPECT_THAT(fuse_.Ls(".host/templates"), ElementsAre("_images"));
  EXPECT_THAT(fuse_.Ls(".host/templates/_images"), ElementsAre());
  EXPECT_EQ(fuse_.Copy("a: b\n", ".host/templates/_images/debian-12.yaml"), 0);
  EXPECT_EQ(Stored("_images/debian-12.yaml"), "a: b\n");
  EXPECT_THAT(fuse_.Ls(".host/templates/_images"),
              ElementsAre("debian-12.yaml"));
  EXPECT_THAT(fuse_.Ls(".host/templates"), ElementsAre("_images"));
  EXPECT_EQ(fuse_.Rmdir(".host/templates/_images"), ENOTEMPTY);
  EXPECT_EQ(fuse_.Unlink(".host/templates/_images/debian-12.yaml"), 0);
  EXPECT_EQ(fuse_.Rmdir(".host/templates/_images"), 0);
  EXPECT_THAT(fuse_.Ls(".host/templates"), ElementsAre());
  EXPECT_EQ(fuse_.Mkdir(".host/templates/a"), 0);
  EXPECT_EQ(fuse_.Mkdir(".host/templates/a/b"), 0);
  EXPECT_EQ(fuse_.Mkdir(".host/templates/a/b/c"), 0);
  EXPECT_EQ(fuse_.Mkdir(".host/templates/a/b/c/d"), 0);
  EXPECT_EQ(fuse_.Mkdir(".host/templates/a/b/c/d/e"), EINVAL);
}

TEST_F(Templates, AreEditedAsEditorsDo) {
  ASSERT_EQ(fuse_.Copy("cpus: 4\n", ".host/templates/t.yaml"), 0);
  // A finished scratch file over it.
  EXPECT_EQ(fuse_.Copy("cpus: 5\n", ".host/templates/.t.yaml.swp"), 0);
  EXPECT_EQ(Stored("t.yaml"), "cpus: 4\n");
  EXPECT_EQ(
      fuse_.Rename(".host/templates/.t.yaml.swp", ".host/templates/t.yaml"), 0);
  EXPECT_EQ(Stored("t.yaml"), "cpus: 5\n");
  // Away as a backup, and anew: it holds all the while.
  EXPECT_EQ(fuse_.Rename(".host/templates/t.yaml", ".host/templates/t.yaml~"),
            0);
  EXPECT_EQ(fuse_.Walk(".host/templates/t.yaml"), 0U);
  EXPECT_EQ(Stored("t.yaml"), "cpus: 5\n");
  EXPECT_EQ(fuse_.Copy("cpus: 6\n", ".host/templates/t.yaml"), 0);
  EXPECT_EQ(Stored("t.yaml"), "cpus: 6\n");
  EXPECT_EQ(fuse_.Cat(".host/templates/t.yaml~"), "cpus: 5\n");
  EXPECT_EQ(fuse_.Unlink(".host/templates/t.yaml~"), 0);
  // A new one from a scratch file.
  EXPECT_EQ(fuse_.Copy("cpus: 7\n", ".host/templates/new.yaml.tmp"), 0);
  EXPECT_EQ(
      fuse_.Rename(".host/templates/new.yaml.tmp", ".host/templates/new.yaml"),
      0);
  EXPECT_EQ(Stored("new.yaml"), "cpus: 7\n");
}

TEST_F(Templates, AreRenamed) {
  ASSERT_EQ(fuse_.Mkdir(".host/templates/f"), 0);
  ASSERT_EQ(fuse_.Copy("cpus: 4\n", ".host/templates/a.yaml"), 0);
  EXPECT_EQ(fuse_.Rename(".host/templates/a.yaml", ".host/templates/f/b.yaml"),
            0);
  EXPECT_EQ(Stored("a.yaml"), "(none)");
  EXPECT_EQ(Stored("f/b.yaml"), "cpus: 4\n");
}

TEST_F(Templates, OtherNamesAreRefused) {
  EXPECT_EQ(fuse_.Copy("x", ".host/templates/debian"), EPERM);
  EXPECT_THAT(fuse_.Cat(".host/error"),
              HasSubstr("Cannot create 'debian': a template's name ends in "
                        ".yaml; write 'debian.yaml'"));
}

TEST_F(Templates, OverridesAreADocument) {
  EXPECT_EQ(fuse_.Echo("cpus: 8", ".host/override.yaml"), 0);
  EXPECT_THAT(backend_.Calls(), Contains("document override.yaml cpus: 8\n"));
  EXPECT_EQ(fuse_.Cat(".host/override.yaml"), "cpus: 8\n");
}

TEST_F(Templates, EffectiveIsTheBackends) {
  EXPECT_EQ(fuse_.Cat("box/effective.yaml"), "# skeleton\n# effective\n");
  EXPECT_EQ(fuse_.Stat("box/effective.yaml")->size, 23U);
  EXPECT_EQ(fuse_.Open("box/effective.yaml", O_WRONLY).error, EACCES);
}

}  // namespace
}  // namespace sbxfs
