#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <cerrno>
#include <sstream>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// The tree over the protocol: directories, values, attributes, refusals.

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class Basic : public testing::Test {
 protected:
  FakeBackend backend_;
  FakeFuse fuse_{backend_};
};

TEST_F(Basic, MkdirMakesASandboxWithAllItsFiles) {
  EXPECT_EQ(fuse_.Mkdir("box", 0755), 0);
  EXPECT_THAT(fuse_.Ls(""), ElementsAre(".host", "box"));
  EXPECT_EQ(fuse_.Ls("box").front(), "README");
  EXPECT_THAT(fuse_.Ls("box"), Contains("status"));
  EXPECT_THAT(fuse_.Ls("box"), Not(Contains("config.yaml.rejected")));
  const auto stat = fuse_.Stat("box");
  EXPECT_EQ(stat->mode, S_IFDIR | 0700u);
  EXPECT_EQ(stat->uid, 1000u);
  EXPECT_EQ(stat->blocks, (1u << 20) / 512);
  EXPECT_EQ(fuse_.Cat("box/status"), "stopped\n");
}

TEST_F(Basic, MkdirRefusesBadNamesWithASentence) {
  EXPECT_EQ(fuse_.Mkdir("a b"), EINVAL);
  EXPECT_EQ(fuse_.Mkdir(".box"), EINVAL);
  EXPECT_EQ(fuse_.Mkdir("box.yaml"), EINVAL);
  EXPECT_EQ(fuse_.Mkdir(std::string(59, 'a')), ENAMETOOLONG);
  const std::string errors = fuse_.Cat(".host/error");
  EXPECT_THAT(errors, HasSubstr(" Cannot make 'a b': "));
  EXPECT_THAT(errors, HasSubstr("58 bytes at most"));
  // Newest first, and each reader's own.
  EXPECT_LT(errors.find("58 bytes"), errors.find("'a b'"));
  fuse_.caller.uid = 1001;
  EXPECT_EQ(fuse_.Cat(".host/error"), "");
}

TEST_F(Basic, OnlyTwentyFailuresAreKept) {
  for (int i = 0; i < 25; ++i) {
    EXPECT_EQ(fuse_.Mkdir("_" + std::to_string(i)), EINVAL);
  }
  const std::string errors = fuse_.Cat(".host/error");
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 20);
  EXPECT_THAT(errors, Not(HasSubstr("'_4'")));
  EXPECT_THAT(errors, HasSubstr("'_5'"));
}

TEST_F(Basic, RmdirGoesByWayOfTheTrash) {
  const std::string uuid = backend_.Add("box");
  const auto number = fuse_.Walk("box");
  EXPECT_EQ(fuse_.Rmdir("box"), 0);
  EXPECT_THAT(fuse_.Ls(""), ElementsAre(".host"));
  EXPECT_THAT(fuse_.Ls(".host/trash"), ElementsAre("box"));
  // To the kernel a removed directory is dead, and stays so by its number.
  const auto another = fuse_.Walk(".host/trash/box");
  EXPECT_NE(another, number);
  EXPECT_EQ(fuse_.Echo("start", ".host/trash/box/status"), EACCES);
  EXPECT_EQ(fuse_.Stat(".host/trash/box/status")->mode & 0222, 0u);
  EXPECT_EQ(fuse_.Rename(".host/trash/box", "box"), 0);
  EXPECT_NE(fuse_.Walk("box"), number);
  EXPECT_EQ(fuse_.Rename("box", ".host/trash/box"), 0);
  EXPECT_EQ(fuse_.Rmdir(".host/trash/box"), 0);
  EXPECT_THAT(fuse_.Ls(".host/trash"), ElementsAre());
  EXPECT_EQ(backend_.Get(uuid), nullptr);
}

TEST_F(Basic, RmdirWhileRunningIsBusyAndSaysSo) {
  backend_.Add("box");
  EXPECT_EQ(fuse_.Echo("start", "box/status"), 0);
  EXPECT_EQ(fuse_.Rmdir("box"), EBUSY);
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("it is running"));
  EXPECT_EQ(fuse_.Echo("stop", "box/status"), 0);
  EXPECT_EQ(fuse_.Cat("box/error"), "");
  EXPECT_EQ(fuse_.Stat("box/error")->size, 0u);
}

