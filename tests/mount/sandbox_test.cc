// mount-helper/sandbox on libvirt's test driver, where starting takes no time
// and an `ssh` of the test's own runs here what it should run in the guest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/mounted.h"

namespace sbxfs {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
namespace stdfs = std::filesystem;

class SandboxScript : public Mounted {
 protected:
  void SetUp() override {
    Mounted::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    const stdfs::path base = Dir().parent_path();
    std::ofstream(base / "ssh") << "#!/bin/sh\n"
                                   "echo \"$@\" | head -n 1 >&2\n"
                                   "for last; do :; done\n"
                                   "exec sh -c \"$last\"\n";
    stdfs::permissions(base / "ssh", stdfs::perms::owner_all);
    prelude_ = "cd " + base.string() + "; export SANDBOXES=" + Dir().string() +
               " PATH=" + base.string() +
               ":$PATH SANDBOX_ENV=; sandbox() { ${SHELL_-} " +
               SBXFS_SOURCE_DIR "/mount-helper/sandbox \"$@\"; }; ";
  }
  Ended Run(const std::string& script) { return Sh(prelude_ + script); }
  // What it says of a failure of its own.
  std::string Refusal(const std::string& script) {
    const Ended ended = Run(script);
    EXPECT_EQ(ended.status, 125) << script;
    EXPECT_EQ(ended.out, "") << script;
    return ended.err;
  }

