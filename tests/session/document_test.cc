#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// Documents, editors' ways with them, sandboxes made from a file, images.

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// A process that only waits.
class Other {
 public:
  Other() : pid(fork()) {
    if (pid == 0) {
      while (true) pause();
    }
  }
  ~Other() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  const pid_t pid;
};

class Document : public testing::Test {
 protected:
  std::string Config() { return backend_.Get(uuid_)->config; }

  FakeBackend backend_;
  const std::string uuid_ = backend_.Add("box");
  FakeFuse fuse_{backend_};
};

TEST_F(Document, IsStoredAtTheOpenersFlush) {
  const auto file = fuse_.Open("box/config.yaml", O_WRONLY | O_TRUNC);
  EXPECT_EQ(fuse_.Flush(file), 0);  // bash's, before it writes
  EXPECT_EQ(Config(), "# skeleton\n");
  EXPECT_EQ(fuse_.Write(file, "cpus: 4\n", 0), 0);
  EXPECT_EQ(fuse_.Write(file, "memory: 4GiB\n", 8), 0);
  EXPECT_EQ(Config(), "# skeleton\n");
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "cpus: 4\nmemory: 4GiB\n");
  EXPECT_EQ(fuse_.Cat("box/config.yaml"), "cpus: 4\nmemory: 4GiB\n");
}

TEST_F(Document, OtherProcessesFlushesDoNotCount) {
  const Other child;
  const auto file = fuse_.Open("box/config.yaml", O_WRONLY | O_TRUNC);
  const Caller opener = fuse_.caller;
  fuse_.caller.pid = child.pid;
  EXPECT_EQ(fuse_.Write(file, "cpus: 4\n"), 0);
  EXPECT_EQ(fuse_.Flush(file), 0);
  EXPECT_EQ(Config(), "# skeleton\n");
  fuse_.caller = opener;
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "cpus: 4\n");
}

TEST_F(Document, LostTextIsToldAtRelease) {
  const Other child;
  fuse_.caller.pid = child.pid;
  const auto file = fuse_.Open("box/config.yaml", O_WRONLY | O_TRUNC);
  EXPECT_EQ(fuse_.Write(file, "cpus: 4\n"), 0);
  fuse_.caller.pid = getpid();
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "# skeleton\n");
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("Cannot store 'config.yaml'"));
}

TEST_F(Document, TruncationAloneChangesNothing) {
  EXPECT_EQ(fuse_.Close(fuse_.Open("box/config.yaml", O_WRONLY | O_TRUNC)), 0);
  const auto file = fuse_.Open("box/config.yaml", O_RDWR);
  EXPECT_EQ(fuse_.Truncate(file, 0), 0);
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "# skeleton\n");
}

TEST_F(Document, AppendsAndOverwrites) {
  auto file = fuse_.Open("box/config.yaml", O_WRONLY | O_APPEND);
  EXPECT_EQ(fuse_.Write(file, "cpus: 4\n", 0), 0);
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "# skeleton\ncpus: 4\n");
  file = fuse_.Open("box/config.yaml", O_RDWR);
  EXPECT_EQ(fuse_.Write(file, "# SKELETON", 0), 0);
  EXPECT_EQ(fuse_.Read(file), "# SKELETON\ncpus: 4\n");
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "# SKELETON\ncpus: 4\n");
}

TEST_F(Document, RefusedIsKeptAsideAndToldAtEachFlush) {
  const auto file = fuse_.Open("box/config.yaml", O_WRONLY | O_TRUNC);
  EXPECT_EQ(fuse_.Write(file, "bad: 1\n"), 0);
  EXPECT_EQ(fuse_.Fsync(file), EINVAL);
  EXPECT_EQ(fuse_.Fsync(file), EINVAL);
  EXPECT_EQ(fuse_.Close(file), EINVAL);
  EXPECT_EQ(Config(), "# skeleton\n");
  EXPECT_EQ(fuse_.Cat("box/config.yaml.rejected"), "bad: 1\n");
  EXPECT_THAT(fuse_.Ls("box"), Contains("config.yaml.rejected"));
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("line 1, column 1"));
  EXPECT_EQ(fuse_.Unlink("box/config.yaml.rejected"), 0);
  EXPECT_EQ(fuse_.Walk("box/config.yaml.rejected"), 0u);
}