TEST_F(Basic, RenameKeepsTheNumbers) {
  backend_.Add("box");
  const auto dir = fuse_.Walk("box");
  const auto status = fuse_.Walk("box/status");
  EXPECT_EQ(fuse_.Rename("box", "new"), 0);
  EXPECT_EQ(fuse_.Walk("box"), 0u);
  EXPECT_EQ(fuse_.Walk("new"), dir);
  EXPECT_EQ(fuse_.Walk("new/status"), status);
  EXPECT_EQ(fuse_.Rename("new", "not good"), EINVAL);
  backend_.Add("other");
  EXPECT_EQ(fuse_.Rename("new", "other", 1 /* NOREPLACE */), EEXIST);
  EXPECT_EQ(fuse_.Rename("new", "other"), EEXIST);
  EXPECT_EQ(fuse_.Rename("new", "other", 2 /* EXCHANGE */), EINVAL);
  EXPECT_EQ(fuse_.Rename("new", "other/new"), EPERM);
}

TEST_F(Basic, AnotherSandboxOfTheSameNameHasOtherNumbers) {
  const std::string uuid = backend_.Add("box");
  const auto dir = fuse_.Walk("box");
  const auto status = fuse_.Walk("box/status");
  backend_.Erase(uuid);
  EXPECT_EQ(fuse_.Walk("box"), 0u);
  backend_.Add("box");
  EXPECT_NE(fuse_.Walk("box"), dir);
  EXPECT_NE(fuse_.Walk("box/status"), status);
  // What is still open of the old one tells that it is gone.
  // The kernel looks the name up again.
  EXPECT_EQ(fuse_.Call(FUSE_GETATTR, dir, std::string(16, '\0')).error, ESTALE);
}

TEST_F(Basic, ValuesAreShownAndSet) {
  backend_.Add("box");
  EXPECT_EQ(fuse_.Cat("box/cpus"), "2\n");
  EXPECT_EQ(fuse_.Cat("box/memory"), "2GiB\n");
  EXPECT_EQ(fuse_.Echo("4", "box/cpus"), 0);
  EXPECT_EQ(fuse_.Cat("box/cpus"), "4\n");
  EXPECT_EQ(fuse_.Echo("1536MiB", "box/memory"), 0);
  EXPECT_EQ(fuse_.Cat("box/memory"), "1536MiB\n");
  EXPECT_EQ(fuse_.Echo("yes", "box/autostart"), 0);
  EXPECT_EQ(fuse_.Cat("box/autostart"), "yes\n");
  EXPECT_EQ(fuse_.Echo("maybe", "box/autostart"), EINVAL);
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("neither yes nor no"));
  EXPECT_EQ(fuse_.Stat("box/description")->size, 0u);
  EXPECT_EQ(fuse_.Echo("mine", "box/description"), 0);
  EXPECT_EQ(fuse_.Cat("box/description"), "mine\n");
  EXPECT_EQ(fuse_.Cat("box/error"), "");
  EXPECT_EQ(fuse_.Echo("", "box/cpus"), EINVAL);
}

TEST_F(Basic, SizesAreTrue) {
  backend_.Add("box");
  for (const auto& name : fuse_.Ls("box")) {
    if (S_ISDIR(fuse_.Stat("box/" + name)->mode)) continue;
    EXPECT_EQ(fuse_.Stat("box/" + name)->size, fuse_.Cat("box/" + name).size())
        << name;
  }
  for (const auto& name : fuse_.Ls(".host")) {
    if (S_ISDIR(fuse_.Stat(".host/" + name)->mode)) continue;
    EXPECT_EQ(fuse_.Stat(".host/" + name)->size,
              fuse_.Cat(".host/" + name).size())
        << name;
  }
}

TEST_F(Basic, ALineIsACommand) {
  backend_.Add("box");
  const auto file = fuse_.Open("box/cpus", O_RDWR | O_APPEND);
  EXPECT_EQ(fuse_.Write(file, "3", 17), 0);  // offsets mean nothing
  EXPECT_EQ(fuse_.Cat("box/cpus"), "3\n");
  EXPECT_EQ(fuse_.Write(file, "4\n5\n"), EINVAL);
  EXPECT_THAT(fuse_.Read(file), HasSubstr("several lines"));
  EXPECT_EQ(fuse_.Cat("box/cpus"), "3\n");
  EXPECT_EQ(fuse_.Write(file, std::string(5000, '1')), E2BIG);
  EXPECT_EQ(fuse_.Truncate(file, 0), 0);
  EXPECT_EQ(fuse_.Cat("box/cpus"), "3\n");
  EXPECT_EQ(fuse_.Close(file), 0);
}

