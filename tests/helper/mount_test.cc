// mount(8), umount(8) and fstab(5) with mount.sbxfs and a real daemon on
// libvirt's test driver.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/helper/mount_fixture.h"

namespace sbxfs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kUri = "test:///default";

TEST_F(MountTest, MountsWhenMountReturns) {
  const Ran ran = Mount({"-t", "sbxfs", kUri, dir_});
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, "");
  EXPECT_EQ(ran.err, "");
  // At once: no waiting here.
  EXPECT_TRUE(std::filesystem::exists(dir_ + "/.host/uri"));
  EXPECT_THAT(MountsOn(dir_),
              ElementsAre(HasSubstr(" - fuse.sbxfs test:///default rw")));
  EXPECT_EQ(Umount(dir_).status, 0);
  EXPECT_THAT(MountsOn(dir_), IsEmpty());
  EXPECT_TRUE(DaemonsEnd());
}

TEST_F(MountTest, Options) {
  const Ran ran = Mount({"-t", "sbxfs", kUri, dir_, "-o",
                         "ro,noexec,trash=2h,_netdev,nofail,x-a,comment=b,"
                         "relatime"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const auto mounts = MountsOn(dir_);
  ASSERT_THAT(mounts, SizeIs(1));
  EXPECT_THAT(mounts[0], HasSubstr(" ro,nosuid,nodev,noexec"));
  EXPECT_THAT(mounts[0], HasSubstr("default_permissions"));
  EXPECT_EQ(Run({"mkdir", dir_ + "/box"}).err,
            fmt::format("mkdir: cannot create directory ‘{}/box’: Read-only "
                        "file system\n",
                        dir_));
}

TEST_F(MountTest, FstabOnceForTwoMountAll) {
  WriteFstab(fmt::format("{} {} sbxfs nofail,trash=1h 0 0\n", kUri, dir_));
  const Ran first = Mount({"-a"});
  ASSERT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(MountsOn(dir_), SizeIs(1));
  const Ran second = Mount({"-a"});
  EXPECT_EQ(second.status, 0) << second.err;
  EXPECT_EQ(second.err, "");
  EXPECT_THAT(MountsOn(dir_), SizeIs(1));
  EXPECT_THAT(Daemons(), SizeIs(1));
  EXPECT_EQ(Umount(dir_).status, 0);
}

TEST_F(MountTest, SecondMountIsRefused) {
  ASSERT_EQ(Mount({"-t", "sbxfs", kUri, dir_}).status, 0);
  const Ran same = Mount({"-t", "sbxfs", kUri, dir_});
  EXPECT_EQ(same.status, 32);
  EXPECT_EQ(same.err,
            fmt::format("sbxfs: Cannot mount '{}' on '{}': it is mounted there "
                        "already\n",
                        kUri, dir_));
  const Ran other = Mount({"-t", "sbxfs", "test:///other", dir_});
  EXPECT_EQ(other.status, 32);
  EXPECT_EQ(other.err,
            fmt::format("sbxfs: Cannot mount on '{0}': '{1}' is mounted there; "
                        "unmount it with umount '{0}'\n",
                        dir_, kUri));
  EXPECT_THAT(MountsOn(dir_), SizeIs(1));
  EXPECT_THAT(Daemons(), SizeIs(1));
}

TEST_F(MountTest, RemountIsRefusedInWords) {
  WriteFstab(fmt::format("{} {} sbxfs nofail 0 0\n", kUri, dir_));
  ASSERT_EQ(Mount({dir_}).status, 0);
  const Ran ran = Mount({"-o", "remount,ro", dir_});
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(ran.err,
            fmt::format("mount.sbxfs: Cannot remount '{}': its options are "
                        "fixed while it is mounted; unmount it and mount it "
                        "again\n",
                        dir_));
  EXPECT_THAT(MountsOn(dir_), ElementsAre(HasSubstr(" rw")));
}

// Without a line in fstab the request goes to mount.fuse3, which runs sbxfs.
TEST_F(MountTest, RemountByMountFuseIsRefusedToo) {
  ASSERT_EQ(Mount({"-t", "sbxfs", kUri, dir_}).status, 0);
  const Ran ran = Mount({"-o", "remount,ro", dir_});
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(ran.err,
            "sbxfs: Cannot remount: the options of a mount are fixed while it "
            "is mounted; unmount it and mount it again\n");
  EXPECT_THAT(MountsOn(dir_), ElementsAre(HasSubstr(" rw")));
}

// The fallback for who has not installed the helper.
TEST_F(MountTest, ThroughMountFuse) {
  const Ran ran = Mount({"-t", "fuse.sbxfs", kUri, dir_});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(MountsOn(dir_),
              ElementsAre(HasSubstr(" - fuse.sbxfs test:///default rw")));
  EXPECT_EQ(Umount(dir_).status, 0);
}

// A build tree works without being installed.
TEST_F(MountTest, TheDaemonBesideTheHelperWillDo) {
  std::filesystem::remove(kDaemon);
  const Ran ran = Mount({"-v", "-f", "-t", "sbxfs", kUri, dir_});
  std::filesystem::create_symlink(root_ / "bin/sbxfs", kDaemon);
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr(fmt::format("mount.sbxfs: {}/bin/sbxfs ",
                                             root_.string())));
}

TEST_F(MountTest, WithoutADaemon) {
  std::filesystem::remove(kDaemon);
  std::filesystem::rename(root_ / "bin/sbxfs", root_ / "bin/away");
  const Ran ran = Mount({"-t", "sbxfs", kUri, dir_});
  std::filesystem::rename(root_ / "bin/away", root_ / "bin/sbxfs");
  std::filesystem::create_symlink(root_ / "bin/sbxfs", kDaemon);
  EXPECT_EQ(ran.status, 2);
  EXPECT_EQ(ran.err, fmt::format("mount.sbxfs: Cannot run '{}': No such file "
                                 "or directory\n",
                                 kDaemon));
}

TEST_F(MountTest, FakeSaysAndMountsNothing) {
  const Ran ran = Mount({"-f", "-t", "sbxfs", kUri, dir_});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out,
            fmt::format("sbxfs: would mount '{}' on '{}'\n", kUri, dir_));
  EXPECT_THAT(MountsOn(dir_), IsEmpty());
  const Ran wrong = Mount({"-f", "-t", "sbxfs", kUri, dir_, "-o", "trsh=1d"});
  EXPECT_EQ(wrong.status, 1);
  EXPECT_EQ(wrong.err,
            "sbxfs: Cannot use option 'trsh=1d': no such option; did you mean "
            "'trash'\n");
  EXPECT_EQ(Mount({"-f", "-t", "sbxfs", kUri, dir_ + "x"}).status, 32);
}

