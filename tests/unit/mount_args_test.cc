#include "mount-helper/mount_args.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sbxfs {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;
using Words = std::vector<std::string>;

// mount 2.38.1's own calls, and the command each must become.
TEST(MountArgs, Commands) {
  const struct {
    Words words;
    Words command;
  } kCases[] = {
      {{"qemu:///system", "/s", "-o", "rw"},
       {"/d", "--", "qemu:///system", "/s"}},
      {{"qemu:///system", "/s"}, {"/d", "--", "qemu:///system", "/s"}},
      {{"qemu+ssh://h/system?k=v", "rel", "-o", "ro"},
       {"/d", "-o", "ro", "--", "qemu+ssh://h/system?k=v", "rel"}},
      // mount -o ro,user,_netdev,nofail,trash=1d,group=kvm,relatime
      {{"u:///", "/s", "-o",
        "ro,relatime,noexec,nosuid,nodev,trash=1d,group=kvm,user,_netdev,"
        "nofail"},
       {"/d", "-o", "ro,relatime,noexec,nosuid,nodev,trash=1d,group=kvm", "--",
        "u:///", "/s"}},
      {{"u:///", "/s", "-o",
        "rw,auto,noauto,user,user=joe,users,nouser,owner,group,nofail,_netdev,"
        "defaults,x-systemd.automount,X-mount.mkdir,comment=a,uhelper=b"},
       {"/d", "--", "u:///", "/s"}},
      {{"u:///", "/s", "-f", "-o", "rw"},
       {"/d", "--check", "--", "u:///", "/s"}},
      {{"u:///", "/s", "-s", "-n", "-v", "-o", "rw,flamingo"},
       {"/d", "-o", "flamingo,sloppy", "--", "u:///", "/s"}},
      {{"u:///", "/s", "-sfnv", "-oro"},
       {"/d", "--check", "-o", "ro,sloppy", "--", "u:///", "/s"}},
      {{"u:///", "/s", "-o", "rw,all", "-o", "start", "-t", "sbxfs.x"},
       {"/d", "-o", "all,start", "--", "u:///", "/s"}},
      {{"u:///", "/s", "-fo", "ro"},
       {"/d", "--check", "-o", "ro", "--", "u:///", "/s"}},
      {{"u:///", "-s", "-o", "rw"}, {"/d", "--", "u:///", "-s"}},
      {{"u:///", "/s", "-o", ""}, {"/d", "--", "u:///", "/s"}},
      {{"u:///", "/s", "-o", ",,ro,,"},
       {"/d", "-o", "ro", "--", "u:///", "/s"}},
  };
  for (const auto& [words, command] : kCases) {
    const MountArgs args = ParseMountArgs(words);
    EXPECT_THAT(args.errors, IsEmpty());
    EXPECT_THAT(DaemonCommand(args, "/d"), ElementsAreArray(command));
  }
}

TEST(MountArgs, QuotesBecomeBackslashes) {
  const struct {
    std::string given;
    std::string passed;
  } kCases[] = {
      {R"(log="/a,b",ro)", R"(log=/a\,b,ro)"},
      {R"("log=/a,b")", R"(log=/a\,b)"},
      {R"(context="u:r:t:s0:c1,c2",x-a="b,c",ro)",
       R"(context=u:r:t:s0:c1\,c2,ro)"},
      {R"(log="/a\b")", R"(log=/a\\b)"},
      {R"(log=/a\,b,ro)", R"(log=/a\,b,ro)"},
      {R"(log=/a\\,ro)", R"(log=/a\\,ro)"},
      {R"(log=/a b)", R"(log=/a b)"},
      {R"(log="")", R"(log=)"},
  };
  for (const auto& [given, passed] : kCases) {
    const MountArgs args = ParseMountArgs({"u:///", "/s", "-o", given});
    EXPECT_THAT(args.errors, IsEmpty()) << given;
    EXPECT_THAT(DaemonCommand(args, "/d"),
                ElementsAre("/d", "-o", passed, "--", "u:///", "/s"));
  }
}