TEST_F(Basic, TheSentenceIsReadOnTheSameOpenFile) {
  backend_.Add("box");
  const auto file = fuse_.Open("box/status", O_RDWR);
  EXPECT_EQ(fuse_.Read(file), "stopped\n");
  EXPECT_EQ(fuse_.Write(file, "strat\n", 8), EINVAL);
  const std::string sentence = fuse_.Read(file, 8);
  EXPECT_THAT(sentence, StartsWith("Cannot do 'strat': no such verb; there "
                                   "are start, stop, kill, "));
  EXPECT_EQ(fuse_.Read(file, 8 + sentence.size()), "");
  EXPECT_EQ(fuse_.Write(file, "start\n"), 0);
  EXPECT_EQ(fuse_.Read(file), "running\n");
  EXPECT_EQ(fuse_.Close(file), 0);
}

TEST_F(Basic, AReaderSeesOneMoment) {
  const std::string uuid = backend_.Add("box");
  const auto file = fuse_.Open("box/description", O_RDONLY);
  backend_.Update(uuid, [](Sandbox& one) { one.description = "later"; });
  EXPECT_EQ(fuse_.Read(file), "");
  EXPECT_EQ(fuse_.Cat("box/description"), "later\n");
  fuse_.Close(file);
}

TEST_F(Basic, ReadOnlyFilesRefuseRootToo) {
  backend_.Add("box");
  fuse_.caller = {0, 0, getpid()};
  EXPECT_EQ(fuse_.Echo("x", "box/reason"), EACCES);
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("'reason': it is read-only"));
}

TEST_F(Basic, ReadyTellsWhatIsWaitedFor) {
  const std::string uuid = backend_.Add("box");
  EXPECT_EQ(fuse_.Cat("box/ready"), "no: start\n");
  EXPECT_EQ(fuse_.Cat("box/ip"), "none: start\n");
  EXPECT_EQ(fuse_.Echo("start", "box/status"), 0);
  EXPECT_EQ(fuse_.Cat("box/ready"), "yes 41.2\n");
}

TEST_F(Basic, ModesFollowTheDirectory) {
  const std::string uuid = backend_.Add("box");
  EXPECT_EQ(fuse_.Stat("box/status")->mode, S_IFREG | 0600u);
  EXPECT_EQ(fuse_.Chmod("box", 0750), 0);
  EXPECT_EQ(fuse_.Stat("box")->mode, S_IFDIR | 0750u);
  EXPECT_EQ(fuse_.Stat("box/status")->mode, S_IFREG | 0640u);
  EXPECT_EQ(fuse_.Stat("box/authorized_keys")->mode, S_IFREG | 0600u);
  EXPECT_EQ(fuse_.Chmod("box", 0770), 0);
  EXPECT_EQ(fuse_.Stat("box/status")->mode, S_IFREG | 0660u);
  EXPECT_EQ(fuse_.Stat("box/ssh_config")->mode, S_IFREG | 0444u);
  EXPECT_EQ(fuse_.Stat("box/ssh_config")->uid, 0u);
  EXPECT_EQ(fuse_.Chmod("box/ssh_config", 0400), EPERM);
  EXPECT_EQ(fuse_.Chmod(".host", 0777), EPERM);
}