TEST_F(MountTest, VerboseShowsTheCommand) {
  const Ran ran =
      Mount({"-f", "-v", "-t", "sbxfs", kUri, dir_, "-o", "ro,nofail"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr(fmt::format("/sbxfs --check -o ro -- {} {}\n",
                                             kUri, dir_)));
}

TEST_F(MountTest, SloppyWarns) {
  const Ran ran =
      Mount({"-f", "-s", "-t", "sbxfs", kUri, dir_, "-o", "flamingo"});
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(ran.err, "sbxfs: Cannot use option 'flamingo': no such option\n");
}

TEST_F(MountTest, QuotedComma) {
  const std::string log = dir_ + "-a,b";
  const Ran ran = Mount({"-t", "sbxfs", kUri, dir_, "-o",
                         fmt::format("log=\"{}\",loglevel=debug", log)});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_TRUE(std::filesystem::exists(log));
  std::filesystem::remove(log);
}

TEST_F(MountTest, Refusals) {
  const std::string file = dir_ + "-file";
  std::ofstream(file) << "x";
  const struct {
    std::vector<std::string> words;
    int status;
    std::string error;
  } kCases[] = {
      {{kUri, dir_ + "/none"},
       32,
       fmt::format("Cannot mount on '{}/none': No such file or directory; make "
                   "it first, with mkdir",
                   dir_)},
      {{kUri, file},
       32,
       fmt::format("Cannot mount on '{}': Not a directory", file)},
      {{kUri, dir_, "-o", "loglevel=loud,all=1"},
       1,
       "Cannot use option 'all=1': it takes no value"},
      {{"-o", "ro", "--", "-x", dir_},
       1,
       "Cannot mount '-x': not a libvirt URI; the form is qemu:///system"},
      {{kUri, dir_, "-o", "gid=nosuchgroup,allow_other"},
       1,
       "Cannot use option 'gid=nosuchgroup': no such group"},
      {{"nosuch:///driver", dir_},
       32,
       "Cannot connect to 'nosuch:///driver': "},
  };
  for (const auto& [words, status, error] : kCases) {
    std::vector<std::string> all = {"-t", "sbxfs"};
    all.insert(all.end(), words.begin(), words.end());
    const Ran ran = Mount(all);
    EXPECT_EQ(ran.status, status) << error;
    EXPECT_THAT(ran.err, HasSubstr("sbxfs: " + error));
    EXPECT_THAT(MountsOn(dir_), IsEmpty());
  }
  std::filesystem::remove(file);
}

TEST_F(MountTest, UserMountsAndUnmounts) {
  WriteFstab(fmt::format("{} {} sbxfs noauto,user 0 0\n", kUri, dir_));
  const Ran ran = Mount({dir_}, kUser);
  ASSERT_EQ(ran.status, 0) << ran.err;
  const auto mounts = MountsOn(dir_);
  ASSERT_THAT(mounts, SizeIs(1));
  EXPECT_THAT(mounts[0], HasSubstr(" - fuse.sbxfs test:///default "));
  EXPECT_THAT(mounts[0], HasSubstr(fmt::format("user_id={}", kUser)));
  EXPECT_THAT(mounts[0], HasSubstr("nosuid,nodev,noexec"));
  EXPECT_EQ(Run({"mkdir", dir_ + "/box"}, kUser).status, 0);
  EXPECT_EQ(Run({"rmdir", dir_ + "/box"}, kUser).status, 0);
  const Ran gone = Umount(dir_, kUser);
  EXPECT_EQ(gone.status, 0) << gone.err;
  EXPECT_THAT(MountsOn(dir_), IsEmpty());
}

// mount 2.34 and later run the helper for anybody, with their rights.
TEST_F(MountTest, UserMountsWithoutTheOptionWhereTheyMayWrite) {
  const Ran ran = Mount({"-t", "sbxfs", kUri, dir_}, kUser);
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(Umount(dir_, kUser).status, 0);
  ASSERT_EQ(chown(dir_.c_str(), 0, 0), 0);
  const Ran refused = Mount({"-t", "sbxfs", kUri, dir_}, kUser);
  EXPECT_EQ(refused.status, 1);
  EXPECT_EQ(refused.err,
            fmt::format("sbxfs: Cannot mount on '{}': it is neither yours nor "
                        "writable for you, as FUSE wants it; mount on a "
                        "directory of yours\n",
                        dir_));
  EXPECT_THAT(MountsOn(dir_), IsEmpty());
}

// Nobody shall fill the directory while nothing is mounted on it.
TEST_F(MountTest, UserMountsOnAReadOnlyDirectory) {
  const auto mode = [this] {
    struct stat status;
    return stat(dir_.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
  };
  ASSERT_EQ(chmod(dir_.c_str(), 0500), 0);
  const Ran ran = Mount({"-t", "sbxfs", kUri, dir_}, kUser);
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(Umount(dir_, kUser).status, 0);
  EXPECT_EQ(mode(), 0500);
  EXPECT_EQ(Mount({"-t", "sbxfs", "nosuch:///driver", dir_}, kUser).status, 32);
  EXPECT_EQ(mode(), 0500);
}

TEST_F(MountTest, BusyUmountIsRefusedAndTheMountGoesOn) {
  ASSERT_EQ(Mount({"-t", "sbxfs", kUri, dir_}).status, 0);
  std::ifstream open_file(dir_ + "/.host/uri");
  ASSERT_TRUE(open_file.is_open());
  const Ran busy = Umount(dir_);
  EXPECT_EQ(busy.status, 32);
  EXPECT_THAT(busy.err, HasSubstr("target is busy"));
  open_file.close();
  EXPECT_EQ(Umount(dir_).status, 0);
}

TEST_F(MountTest, TerminationUnmounts) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    ASSERT_EQ(Mount({"-t", "sbxfs", kUri, dir_}).status, 0);
    const auto daemons = Daemons();
    ASSERT_THAT(daemons, SizeIs(1));
    kill(daemons[0], signal);
    EXPECT_TRUE(DaemonsEnd());
    EXPECT_THAT(MountsOn(dir_), IsEmpty());
  }
}

