#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/mounted.h"

// What people and scripts do to the tree with the tools they have.

namespace sbxfs {
namespace {

using testing::HasSubstr;
using testing::Not;

class Tools : public Mounted {};

TEST_F(Tools, Lifecycle) {
  Do("mkdir box");
  EXPECT_EQ(Do("cat box/status"), "stopped\n");
  Do("echo start > box/status");
  EXPECT_EQ(Do("cat box/status"), "running\n");
  EXPECT_THAT(Do("cat .host/list"), HasSubstr("box   running"));
  const Ended busy = Sh("rmdir box");
  EXPECT_EQ(busy.status, 1);
  EXPECT_THAT(busy.err, HasSubstr("Device or resource busy"));
  EXPECT_THAT(Do("cat box/error"), HasSubstr("Cannot "));
  Do("echo stop > box/status");
  Do("mv box case; echo pause > /dev/null; rmdir case");
  EXPECT_EQ(Do("ls; ls .host/trash"), "case\n");
  Do("mv .host/trash/case .");
  EXPECT_EQ(Do("ls"), "case\n");
  Do("rmdir case .host/trash/case");
  EXPECT_EQ(Do("ls; ls .host/trash"), "");
}

TEST_F(Tools, TheShellSeesAWritesVerdict) {
  Do("mkdir box");
  const Ended unknown = Sh("echo strat > box/status");
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.err, HasSubstr("Invalid argument"));
  EXPECT_THAT(Do("cat box/error"), HasSubstr("'strat'"));
  const Ended slip = Sh("echo start > box/statsu");
  EXPECT_THAT(slip.err, HasSubstr("Operation not permitted"));
  EXPECT_THAT(Do("cat box/error"), HasSubstr("'status'"));
  const std::string told =
      Do("exec 3<>box/cpus; echo x >&3 2>/dev/null; cat <&3");
  EXPECT_THAT(told, HasSubstr("'x'"));
  EXPECT_EQ(Do("cat box/error"), told);
  EXPECT_EQ(Do(": > box/cpus; [ -s box/cpus ] && [ ! -s box/error ] || "
               "cat box/cpus"),
            "2\n");
}

TEST_F(Tools, RmRTakesNothing) {
  Do("mkdir box");
  for (const char* command :
       {"rm -r box", "rm -rf box", "rm -rf *", "find box -delete",
        "python3 -c 'import shutil; shutil.rmtree(\"box\")'"}) {
    EXPECT_NE(Sh(command).status, 0) << command;
    EXPECT_EQ(Do("ls"), "box\n") << command;
    EXPECT_EQ(Do("cat box/status"), "stopped\n") << command;
  }
}

TEST_F(Tools, TreesAreWalkedToTheirEnd) {
  Do("mkdir box one two; echo start > box/status");
  Do("grep -r nothing-of-the-kind . || true");
  Do("find . -ls > /dev/null");
  Do("du -a . > /dev/null");
  Do("tar -cf ../tree.tar . && mkdir ../copy && tar -xf ../tree.tar -C ../copy "
     "&& cmp box/config.yaml ../copy/box/config.yaml "
     "&& cmp box/domain.xml ../copy/box/domain.xml");
  Do("cp -r box ../copy2 && cmp box/ssh_config ../copy2/ssh_config");
  // Numbers are those of the objects.
  EXPECT_EQ(Do("a=$(stat -c %i one); mv one uno; [ $a = $(stat -c %i uno) ]"),
            "");
}

TEST_F(Tools, WalkersOverTwoHundredSandboxes) {
  Do("for i in $(seq 200); do mkdir box$i; done; "
     "for i in $(seq 20); do echo start > box$i/status; done");
  const std::string happened = Do("wc -l < .host/events");
  const std::string before =
      Do("{ cut -c 1-44 .host/list; ls -R .; } | md5sum");
  for (const char* walk :
       {"find . -ls", "! grep -r nothing-of-the-kind .", "tar -cf ../t.tar .",
        "rsync -a ./ ../rsynced/", "du -a .", "tree -a .", "cp -r . ../copied",
        "cp -a box1 ../copied2"}) {
    Do("timeout 240 bash -c '" + std::string(walk) + "' > /dev/null");
  }
  Do("cmp box7/config.yaml ../rsynced/box7/config.yaml && "
     "cmp box7/config.yaml ../copied/box7/config.yaml");
  EXPECT_NE(Sh("rm -r box1 box99").status, 0);
  EXPECT_EQ(Do("{ cut -c 1-44 .host/list; ls -R .; } | md5sum"), before);
  EXPECT_EQ(Do("cat */status | sort | uniq -c | tr -s ' '"),
            " 20 running\n 180 stopped\n");
  EXPECT_EQ(Do("wc -l < .host/events"), happened);
  // Times and sizes mean something.
  EXPECT_EQ(Do("find . -mindepth 1 -maxdepth 1 -mtime +7; [ -s box9/pending ] "
               "|| find box9 -newer box10/config.yaml -name config.yaml"),
            "");
  EXPECT_EQ(Do("touch -d '1 hour ago' ../old; find box9 -newer ../old "
               "-name cpus"),
            "box9/cpus\n");
}

TEST_F(Tools, DocumentsByCoreutils) {
  Do("mkdir box");
  Do("echo 'cpus: 3' > box/config.yaml");
  EXPECT_EQ(Do("cat box/cpus"), "3\n");
  Do("echo '# more' >> box/config.yaml");
  EXPECT_EQ(Do("cat box/config.yaml"), "cpus: 3\n# more\n");
  Do("{ echo '# head'; /bin/echo 'cpus: 4'; cat <<< '# end'; } > "
     "box/config.yaml");
  EXPECT_EQ(Do("cat box/cpus box/config.yaml"), "4\n# head\ncpus: 4\n# end\n");
  Do("sed -i s/4/5/ box/config.yaml; perl -pi -e s/5/6/ box/config.yaml");
  EXPECT_EQ(Do("cat box/cpus; ls -a box | grep sed || true"), "6\n");
  Do("echo 'cpus: 7' > ../new; cp ../new box/config.yaml; cat box/cpus");
  Do("echo 'cpus: 8' > ../new; cp -p ../new box/config.yaml");
  Do("echo 'cpus: 9' > ../new; mv ../new box/config.yaml");
  EXPECT_EQ(Do("cat box/cpus"), "9\n");
  Do("echo 'cpus: 2' | tee box/config.yaml; echo 'cpus: 5' | dd status=none "
     "conv=fsync of=box/config.yaml");
  EXPECT_EQ(Do("cat box/cpus"), "5\n");
  Do("echo 'cpus: 6' | install /dev/stdin box/config.yaml");
  EXPECT_EQ(Do("cat box/cpus"), "6\n");
  Do("printf '%s\\n' '--- a/box/config.yaml' '+++ b/box/config.yaml' "
     "'@@ -1 +1 @@' '-cpus: 6' '+cpus: 7' | git apply");
  EXPECT_EQ(Do("cat box/cpus"), "7\n");
}

TEST_F(Tools, ARefusedDocument) {
  Do("mkdir box; echo 'cpus: 3' > box/config.yaml");
  const Ended refused =
      Sh("echo 'cpsu: 4' > ../bad; cp ../bad box/config.yaml");
  EXPECT_NE(refused.status, 0);
  EXPECT_THAT(refused.err, HasSubstr("Invalid argument"));
  EXPECT_EQ(Do("cat box/config.yaml box/cpus"), "cpus: 3\n3\n");
  EXPECT_EQ(Do("cat box/config.yaml.rejected"), "cpsu: 4\n");
  EXPECT_THAT(Do("cat box/error"), HasSubstr("line 1"));
  EXPECT_NE(Sh("echo start > box/status").status, 0);
  Do("rm box/config.yaml.rejected; echo start > box/status");
  EXPECT_NE(Sh("cp ../bad new.yaml").status, 0);
  EXPECT_EQ(Do("ls"), "box\n");
  Do("echo 'cpus: 4' > ../good; cp ../good new.yaml");
  EXPECT_EQ(Do("ls; cat new/cpus new.yaml"), "box\nnew\n4\ncpus: 4\n");
}

TEST_F(Tools, WaitingEndsWithTheWaiter) {
  Do("mkdir box");
  EXPECT_EQ(Sh("timeout 1 bash -c 'echo wait running > box/status'").status,
            124);
  EXPECT_EQ(Sh("timeout -s INT 1 sh -c 'echo wait paused > box/status'").status,
            124);
  Do("(sleep 0.5; echo start > box/status) & echo wait running > box/status; "
     "wait");
  EXPECT_THAT(Do("timeout 2 tail -n 99 -f .host/events || true"),
              HasSubstr("box state running"));
}

TEST_F(Tools, WhatTheTreeDoesNotDo) {
  Do("mkdir box");
  for (const char* command :
       {"ln -s a b", "ln box/cpus box/b", "mknod p p", "touch file",
        "mkdir box/sub", "mkdir .host/sub", "rmdir .host", "mv box/cpus box/c",
        "chmod 777 box/reason", "mv .host host"}) {
    const Ended ended = Sh(command);
    EXPECT_EQ(ended.status, 1) << command;
    EXPECT_THAT(ended.err, HasSubstr("Operation not permitted")) << command;
  }
  EXPECT_THAT(Sh("mkdir 'a b'").err, HasSubstr("Invalid argument"));
  EXPECT_THAT(Sh("mkdir box").err, HasSubstr("File exists"));
  EXPECT_THAT(Sh("mkdir BOX").err, HasSubstr("File exists"));
  EXPECT_THAT(Sh("echo x > box/reason").err, HasSubstr("Permission denied"));
  Do("touch box box/status; chmod 750 box; stat -c %a box | grep -x 750");
}

TEST_F(Tools, TheDaemonEndsBySignalEvenWhenBusy) {
  const UniqueFd busy(open((Dir() / ".host/list").c_str(), O_RDONLY));
  Do("mkdir box");
  Writer writer(Dir() / "box/status", "wait running\n");
  ASSERT_TRUE(Eventually([&] { return writer.Waits(); }));
  kill(Daemon(), SIGTERM);
  ExpectEnd();
  const auto verdict = writer.Ended();
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->error, EINTR);
}

}  // namespace
}  // namespace sbxfs