TEST(MountArgs, Errors) {
  const struct {
    Words words;
    std::string error;
  } kCases[] = {
      {{},
       "Cannot mount: a libvirt URI and a directory are needed; say "
       "mount.sbxfs URI DIR"},
      {{"u:///"},
       "Cannot mount: a libvirt URI and a directory are needed; say "
       "mount.sbxfs URI DIR"},
      {{"-oProxyCommand=x", "/s", "-o", "rw"},
       "Cannot mount '-oProxyCommand=x': not a libvirt URI; the form is "
       "qemu:///system"},
      // Must not print a version and exit 0: mount would believe it.
      {{"-V", "/s", "-o", "rw"},
       "Cannot mount '-V': not a libvirt URI; the form is qemu:///system"},
      {{"", "/s"},
       "Cannot mount '': not a libvirt URI; the form is qemu:///system"},
      {{"u:///", "/s", "-o", "ro,remount"},
       "Cannot remount '/s': its options are fixed while it is mounted; "
       "unmount it and mount it again"},
      {{"u:///", "/s", "-N", "/proc/7/ns/mnt", "-o", "rw"},
       "Cannot mount in namespace '/proc/7/ns/mnt': the daemon would stay "
       "outside; say nsenter --mount=/proc/7/ns/mnt mount ..."},
      {{"u:///", "/s", "-x"},
       "Cannot use option '-x': no such option; they are -f, -n, -s, -v and "
       "-o"},
      {{"u:///", "/s", "-o"}, "Cannot use option '-o': it needs a value"},
      {{"u:///", "/s", "more"},
       "Cannot mount: 'more' is one argument too many"},
      {{"u:///", "/s", "-o", "log=\"/a,b"},
       "Cannot use options 'log=\"/a,b': a quote is not closed"},
  };
  for (const auto& [words, error] : kCases) {
    EXPECT_THAT(ParseMountArgs(words).errors, ElementsAre(error));
  }
  EXPECT_THAT(ParseMountArgs({"-x", "/s", "-y", "-o", "remount"}).errors,
              testing::SizeIs(3));
}

TEST(MountArgs, HelpAndVersionAlone) {
  for (const char* word : {"-h", "--help"}) {
    EXPECT_TRUE(ParseMountArgs({word}).help);
    EXPECT_THAT(ParseMountArgs({word}).errors, IsEmpty());
  }
  for (const char* word : {"-V", "--version"}) {
    EXPECT_TRUE(ParseMountArgs({word}).version);
    EXPECT_THAT(ParseMountArgs({word}).errors, IsEmpty());
  }
}

TEST(MountArgs, EnvironmentIsCompleted) {
  EXPECT_THAT(
      DaemonEnvironment({}, {"joe", "/home/joe", "/run/user/7"}),
      ElementsAre(
          "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
          "HOME=/home/joe", "USER=joe", "LOGNAME=joe",
          "XDG_RUNTIME_DIR=/run/user/7"));
  EXPECT_THAT(
      DaemonEnvironment({"PATH=/p", "HOME=/h", "USER=u", "A=b"},
                        {"joe", "/home/joe", ""}),
      ElementsAre("PATH=/p", "HOME=/h", "USER=u", "A=b", "LOGNAME=joe"));
  // A user that the database does not know.
  EXPECT_THAT(DaemonEnvironment({"PATH=/p"}, {}), ElementsAre("PATH=/p"));
}

TEST(MountArgs, ShellLine) {
  EXPECT_EQ(ShellLine({"/usr/bin/sbxfs", "-o", "ro,log=/a b", "--",
                       "qemu+ssh://h/system?a=b", "it's", ""}),
            "/usr/bin/sbxfs -o 'ro,log=/a b' -- 'qemu+ssh://h/system?a=b' "
            "'it'\\''s' ''");
}

}  // namespace
}  // namespace sbxfs
