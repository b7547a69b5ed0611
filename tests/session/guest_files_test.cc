#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "fs/guest_place.h"
#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// box/fs: the files of a guest.

namespace sbxfs {
namespace {

using std::chrono::milliseconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

constexpr milliseconds kFilesBefore{2000};
constexpr milliseconds kFilesStill{150};

TEST(TargetWithin, LeadsNowhereElse) {
  const auto at = [](const char* path, const char* target) {
    return TargetWithin(path, target);
  };
  EXPECT_EQ(at("vmlinuz", "boot/vmlinuz-6"), "boot/vmlinuz-6");
  EXPECT_EQ(at("usr/bin/vi", "/etc/alternatives/vi"),
            "../../etc/alternatives/vi");
  EXPECT_EQ(at("bin", "/usr/bin/"), "usr/bin/");
  EXPECT_EQ(at("a/b/root", "/"), "../..");
  EXPECT_EQ(at("root", "/"), ".");
  EXPECT_EQ(at("a/b/c", "../../x"), "../../x");
  // Above the root there is the root.
  EXPECT_EQ(at("a/b/c", "../../../../etc/passwd"), "../../etc/passwd");
  EXPECT_EQ(at("a/b", "/../../etc/passwd"), "../etc/passwd");
  // Behind a name, which may be a link to the root, it leads up no more.
  EXPECT_EQ(at("a/b/c", "up/../../../../etc"), "../../etc");
  EXPECT_EQ(at("a/b", "./x//y/./z/"), "./x//y/./z/");
  EXPECT_EQ(at("a/b", ".././x/"), ".././x/");
  EXPECT_EQ(at("a/b", "x//../y/"), "y/");
  EXPECT_EQ(at("a/b", "x/.."), ".");
  EXPECT_EQ(at("a/b", ""), ".");
}

class GuestFilesTest : public testing::Test {
 protected:
  GuestFilesTest() {
    backend_.Update(uuid_, [](Sandbox& sandbox) {
      sandbox.state = State::kRunning;
      sandbox.ready = true;
      sandbox.uid = 500;
      sandbox.gid = 600;
    });
    files_.Put(box_, "etc", S_IFDIR | 0755, "", 0);
    files_.Put(box_, "etc/motd", S_IFREG | 0644, "hello\n", 0);
    files_.Put(box_, "home", S_IFDIR | 0755, "", 1000);
    files_.Put(box_, "home/note", S_IFREG | 0640, "one two\n");
    files_.Put(box_, "home/link", S_IFLNK | 0777, "/etc/motd");
    fuse_.caller = {500, 600, getpid()};
  }
  std::string Bytes(const std::string& path) {
    const auto file = files_.Get(box_, path);
    return file ? file->bytes : "(none)";
  }
  std::string Error() { return fuse_.Cat("box/error"); }
  std::string Readlink(const std::string& path) {
    return fuse_.Call(FUSE_READLINK, fuse_.Walk(path), "").data;
  }
  int Symlink(const std::string& dir, const std::string& name,
              const std::string& target) {
    const auto answer =
        fuse_.Call(FUSE_SYMLINK, fuse_.Walk(dir), name + '\0' + target + '\0');
    return answer.error;
  }