TEST_F(Document, ARefusedTextIsListedOnce) {
  EXPECT_EQ(fuse_.Copy("cpus: 4\n", "box/config.yaml.rejected"), EPERM);
  EXPECT_EQ(fuse_.Create("box/config.yaml.rejected", O_WRONLY | O_EXCL).error,
            EPERM);
  EXPECT_EQ(fuse_.Copy("cpus: 4\n", "box/config.yaml~"), 0);
  EXPECT_EQ(fuse_.Rename("box/config.yaml~", "box/config.yaml.rejected"),
            EPERM);
  EXPECT_EQ(fuse_.Copy("bad: 1\n", "box/config.yaml"), EINVAL);
  const auto names = fuse_.Ls("box");
  EXPECT_EQ(std::count(names.begin(), names.end(), "config.yaml.rejected"), 1);
}

TEST_F(Document, WhatIsCutAfterAWriteIsStoredSo) {
  const auto file = fuse_.Open("box/config.yaml", O_RDWR);
  EXPECT_EQ(fuse_.Write(file, "# longer than before\n", 0), 0);
  EXPECT_EQ(fuse_.Fsync(file), 0);
  EXPECT_EQ(fuse_.Truncate(file, 8), 0);
  EXPECT_EQ(fuse_.Fsync(file), 0);
  EXPECT_EQ(Config(), "# longer");
  // A refusal is of the text that was refused.
  EXPECT_EQ(fuse_.Write(file, "\nbad: 1\n", 8), 0);
  EXPECT_EQ(fuse_.Fsync(file), EINVAL);
  EXPECT_EQ(fuse_.Truncate(file, 9), 0);
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "# longer\n");
}

TEST_F(Document, AppendingIsWhatTheFlagsSayNow) {
  auto file = fuse_.Open("box/config.yaml", O_RDWR | O_APPEND);
  file.flags &= ~O_APPEND;  // fcntl(2)
  EXPECT_EQ(fuse_.Write(file, "# SKELETON", 0), 0);
  file.flags |= O_APPEND;
  EXPECT_EQ(fuse_.Write(file, "# more\n", 0), 0);
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "# SKELETON\n# more\n");
}

TEST_F(Document, IsNotMovedToWhereOneWouldBe) {
  for (const char* to : {"new.yaml", ".host/templates/box.yaml"}) {
    EXPECT_EQ(fuse_.Rename("box/config.yaml", to), EPERM) << to;
    EXPECT_EQ(fuse_.Walk(to), 0u) << to;
  }
  EXPECT_EQ(fuse_.Cat("box/config.yaml"), "# skeleton\n");
}

TEST_F(Document, VimsWay) {
  EXPECT_EQ(fuse_.Copy("", "box/4913"), EPERM);  // not O_EXCL
  const auto probe = fuse_.Create("box/4913", O_WRONLY | O_EXCL);
  EXPECT_EQ(probe.error, 0);
  EXPECT_EQ(fuse_.Close(probe), 0);
  EXPECT_EQ(fuse_.Unlink("box/4913"), 0);
  EXPECT_EQ(fuse_.Rename("box/config.yaml", "box/config.yaml~"), 0);
  EXPECT_EQ(fuse_.Cat("box/config.yaml~"), "# skeleton\n");
  // Gone for who renamed it, there for everybody else.
  EXPECT_EQ(fuse_.Walk("box/config.yaml"), 0u);
  {
    const Other other;
    const Caller vim = fuse_.caller;
    fuse_.caller.pid = other.pid;
    EXPECT_EQ(fuse_.Cat("box/config.yaml"), "# skeleton\n");
    fuse_.caller = vim;
  }
  const auto file = fuse_.Create("box/config.yaml", O_WRONLY);
  EXPECT_EQ(file.error, 0);
  EXPECT_EQ(fuse_.Truncate(file, 0), 0);
  EXPECT_EQ(fuse_.Write(file, "cpus: 8\n"), 0);
  EXPECT_EQ(fuse_.Fsync(file), 0);
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(fuse_.Unlink("box/config.yaml~"), 0);
  EXPECT_EQ(fuse_.Cat("box/config.yaml"), "cpus: 8\n");
}