TEST_F(Basic, AFileCanBeHandedOutByItself) {
  const std::string uuid = backend_.Add("box");
  EXPECT_EQ(fuse_.Chmod("box", 0710), 0);
  EXPECT_EQ(fuse_.Chmod("box/status", 0660), 0);
  EXPECT_EQ(fuse_.Stat("box/status")->mode, S_IFREG | 0660u);
  EXPECT_EQ(fuse_.Stat("box/cpus")->mode, S_IFREG | 0600u);
  backend_.Update(uuid, [](Sandbox& one) { one.files["status"].gid = 77; });
  EXPECT_EQ(fuse_.Stat("box/status")->gid, 77u);
  EXPECT_EQ(fuse_.Stat("box/cpus")->gid, 1000u);
  // The directory's mode is not its own any more.
  EXPECT_EQ(fuse_.Chmod("box", 0755), 0);
  EXPECT_EQ(fuse_.Stat("box/status")->mode, S_IFREG | 0660u);
  EXPECT_EQ(fuse_.Stat("box/cpus")->mode, S_IFREG | 0644u);
  // The table's mode is the most there is; documents take what fits.
  EXPECT_EQ(fuse_.Chmod("box/reason", 0666), EPERM);
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("0444 is the most"));
  EXPECT_EQ(fuse_.Chmod("box/authorized_keys", 0755), 0);
  EXPECT_EQ(fuse_.Stat("box/authorized_keys")->mode, S_IFREG | 0600u);
  EXPECT_EQ(fuse_.Chmod("box/status", 0660), 0);
  EXPECT_THAT(backend_.Calls(),
              ElementsAre("rights box ", "rights box status", "rights box "));
  backend_.Update(uuid, [](Sandbox& one) { one.trashed = one.created; });
  EXPECT_EQ(fuse_.Stat(".host/trash/box/status")->mode, S_IFREG | 0440u);
  EXPECT_EQ(fuse_.Chmod(".host/trash/box/status", 0400), EPERM);
}

TEST_F(Basic, EventsAndListAreThoseOfTheReadersSandboxes) {
  const std::string mine = backend_.Add("mine");
  const std::string theirs = backend_.Add("theirs");
  backend_.Update(theirs, [](Sandbox& one) { one.uid = one.gid = 1001; });
  const auto file = fuse_.Open(".host/events", O_RDONLY);
  const Time now = std::chrono::system_clock::now();
  backend_.Tell({now, mine, "mine", "state", "running"});
  backend_.Tell({now, theirs, "theirs", "state", "paused"});
  backend_.Tell({now, "gone", "gone", "gone", "", 1001, 1001, 0700});
  backend_.Tell({now, "", "", "connection", "lost"});
  const std::string seen = fuse_.Read(file);
  EXPECT_THAT(seen, HasSubstr(" mine state running\n"));
  EXPECT_THAT(seen, HasSubstr(" .host connection lost\n"));
  EXPECT_THAT(seen, Not(HasSubstr("theirs")));
  EXPECT_THAT(seen, Not(HasSubstr("gone")));
  EXPECT_EQ(fuse_.Stat(".host/events")->size, seen.size());
  EXPECT_THAT(fuse_.Cat(".host/list"), Not(HasSubstr("theirs")));
  // What the reader may not see does not wake it either.
  EXPECT_EQ(fuse_.Poll(file, 9) & POLLIN, 0u);
  backend_.Tell({now, theirs, "theirs", "state", "running"});
  EXPECT_EQ(fuse_.Poll(file, 9) & POLLIN, 0u);
  fuse_.caller = {1001, 1001, getpid()};
  EXPECT_THAT(fuse_.Cat(".host/events"), HasSubstr(" theirs state paused\n"));
  EXPECT_THAT(fuse_.Cat(".host/events"), HasSubstr(" gone gone\n"));
  EXPECT_THAT(fuse_.Cat(".host/list"), Not(HasSubstr("mine")));
  fuse_.caller = {0, 0, getpid()};
  EXPECT_THAT(fuse_.Cat(".host/list"), HasSubstr("mine"));
  EXPECT_THAT(fuse_.Cat(".host/list"), HasSubstr("theirs"));
}

TEST_F(Basic, TheAuditTellsWhoChangedWhat) {
  fuse_.Mkdir("box");
  fuse_.Echo("4", "box/cpus");
  fuse_.Echo("fly", "box/status");
  fuse_.Echo("cpus: 3", "box/config.yaml");
  fuse_.Chmod("box/status", 0640);
  fuse_.Unlink("box/README");
  const auto scratch = fuse_.Create("box/a b", O_RDWR | O_EXCL);
  fuse_.Write(scratch, "5\n");
  fuse_.Close(scratch);
  fuse_.Rename("box/a b", "box/cpus");
  fuse_.Rename("box", "new");
  fuse_.Cat("new/status");
  const std::string text = fuse_.Cat(".host/audit");
  std::string told;
  const std::string who =
      "1000 " + std::to_string(getpid()) + " session_tests ";
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto at = line.find("Z " + who);
    ASSERT_EQ(at, 23u) << line;
    told += line.substr(at + 2 + who.size()) + '\n';
  }
  EXPECT_EQ(told,
            "mkdir box ok\n"
            "write box/cpus ok 4\n"
            "write box/status EINVAL fly\n"
            "store box/config.yaml ok 8 bytes\n"
            "chmod box/status ok 0640\n"
            "unlink box/README EPERM\n"
            "rename box/a\\040b ok box/cpus\n"
            "rename box ok new\n");
  EXPECT_EQ(fuse_.Stat(".host/audit")->size, text.size());
  fuse_.caller = {1001, 1001, getpid()};
  EXPECT_EQ(fuse_.Cat(".host/audit"), "");
}