  FakeBackend backend_;
  const std::string uuid_ = backend_.Add("box");
  const FilesOf box_{uuid_, ""};
  FakeFiles& files_ = backend_.GetFiles();
  FakeFuse fuse_{backend_};
};

TEST_F(GuestFilesTest, AreThereForWhoNamesThem) {
  EXPECT_THAT(fuse_.Ls("box"), Not(Contains("fs")));
  EXPECT_THAT(fuse_.Ls("box/fs"), UnorderedElementsAre("etc", "home"));
  EXPECT_EQ(fuse_.Cat("box/fs/etc/motd"), "hello\n");
  EXPECT_EQ(fuse_.Walk("box/fs/etc/none"), 0U);
  EXPECT_EQ(Error(), "");
  EXPECT_THAT(fuse_.Cat(".host/audit"), Not(HasSubstr("fs")));
}

TEST_F(GuestFilesTest, TheGuestsUserIsWhoHasTheSandbox) {
  const auto root = fuse_.Stat("box/fs");
  ASSERT_TRUE(root);
  EXPECT_EQ(root->mode, unsigned{S_IFDIR | 0700});
  EXPECT_EQ(root->uid, 500U);
  const auto own = fuse_.Stat("box/fs/home/note");
  ASSERT_TRUE(own);
  EXPECT_EQ(own->mode, unsigned{S_IFREG | 0640});
  EXPECT_EQ(own->uid, 500U);
  EXPECT_EQ(own->gid, 600U);
  EXPECT_EQ(own->size, 8U);
  const auto other = fuse_.Stat("box/fs/etc/motd");
  ASSERT_TRUE(other);
  EXPECT_EQ(other->uid, 0U);
  // Nobody but who has it: others may be let into the sandbox's directory.
  backend_.Update(uuid_, [](Sandbox& sandbox) { sandbox.mode = 0755; });
  EXPECT_EQ(fuse_.Stat("box/fs")->mode, unsigned{S_IFDIR | 0700});
  EXPECT_EQ(fuse_.Chmod("box/fs", 0755), EPERM);
}

TEST_F(GuestFilesTest, TellTheSpaceOfTheGuest) {
  const auto space = [&](const std::string& path) {
    const auto answer = fuse_.Call(FUSE_STATFS, fuse_.Walk(path), "");
    EXPECT_EQ(answer.error, 0);
    fuse_statfs_out out{};
    memcpy(&out, answer.data.data(), std::min(sizeof out, answer.data.size()));
    return out.st;
  };
  for (const char* path : {"box/fs", "box/fs/etc/motd"}) {
    const auto guest = space(path);
    EXPECT_EQ(guest.bsize, 512U);  // it said 0
    EXPECT_EQ(guest.blocks, 900U);
    EXPECT_EQ(guest.bfree, 400U);
    EXPECT_EQ(guest.bavail, 300U);
    EXPECT_EQ(guest.files, 70U);
    EXPECT_EQ(guest.ffree, 60U);
  }
  EXPECT_NE(space("box").blocks, 900U);
}

TEST_F(GuestFilesTest, AreMadeWrittenCutAndRemoved) {
  const auto file = fuse_.Create("box/fs/home/new", O_RDWR | O_EXCL);
  ASSERT_EQ(file.error, 0);
  EXPECT_EQ(fuse_.Write(file, "abcdef"), 0);
  EXPECT_EQ(fuse_.Write(file, "XY", 2), 0);
  EXPECT_EQ(fuse_.Read(file), "abXYef");
  EXPECT_EQ(fuse_.Truncate(file, 3), 0);
  EXPECT_EQ(fuse_.Fsync(file), 0);
  EXPECT_EQ(fuse_.Close(file), 0);
  EXPECT_EQ(Bytes("home/new"), "abX");
  EXPECT_EQ(fuse_.Chmod("box/fs/home/new", 0600), 0);
  EXPECT_EQ(files_.Get(box_, "home/new")->facts.mode, S_IFREG | 0600U);
  EXPECT_EQ(fuse_.Create("box/fs/home/new", O_RDWR | O_EXCL).error, EEXIST);
  EXPECT_EQ(fuse_.Rename("box/fs/home/new", "box/fs/home/note"), 0);
  EXPECT_EQ(Bytes("home/note"), "abX");
  EXPECT_EQ(fuse_.Mkdir("box/fs/home/dir"), 0);
  EXPECT_EQ(fuse_.Mkdir("box/fs/home/dir"), EEXIST);
  EXPECT_EQ(fuse_.Rename("box/fs/home/note", "box/fs/home/dir/note"), 0);
  EXPECT_EQ(fuse_.Rmdir("box/fs/home/dir"), ENOTEMPTY);
  EXPECT_EQ(fuse_.Unlink("box/fs/home/dir/note"), 0);
  EXPECT_EQ(fuse_.Rmdir("box/fs/home/dir"), 0);
  EXPECT_EQ(Bytes("home/dir"), "(none)");
  EXPECT_EQ(fuse_.Unlink("box/fs/home/dir"), ENOENT);
  EXPECT_EQ(Error(), "");
  EXPECT_THAT(fuse_.Cat(".host/audit"), Not(HasSubstr("home")));
}

TEST_F(GuestFilesTest, GoAlongWhenTheyAreRenamed) {
  const auto dir = fuse_.Walk("box/fs/home");
  const auto file = fuse_.Open("box/fs/home/note", O_RDWR);
  ASSERT_EQ(file.error, 0);
  EXPECT_EQ(fuse_.Rename("box/fs/home", "box/fs/house"), 0);
  // By their numbers, and by their new names under the same.
  EXPECT_EQ(fuse_.Write(file, "ONE"), 0);
  EXPECT_EQ(Bytes("house/note"), "ONE two\n");
  EXPECT_EQ(fuse_.Call(FUSE_GETATTR, file.node, std::string(16, '\0')).error,
            0);
  EXPECT_EQ(fuse_.Walk("box/fs/house"), dir);
  EXPECT_EQ(fuse_.Walk("box/fs/house/note"), file.node);
  // What comes to their old names is another.
  EXPECT_EQ(fuse_.Mkdir("box/fs/home"), 0);
  EXPECT_NE(fuse_.Walk("box/fs/home"), dir);
  // Nor does one that is open end with its name.
  EXPECT_EQ(fuse_.Unlink("box/fs/house/note"), 0);
  EXPECT_EQ(fuse_.Read(file), "ONE two\n");
  EXPECT_EQ(fuse_.Call(FUSE_GETATTR, file.node, std::string(16, '\0')).error,
            0);
  const auto next = fuse_.Create("box/fs/house/note", O_RDWR);
  EXPECT_NE(next.node, file.node);
}

TEST_F(GuestFilesTest, LinksStayInTheGuest) {
  EXPECT_EQ(Readlink("box/fs/home/link"), "../etc/motd");
  EXPECT_EQ(Symlink("box/fs/home", "out", "../../../../etc/passwd"), 0);
  EXPECT_EQ(Bytes("home/out"), "../../../../etc/passwd");
  EXPECT_EQ(Readlink("box/fs/home/out"), "../etc/passwd");
  EXPECT_EQ(Symlink("box/fs/home", "out", "x"), EEXIST);
  EXPECT_EQ(Symlink("box", "out", "x"), EPERM);
}

TEST_F(GuestFilesTest, NothingGoesInOrOutByARename) {
  EXPECT_EQ(fuse_.Rename("box/fs/home/note", "box/config.yaml"), EXDEV);
  EXPECT_EQ(fuse_.Rename("box/config.yaml", "box/fs/home/config.yaml"), EXDEV);
  EXPECT_EQ(
      fuse_.Rename("box/fs/etc/motd", "box/fs/home/note", RENAME_NOREPLACE),
      EEXIST);
  EXPECT_EQ(
      fuse_.Rename("box/fs/etc/motd", "box/fs/home/note", RENAME_EXCHANGE),
      EINVAL);
}

TEST_F(GuestFilesTest, SpecialOnesAreTheGuestsAlone) {
  files_.Put(box_, "home/pipe", S_IFIFO | 0666);
  const auto pipe = fuse_.Stat("box/fs/home/pipe");
  ASSERT_TRUE(pipe);
  EXPECT_EQ(pipe->mode, unsigned{S_IFIFO});
  EXPECT_EQ(fuse_.Open("box/fs/home/pipe", O_RDONLY).error, ENXIO);
}

TEST_F(GuestFilesTest, WhoWaitsCanBeInterrupted) {
  const auto node = fuse_.Walk("box/fs/home");
  const auto file = fuse_.Open("box/fs/home/note", O_RDWR);
  files_.Hold();
  // A pid of no process of this namespace: nobody to ask what it was.
  fuse_.caller.pid = 0;
  for (const auto waiting :
       {fuse_.Send(FUSE_LOOKUP, node, std::string("note") + '\0'),
        fuse_.Send(FUSE_OPENDIR, node, std::string(8, '\0')),
        fuse_.SendWrite(file, "ONE")}) {
    EXPECT_FALSE(fuse_.Answered(waiting, kFilesStill));
    // Others go on meanwhile.
    EXPECT_EQ(fuse_.Cat("box/status"), "running\n");
    EXPECT_TRUE(fuse_.Stat("box/fs"));
    fuse_.Interrupt(waiting);
    EXPECT_TRUE(fuse_.Answered(waiting, kFilesBefore));
    EXPECT_EQ(fuse_.Wait(waiting).error, EINTR);
  }
  files_.Release();
  EXPECT_EQ(fuse_.Read(file), "one two\n");
  EXPECT_EQ(Error(), "");
}

TEST_F(GuestFilesTest, AGuestThatCannotBeAskedIsToldOf) {
  files_.Refuse(sbxfs::Error(EHOSTDOWN, "Cannot reach it: it sleeps"));
  EXPECT_TRUE(fuse_.Stat("box/fs"));
  const auto node = fuse_.Walk("box/fs");
  EXPECT_EQ(fuse_.Call(FUSE_OPENDIR, node, std::string(8, '\0')).error,
            EHOSTDOWN);
  EXPECT_THAT(Error(), HasSubstr("it sleeps"));
}

TEST_F(GuestFilesTest, OfASnapshotAreReadOnly) {
  backend_.Update(uuid_, [](Sandbox& sandbox) {
    Snapshot snapshot;
    snapshot.tag = "good";
    snapshot.layer = "layer1";
    sandbox.snapshots["good"] = snapshot;
  });
  files_.Put({uuid_, "good"}, "secret", S_IFREG | 0000, "old\n", 0);
  files_.Put({uuid_, "good"}, "dir", S_IFDIR | 0700, "", 0);
  EXPECT_THAT(fuse_.Ls("box/snapshots/good"), Not(Contains("fs")));
  EXPECT_EQ(fuse_.Stat("box/snapshots/good/fs")->mode,
            unsigned{S_IFDIR | 0500});
  EXPECT_EQ(fuse_.Stat("box/snapshots/good/fs/secret")->mode,
            unsigned{S_IFREG | 0400});
  EXPECT_EQ(fuse_.Stat("box/snapshots/good/fs/dir")->mode,
            unsigned{S_IFDIR | 0500});
}

TEST_F(GuestFilesTest, ALongListingComesWhole) {
  for (int i = 0; i < 10000; ++i) {
    files_.Put(box_, "home/f" + std::to_string(i), S_IFREG | 0600);
  }
  EXPECT_EQ(fuse_.Ls("box/fs/home").size(), 10002U);
}

TEST_F(GuestFilesTest, WhatIsOpenOutlivesTheDaemon) {
  const auto file = fuse_.Open("box/fs/home/note", O_RDWR);
  const auto end = fuse_.Open("box/fs/etc/motd", O_WRONLY | O_APPEND);
  const auto dir = fuse_.Walk("box/fs/home");
  ASSERT_TRUE(fuse_.HandsOver(kFilesBefore));
  fuse_.GoOn();
  EXPECT_EQ(fuse_.Read(file), "one two\n");
  EXPECT_EQ(fuse_.Write(file, "ONE"), 0);
  EXPECT_EQ(fuse_.Write(end, "more\n"), 0);
  EXPECT_EQ(Bytes("home/note"), "ONE two\n");
  // A directory that somebody is in, too.
  EXPECT_EQ(fuse_.Lookup(dir, "note").error, 0);
  fuse_.Crash();
  EXPECT_EQ(fuse_.Write(file, "TWO", 4), 0);
  EXPECT_EQ(Bytes("home/note"), "ONE TWO\n");
  EXPECT_EQ(fuse_.Lookup(dir, "note").error, 0);
  EXPECT_EQ(fuse_.Close(file), 0);
}

TEST_F(GuestFilesTest, WhatWasClosedIsTheDisksOnceTheGuestStops) {
  const auto file = fuse_.Open("box/fs/home/note", O_RDWR);
  EXPECT_EQ(fuse_.Close(file), 0);
  backend_.Update(uuid_, [](Sandbox& sandbox) {
    sandbox.state = State::kStopped;
    sandbox.ready = false;
  });
  // By its number too, which the kernel comes with while it keeps the name.
  const auto look = fuse_.Call(FUSE_GETATTR, file.node,
                               std::string(sizeof(fuse_getattr_in), '\0'));
  EXPECT_EQ(look.error, 0);
  EXPECT_EQ(fuse_.Walk("box/fs/home/note"), file.node);
}

// A guest that was killed had not written all of it to its disk, and its
// connection may not know yet that it is gone.
TEST_F(GuestFilesTest, WhatIsOpenIsNotWhatTheDiskHas) {
  const auto file = fuse_.Open("box/fs/home/note", O_RDWR);
  backend_.Update(uuid_, [](Sandbox& sandbox) {
    sandbox.state = State::kStopped;
    sandbox.ready = false;
  });
  files_.Put(box_, "home/note", S_IFREG | 0640, "");
  const auto look = [&] {
    return fuse_.Call(FUSE_GETATTR, file.node,
                      std::string(sizeof(fuse_getattr_in), '\0'));
  };
  const auto answer = look();
  ASSERT_EQ(answer.error, 0);
  fuse_attr_out now;
  memcpy(&now, answer.data.data(), sizeof now);
  EXPECT_EQ(now.attr.size, 8U);
  EXPECT_NE(fuse_.Walk("box/fs/home/note"), file.node);
  EXPECT_EQ(fuse_.Cat("box/fs/home/note"), "");
  // Another daemon, which has not opened it, knows so, too.
  fuse_.Crash();
  EXPECT_EQ(look().error, EHOSTDOWN);
  EXPECT_EQ(fuse_.Write(file, "ONE"), EHOSTDOWN);
  EXPECT_NE(fuse_.Walk("box/fs/home/note"), file.node);
  EXPECT_EQ(fuse_.Cat("box/fs/home/note"), "");
}

TEST_F(GuestFilesTest, WhatACrashInterruptsIsDoneOnce) {
  const auto file = fuse_.Open("box/fs/home/note", O_RDWR);
  const auto end = fuse_.Open("box/fs/etc/motd", O_WRONLY | O_APPEND);
  const auto home = fuse_.Walk("box/fs/home");
  files_.Hold();
  const auto at = fuse_.SendWrite(file, "ONE");
  const auto append = fuse_.SendWrite(end, "more\n");
  const auto mkdir =
      fuse_.Send(FUSE_MKDIR, home,
                 std::string(sizeof(fuse_mkdir_in), '\0') + "dir" + '\0');
  EXPECT_FALSE(fuse_.Answered(at, kFilesStill));
  fuse_.Crash();
  files_.Release();
  EXPECT_EQ(fuse_.Wait(at).error, 0);
  // Whether it came there cannot be told.
  EXPECT_EQ(fuse_.Wait(append).error, EIO);
  EXPECT_EQ(fuse_.Wait(mkdir).error, 0);
  EXPECT_EQ(Bytes("home/note"), "ONE two\n");
}

}  // namespace
}  // namespace sbxfs
