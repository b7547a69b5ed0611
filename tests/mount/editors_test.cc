#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/mounted.h"

// Editors on config.yaml, each with the ways it saves a file.

namespace sbxfs {
namespace {

using testing::HasSubstr;

class Editors : public Mounted {
 protected:
  void SetUp() override {
    Mounted::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    Do("mkdir box; echo 'cpus: 3' > box/config.yaml");
  }
  bool Has(const std::string& program) {
    return Sh("command -v " + program).status == 0;
  }
};

TEST_F(Editors, VimInAllItsManners) {
  if (!Has("vim")) GTEST_SKIP() << "there is no vim";
  int cpus = 3;
  for (const char* set : {"set nocompatible", "set backupcopy=no",
                          "set backupcopy=yes", "set backup backupcopy=auto",
                          "set nowritebackup", "set nobackup noswapfile"}) {
    const std::string from = std::to_string(cpus);
    const std::string to = std::to_string(++cpus);
    Do("HOME=$PWD/.. vim -Nu NONE -es -c '" + std::string(set) + "' -c '%s/" +
       from + "/" + to + "/' -c wq box/config.yaml");
    EXPECT_EQ(Do("cat box/config.yaml box/cpus"),
              "cpus: " + to + "\n" + to + "\n")
        << set;
  }
  Do("rm -f box/config.yaml~");
  EXPECT_EQ(Do("ls -a box | grep -v '^[a-zA-Z_]' | tr '\\n' ' '"), ". .. ");
}

TEST_F(Editors, VimIsToldOfARefusal) {
  if (!Has("vim")) GTEST_SKIP() << "there is no vim";
  EXPECT_NE(Sh("HOME=$PWD/.. vim -Nu NONE -es -c '%s/cpus/cpsu/' -c 'wq' "
               "box/config.yaml")
                .status,
            0);
  EXPECT_EQ(Do("cat box/config.yaml"), "cpus: 3\n");
}

TEST_F(Editors, VimOfASandboxesYaml) {
  if (!Has("vim")) GTEST_SKIP() << "there is no vim";
  Do("HOME=$PWD/.. vim -Nu NONE -es -c '%s/3/4/' -c wq box.yaml");
  EXPECT_EQ(Do("cat box/cpus; ls -A"), "4\n.host\nbox\n");
}

TEST_F(Editors, Nano) {
  if (!Has("nano") || !Has("tmux")) GTEST_SKIP() << "there is no nano or tmux";
  // Replaces the line, saves, leaves.
  Do("export HOME=$PWD/..; t=\"tmux -L sbxfs$$ -f /dev/null\";"
     "$t new-session -d -x 80 -y 24 'nano -I box/config.yaml'; sleep 1;"
     "$t send-keys C-k 'cpus: 6' C-o; sleep 0.5; $t send-keys Enter;"
     "sleep 0.5; $t send-keys C-x; sleep 0.5; $t kill-server 2>/dev/null; "
     "true");
  EXPECT_EQ(Do("cat box/config.yaml box/cpus"), "cpus: 6\n6\n");
}

}  // namespace
}  // namespace sbxfs
