#include "fs/layout.h"

#include <gtest/gtest.h>

#include <set>

#include "fs/attributes.h"
#include "fs/ssh_text.h"

namespace sbxfs {
namespace {

TEST(Layout, RowsAreSound) {
  for (const auto dir : {DirKind::kRoot, DirKind::kHost, DirKind::kSandbox,
                         DirKind::kSnapshot, DirKind::kJob}) {
    std::set<std::string_view> names;
    bool directories = false;
    for (const Row& row : Rows(dir)) {
      EXPECT_EQ(row.dir, dir) << row.name;
      EXPECT_TRUE(names.insert(row.name).second) << row.name;
      EXPECT_EQ(FindRow(dir, row.name), &row);
      EXPECT_FALSE(row.help.empty()) << row.name;
      if (dir == DirKind::kRoot) continue;
      const bool is_dir = row.form == Form::kDirectory;
      // Built-in files come first, so that rm -r meets them first.
      EXPECT_FALSE(directories && !is_dir) << row.name;
      directories = directories || is_dir;
      const bool grows = row.form == Form::kLog || row.form == Form::kConsole;
      EXPECT_EQ(row.show == nullptr, grows || is_dir) << row.name;
      if (!is_dir) {
        EXPECT_EQ((row.mode & 0222) != 0, row.store != nullptr) << row.name;
      }
    }
  }
  EXPECT_EQ(Rows(DirKind::kSandbox).front().name, "README");
  EXPECT_EQ(FindRow(DirKind::kSandbox, "statsu"), nullptr);
}

TEST(Layout, FileModeFollowsTheDirectory) {
  EXPECT_EQ(FileMode(0666, 0700), 0600u);
  EXPECT_EQ(FileMode(0666, 0750), 0640u);
  EXPECT_EQ(FileMode(0666, 0770), 0660u);
  EXPECT_EQ(FileMode(0666, 0755), 0644u);
  EXPECT_EQ(FileMode(0666, 0711), 0600u);  // let in, shown nothing
  EXPECT_EQ(FileMode(0444, 0777), 0444u);
  EXPECT_EQ(FileMode(0600, 0777), 0600u);
  // A protected sandbox can still be driven by its owner.
  EXPECT_EQ(FileMode(0666, 0500), 0600u);
}

TEST(Layout, QuoteForProxy) {
  EXPECT_EQ(QuoteForProxy("/mnt/a b"), "\"/mnt/a b\"");
  EXPECT_EQ(QuoteForProxy("a\"b$c`d\\e%f"), "\"a\\\"b\\$c\\`d\\\\e%%f\"");
}

}  // namespace
}  // namespace sbxfs