TEST_F(MountTest, ADeadMountIsNamed) {
  ASSERT_EQ(Mount({"-t", "sbxfs", kUri, dir_}).status, 0);
  const auto daemons = Daemons();
  ASSERT_THAT(daemons, SizeIs(1));
  kill(daemons[0], SIGKILL);
  EXPECT_TRUE(DaemonsEnd());
  const Ran ran = Mount({"-t", "sbxfs", kUri, dir_});
  EXPECT_EQ(ran.status, 32);
  EXPECT_THAT(ran.err, HasSubstr("it is mounted there already"));
  EXPECT_EQ(Umount(dir_).status, 0);
  EXPECT_EQ(Mount({"-t", "sbxfs", kUri, dir_}).status, 0);
}

TEST_F(MountTest, TheDaemonHasAnEnvironment) {
  ASSERT_EQ(Run({"env", "-i", "/bin/mount", "-t", "sbxfs", kUri, dir_}).status,
            0);
  const auto daemons = Daemons();
  ASSERT_THAT(daemons, SizeIs(1));
  std::ifstream file(fmt::format("/proc/{}/environ", daemons[0]));
  const std::string environment{std::istreambuf_iterator<char>(file), {}};
  EXPECT_THAT(environment, HasSubstr("PATH=/usr/local/sbin:/usr/local/bin:"));
  EXPECT_THAT(environment, HasSubstr("HOME=" + (root_ / "root").string()));
}

}  // namespace
}  // namespace sbxfs