TEST_F(Document, SedsWay) {
  const auto scratch = fuse_.Create("box/sedAbCdEf", O_RDWR | O_EXCL);
  EXPECT_EQ(scratch.error, 0);
  EXPECT_EQ(fuse_.Write(scratch, "cpus: 8\n"), 0);
  EXPECT_EQ(fuse_.Close(scratch), 0);
  EXPECT_THAT(fuse_.Ls("box"), Contains("sedAbCdEf"));
  EXPECT_EQ(fuse_.Stat("box/sedAbCdEf")->size, 8u);
  EXPECT_EQ(fuse_.Rename("box/sedAbCdEf", "box/config.yaml"), 0);
  EXPECT_EQ(Config(), "cpus: 8\n");
  EXPECT_THAT(fuse_.Ls("box"), Not(Contains("sedAbCdEf")));
}

TEST_F(Document, AScratchFileCanBecomeAnyFile) {
  auto scratch = fuse_.Create("box/tmp", O_RDWR | O_EXCL);
  EXPECT_EQ(fuse_.Write(scratch, "6\n"), 0);
  EXPECT_EQ(fuse_.Close(scratch), 0);
  EXPECT_EQ(fuse_.Rename("box/tmp", "box/reason"), EACCES);
  EXPECT_EQ(fuse_.Rename("box/tmp", "box/statsu"), EPERM);
  EXPECT_EQ(fuse_.Rename("box/tmp", "box/cpus"), 0);
  EXPECT_EQ(fuse_.Cat("box/cpus"), "6\n");
  scratch = fuse_.Create("box/tmp", O_RDWR | O_EXCL);
  EXPECT_EQ(fuse_.Write(scratch, "bad: 6\n"), 0);
  EXPECT_EQ(fuse_.Close(scratch), 0);
  EXPECT_EQ(fuse_.Rename("box/tmp", "box/config.yaml"), EINVAL);
  EXPECT_EQ(fuse_.Cat("box/tmp"), "bad: 6\n");  // still there
}

TEST_F(Document, AnEmptyScratchFileChangesNothing) {
  EXPECT_EQ(fuse_.Copy("", "box/.config.yaml.tmp"), 0);
  EXPECT_EQ(fuse_.Rename("box/.config.yaml.tmp", "box/config.yaml"), 0);
  EXPECT_EQ(Config(), "# skeleton\n");
  EXPECT_EQ(fuse_.Copy("", "box/cpus.tmp"), 0);
  EXPECT_EQ(fuse_.Rename("box/cpus.tmp", "box/cpus"), 0);
  EXPECT_EQ(fuse_.Cat("box/cpus"), "2\n");
}

TEST_F(Document, UnlinkLeavesItInForce) {
  EXPECT_EQ(fuse_.Unlink("box/config.yaml"), 0);
  EXPECT_EQ(Config(), "# skeleton\n");
  const auto file = fuse_.Create("box/config.yaml", O_WRONLY | O_EXCL);
  EXPECT_EQ(file.error, 0);
  EXPECT_EQ(fuse_.Write(file, "cpus: 3\n"), 0);
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Config(), "cpus: 3\n");
}