TEST_F(Basic, NothingElseCanBeMade) {
  backend_.Add("box");
  EXPECT_EQ(fuse_.Copy("start\n", "box/statsu"), EPERM);
  EXPECT_THAT(fuse_.Cat("box/error"), HasSubstr("did you mean 'status'?"));
  EXPECT_EQ(fuse_.Copy("x", "file"), EPERM);
  EXPECT_EQ(fuse_.Mkdir("box/sub"), EPERM);
  EXPECT_EQ(fuse_.Mkdir(".host/sub"), EPERM);
  EXPECT_EQ(fuse_.Rmdir(".host"), EPERM);
  EXPECT_EQ(fuse_.Rename("box/status", "box/x"), EPERM);
}

// As a clone does that is made while a tool makes a file of that name.
TEST_F(Basic, ASandboxThatTakesAToolsNameIsListedOnce) {
  EXPECT_EQ(fuse_.Close(fuse_.Create("sedXY", O_RDWR | O_CREAT | O_EXCL)), 0);
  EXPECT_THAT(fuse_.Ls(""), ElementsAre(".host", "sedXY"));
  backend_.Add("sedXY");
  EXPECT_THAT(fuse_.Ls(""), ElementsAre(".host", "sedXY"));
  EXPECT_THAT(fuse_.Ls("sedXY"), Contains("status"));
}

TEST_F(Basic, ListAndSshConfigShowEverySandbox) {
  backend_.Add("box");
  const std::string uuid = backend_.Add("theirs");
  backend_.Update(uuid, [](Sandbox& one) { one.uid = 1001; });
  for (const char* name : {"box"}) {
    backend_.Update(backend_.Find(name)->uuid, [](Sandbox& one) {
      one.uid = 1000;
      one.forward_agent = true;
    });
  }
  EXPECT_THAT(fuse_.Cat(".host/list"), StartsWith("NAME  STATE    IP  PORT"));
  EXPECT_THAT(fuse_.Cat(".host/list"), HasSubstr("\nbox   stopped  -   2200"));
  const std::string config = fuse_.Cat(".host/ssh_config");
  EXPECT_THAT(config, HasSubstr("Host sbx-box\n  HostName 127.0.0.1\n"));
  EXPECT_THAT(config, HasSubstr("  ProxyCommand \"/usr/bin/sbxfs\" --connect "
                                "\"/mnt/sbx/box\"\n"));
  EXPECT_THAT(config, HasSubstr("IdentityFile \"/home/me"));
  EXPECT_THAT(config, HasSubstr("ForwardAgent yes\n"));
  EXPECT_THAT(config, Not(HasSubstr("ForwardX11")));
  EXPECT_THAT(config, Not(HasSubstr("theirs")));
  fuse_.caller = {1001, 1001, getpid()};
  EXPECT_THAT(fuse_.Cat(".host/ssh_config"), HasSubstr("sbx-theirs"));
  EXPECT_THAT(fuse_.Cat(".host/ssh_config"), Not(HasSubstr("IdentityFile")));
}

TEST_F(Basic, ReadmeFitsAScreen) {
  backend_.Add("box");
  const std::string host = fuse_.Cat(".host/README");
  EXPECT_LE(std::count(host.begin(), host.end(), '\n'), 48);
  EXPECT_THAT(host, HasSubstr("\n  cd /mnt/sbx\n  mkdir box "));
  const std::string box = fuse_.Cat("box/README");
  EXPECT_LE(std::count(box.begin(), box.end(), '\n'), 40) << box;
}

}  // namespace
}  // namespace sbxfs