  std::string prelude_;
};

TEST_F(SandboxScript, MakesStartsAndRuns) {
  const Ended ended = Run(
      "export SANDBOX_CPUS=3 SANDBOX_MEMORY=3GiB SANDBOX_DISK=30GiB "
      "SANDBOX_IMAGE=\"it's\"; mkdir \"a dir's\"; "
      "sandbox box ./a*s sh -c 'pwd; echo \"$0|$1|\"; exit 7' \"it's\" 'a\nb'");
  EXPECT_EQ(ended.status, 7) << ended.err;
  const std::string dir = (Dir().parent_path() / "a dir's").string();
  EXPECT_EQ(ended.out, dir + "\nit's|a\nb|\n");
  EXPECT_THAT(ended.err, StartsWith("-F " + Dir().string() +
                                    "/box/ssh_config -o LogLevel=ERROR -T "
                                    "sbx-box exec sh -c "));
  EXPECT_EQ(Do("cat box/status box/cpus box/memory box/disk"),
            "running\n3\n3GiB\n30GiB\n");
  EXPECT_THAT(Do("cat box/config.yaml"),
              HasSubstr("images: [{location: 'it''s'}]\n"));
  EXPECT_EQ(Do("cat box/mounts/*"), dir + ":w\n");

  // Another time it changes nothing but for a directory that is not there yet.
  Do("mkdir -p ../b/c ../d/b");
  EXPECT_EQ(Run("SANDBOX_CPUS=4 sandbox box -- true").status, 0);
  EXPECT_EQ(Run("sandbox box a*s/ -- pwd").status, 0);
  EXPECT_EQ(Run("sandbox box ./b true; sandbox box ./b/c true; "
                "sandbox box d/b; sandbox box . false")
                .status,
            1);
  EXPECT_EQ(Do("cat box/cpus; cat box/mounts/*"),
            "3\n" + dir + ":w\n" + Do("cd ..; pwd -P | sed 's|$|/b:w|'") +
                Do("cd ..; pwd -P | sed 's|$|/d/b:w|'") +
                Do("cd ..; pwd -P | sed 's|$|:w|'"));
  EXPECT_EQ(Do("ls box/exec"), "new\n");

  const Ended list = Run("sandbox -l");
  EXPECT_EQ(list.status, 0);
  EXPECT_THAT(list.out, StartsWith("NAME  STATE    IP  PORT "));
  EXPECT_THAT(list.out, HasSubstr("\nbox   running  -   "));
}

TEST_F(SandboxScript, RunsByOtherShells) {
  for (const char* shell : {"dash", "bash", "busybox sh"}) {
    if (Run(std::string(shell) + " -c true").status != 0) continue;
    const std::string way = "export SHELL_='" + std::string(shell) + "'; ";
    const Ended ended = Run(way + "sandbox box sh -c 'echo on; kill -9 $$'");
    EXPECT_EQ(ended.out, "on\n") << shell << ended.err;
    EXPECT_EQ(ended.status, 137) << shell << ended.err;
    Do("echo kill > box/status; rmdir box .host/trash/box");
  }
}

TEST_F(SandboxScript, SaysWhatIsWrong) {
  EXPECT_EQ(Refusal("SANDBOX_CPUS=abc sandbox box"),
            "sandbox: Cannot accept 'config.yaml': line 2, column 7: cpus is "
            "'abc'; it must be a whole number from 1 to 255\n");
  EXPECT_THAT(Refusal("SANDBOX_TEMPLATE=none sandbox box"),
              HasSubstr("there is no .host/templates/none.yaml"));
  for (const char* name :
       {"a b", ".host", "box/..", "box.yaml", "_",
        "a123456789b123456789c123456789d123456789e123456789f12345678"}) {
    EXPECT_THAT(Refusal("sandbox '" + std::string(name) + "' true"),
                StartsWith("sandbox: Cannot use the name '" +
                           std::string(name) + "': a name begins with"));
  }
  EXPECT_EQ(Do("ls"), "");
  EXPECT_THAT(Refusal("mkdir src; sandbox box src"),
              StartsWith("sandbox: Cannot run 'src': it is a directory here"));
  EXPECT_EQ(Run("sandbox box true").status, 0);
  EXPECT_THAT(Refusal("sandbox BOX true"),
              StartsWith("sandbox: Cannot create 'BOX': 'box' exists"));
  EXPECT_THAT(Refusal("sandbox box /etc true"),
              StartsWith("sandbox: Cannot mount '/etc:w' as 'etc' in 'box': "));
  EXPECT_THAT(Refusal("SANDBOXES=/no sandbox -l"),
              StartsWith("sandbox: Cannot find sandboxes in '/no': "));
  EXPECT_THAT(Refusal("sandbox -x"), StartsWith("usage: sandbox NAME"));
  EXPECT_THAT(Refusal("sandbox"), StartsWith("usage: sandbox NAME"));
  EXPECT_THAT(Run("sandbox -h").out, StartsWith("usage: sandbox NAME"));
  Do("echo kill > box/status; echo 'cpsu: 1' > ../bad; "
     "cp ../bad box/config.yaml 2> ../told || true");
  EXPECT_THAT(Refusal("sandbox box true"),
              StartsWith("sandbox: Cannot start 'box': config.yaml.rejected"));
}

TEST_F(SandboxScript, FindsTheMountItself) {
  Do("mkdir box");
  // With no other mount of this user's to be seen, and a blank in its name.
  const Ended ended = Run(
      "mkdir 'a place'; unshare -m bash -c '"
      "mount --bind \"$SANDBOXES\" \"a place\" && "
      "grep -o \" /[^ ]* fuse.sbxfs\" /proc/self/mounts | "
      "cut -d \" \" -f 2 | grep -v 040 | xargs -r umount -l; unset SANDBOXES; "
      "HOME=/no " SBXFS_SOURCE_DIR "/mount-helper/sandbox -l'");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("\nbox   stopped "));
  EXPECT_THAT(Refusal("unset SANDBOXES; HOME=/no unshare -m bash -c '"
                      "grep -o \" /[^ ]* fuse.sbxfs\" /proc/self/mounts | "
                      "cut -d \" \" -f 2 | xargs umount -l; " SBXFS_SOURCE_DIR
                      "/mount-helper/sandbox -l'"),
              StartsWith("sandbox: Cannot find sandboxes in '/no/sandboxes': "
                         "no sbxfs is mounted there that answers; run: sbxfs"));
}

TEST_F(SandboxScript, ManyAtOnceMakeOne) {
  EXPECT_EQ(Run("for i in 1 2 3 4 5 6 7 8; do sandbox box echo in & done; "
                "wait")
                .out,
            "in\nin\nin\nin\nin\nin\nin\nin\n");
  EXPECT_EQ(Do("ls; grep -c 'mkdir\\|store' .host/audit"), "box\n1\n");
}

TEST_F(SandboxScript, ShellcheckIsContent) {
  if (Sh("command -v shellcheck").status != 0) {
    GTEST_SKIP() << "shellcheck is missing";
  }
  EXPECT_EQ(Sh("shellcheck " SBXFS_SOURCE_DIR "/mount-helper/sandbox").out, "");
}

}  // namespace
}  // namespace sbxfs