TEST_F(Document, RmRTakesNothing) {
  backend_.Update(uuid_, [](Sandbox& one) { one.rejected = "bad"; });
  EXPECT_EQ(fuse_.Unlink("box/README"), EPERM);
  for (const auto& name : fuse_.Ls("box")) {
    EXPECT_EQ(fuse_.Unlink("box/" + name), EPERM) << name;
  }
  EXPECT_NE(backend_.Get(uuid_)->rejected, "");
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("rmdir of a sandbox"));
  // find -delete goes on to rmdir.
  EXPECT_EQ(fuse_.Rmdir("box"), EPERM);
  // Another process may.
  const Other other;
  fuse_.caller.pid = other.pid;
  EXPECT_EQ(fuse_.Unlink("box/config.yaml.rejected"), 0);
  EXPECT_EQ(fuse_.Rmdir("box"), 0);
}

TEST_F(Document, ATextMadeOutOfAnOlderOneIsRefused) {
  const Other editor;
  const Caller me = fuse_.caller;
  Caller other = me;
  other.pid = editor.pid;
  // Both read it, the other saves first.
  EXPECT_EQ(fuse_.Cat("box/config.yaml"), "# skeleton\n");
  fuse_.caller = other;
  EXPECT_EQ(fuse_.Cat("box/config.yaml"), "# skeleton\n");
  EXPECT_EQ(fuse_.Echo("cpus: 3", "box/config.yaml"), 0);
  EXPECT_EQ(fuse_.Echo("cpus: 4", "box/config.yaml"), 0);  // its own
  fuse_.caller = me;
  EXPECT_EQ(fuse_.Copy("cpus: 5\n", "box/.config.yaml.tmp"), 0);
  EXPECT_EQ(fuse_.Rename("box/.config.yaml.tmp", "box/config.yaml"), ESTALE);
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("read it again"));
  EXPECT_EQ(fuse_.Rename("box/config.yaml", "box/config.yaml~"), 0);
  const auto file = fuse_.Create("box/config.yaml", O_WRONLY);
  EXPECT_EQ(fuse_.Write(file, "cpus: 5\n"), 0);
  EXPECT_EQ(fuse_.Fsync(file), ESTALE);
  EXPECT_EQ(fuse_.Close(file), ESTALE);
  EXPECT_EQ(Config(), "cpus: 4\n");
  EXPECT_EQ(fuse_.Walk("box/config.yaml.rejected"), 0u);
  // Having read it anew it may; so may who never read it.
  EXPECT_EQ(fuse_.Cat("box/config.yaml"), "cpus: 4\n");
  EXPECT_EQ(fuse_.Echo("cpus: 6", "box/config.yaml"), 0);
  const Other third;
  fuse_.caller.pid = third.pid;
  EXPECT_EQ(fuse_.Fsync(fuse_.Open("box/config.yaml", O_WRONLY)), 0);
  fuse_.caller = me;
  EXPECT_EQ(Config(), "cpus: 6\n");
}

TEST_F(Document, KeysWithoutANewlineAreOnesOwnText) {
  for (const char* key : {"ssh-ed25519 AAAA me", "ssh-ed25519 BBBB me"}) {
    const auto file = fuse_.Open("box/authorized_keys", O_WRONLY | O_TRUNC);
    EXPECT_EQ(fuse_.Write(file, key), 0);
    EXPECT_EQ(fuse_.Close(file), 0);
  }
  EXPECT_EQ(fuse_.Cat("box/authorized_keys"), "ssh-ed25519 BBBB me\n");
}

TEST_F(Document, HostsDocuments) {
  EXPECT_EQ(fuse_.Echo("cpus: 6", ".host/defaults.yaml"), 0);
  EXPECT_EQ(fuse_.Cat(".host/defaults.yaml"), "cpus: 6\n");
  EXPECT_EQ(fuse_.Echo("ssh-ed25519 AAAA me", ".host/authorized_keys"), 0);
  EXPECT_EQ(fuse_.Cat(".host/authorized_keys"), "ssh-ed25519 AAAA me\n");
  EXPECT_EQ(fuse_.Echo("ssh-ed25519 BBBB me", "box/authorized_keys"), 0);
  EXPECT_EQ(fuse_.Cat("box/authorized_keys"), "ssh-ed25519 BBBB me\n");
}

TEST_F(Document, ACopyMakesASandbox) {
  EXPECT_EQ(fuse_.Copy("cpus: 5\n", "agent.yaml"), 0);
  EXPECT_EQ(backend_.Find("agent")->config, "cpus: 5\n");
  EXPECT_EQ(backend_.Find("agent")->mode, 0700u);
  EXPECT_THAT(fuse_.Ls(""), ElementsAre(".host", "agent", "box"));
  EXPECT_EQ(fuse_.Cat("agent.yaml"), "cpus: 5\n");
  EXPECT_EQ(fuse_.Walk("agent.yaml"), fuse_.Walk("agent/config.yaml"));
  EXPECT_EQ(fuse_.Echo("cpus: 6", "agent.yaml"), 0);
  EXPECT_EQ(fuse_.Cat("agent/config.yaml"), "cpus: 6\n");
}

TEST_F(Document, ABadCopyMakesNothing) {
  EXPECT_EQ(fuse_.Copy("bad: 1\n", "agent.yaml"), EINVAL);
  EXPECT_EQ(backend_.Find("agent"), nullptr);
  EXPECT_EQ(fuse_.Walk("agent.yaml"), 0u);
  EXPECT_THAT(fuse_.Cat(".host/error"), HasSubstr("line 1, column 1"));
  EXPECT_EQ(fuse_.Copy("", "agent.yaml"), 0);  // nothing was said
  EXPECT_EQ(backend_.Find("agent"), nullptr);
}

TEST_F(Document, ARenamedScratchMakesASandboxToo) {
  const auto scratch = fuse_.Create(".agent.yaml.tmp", O_WRONLY);
  EXPECT_EQ(scratch.error, 0);
  EXPECT_EQ(fuse_.Write(scratch, "cpus: 5\n"), 0);
  EXPECT_EQ(fuse_.Close(scratch), 0);
  EXPECT_EQ(fuse_.Rename(".agent.yaml.tmp", "agent.yaml"), 0);
  EXPECT_EQ(backend_.Find("agent")->config, "cpus: 5\n");
  EXPECT_THAT(fuse_.Ls(""), ElementsAre(".host", "agent", "box"));
}

TEST_F(Document, ImagesAreUploadedInOneGo) {
  const auto file = fuse_.Create(".host/images/debian", O_WRONLY | O_EXCL);
  EXPECT_EQ(file.error, 0);
  EXPECT_EQ(fuse_.Write(file, "QFI", 0), 0);
  EXPECT_EQ(fuse_.Stat(".host/images/debian")->size, 3u);
  EXPECT_THAT(fuse_.Ls(".host/images"), ElementsAre("debian"));
  EXPECT_EQ(fuse_.Write(file, "x", 0), ESPIPE);
  EXPECT_EQ(fuse_.Write(file, "y", 4), 0);
  EXPECT_EQ(fuse_.Fsync(file), 0);
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(backend_.ImageBytes("debian"), std::string("QFI\0y", 5));
  EXPECT_EQ(fuse_.Cat(".host/images/debian"), std::string("QFI\0y", 5));
  EXPECT_EQ(fuse_.Stat(".host/images/debian")->size, 5u);
  EXPECT_EQ(fuse_.Open(".host/images/debian", O_WRONLY).error, EEXIST);
  EXPECT_EQ(fuse_.Unlink(".host/images/debian"), 0);
  EXPECT_THAT(fuse_.Ls(".host/images"), ElementsAre());
}

TEST_F(Document, ABadImageLeavesNothing) {
  const auto file = fuse_.Create(".host/images/junk", O_WRONLY | O_EXCL);
  EXPECT_EQ(fuse_.Write(file, "junk"), 0);
  EXPECT_EQ(fuse_.Fsync(file), EINVAL);
  EXPECT_EQ(fuse_.Close(file), EINVAL);
  EXPECT_THAT(fuse_.Ls(".host/images"), ElementsAre());
  EXPECT_THAT(fuse_.Cat(".host/error"), HasSubstr("it is none"));
}

}  // namespace
}  // namespace sbxfs
