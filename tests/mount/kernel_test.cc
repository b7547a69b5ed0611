#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <csignal>
#include <thread>

#include "tests/support/mounted.h"

// What the kernel makes of the tree: waiting, signals, poll, other users.

namespace sbxfs {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

class Kernel : public Mounted {
 protected:
  std::string Options() const override {
    return "loglevel=info,allow_other,stop_timeout=20";
  }
  std::string Path(const std::string& name) const { return Dir() / name; }
};

TEST_F(Kernel, AResizedWindowDoesNotEndAWait) {
  Do("mkdir box");
  Writer writer(Path("box/status"), "wait running\n");
  ASSERT_TRUE(Eventually([&] { return writer.Waits(); }));
  writer.Signal(SIGWINCH);
  EXPECT_FALSE(writer.Ended(milliseconds(500)));
  writer.Signal(SIGCHLD);
  EXPECT_FALSE(writer.Ended(milliseconds(300)));
  Do("echo start > box/status");
  const auto verdict = writer.Ended();
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->error, 0);
}

TEST_F(Kernel, AKilledWriterGoesAtOnce) {
  Do("mkdir box");
  Writer writer(Path("box/status"), "wait running\n");
  ASSERT_TRUE(Eventually([&] { return writer.Waits(); }));
  writer.Signal(SIGKILL);
  EXPECT_TRUE(writer.EndedBySignal(SIGKILL));
}

TEST_F(Kernel, AnotherWriterIsLetIn) {
  Do("mkdir box");
  Writer first(Path("box/status"), "wait running\n");
  ASSERT_TRUE(Eventually([&] { return first.Waits(); }));
  Writer second(Path("box/status"), "wait running\n");
  ASSERT_TRUE(Eventually([&] { return second.Waits(); }));
  Do("timeout 60 bash -c 'echo start > box/status'");
  EXPECT_EQ(first.Ended()->error, 0);
  EXPECT_EQ(second.Ended()->error, 0);
}

TEST_F(Kernel, PollWakesReaders) {
  Do("mkdir box");
  const UniqueFd status(open(Path("box/status").c_str(), O_RDONLY));
  const UniqueFd events(open(Path(".host/events").c_str(), O_RDONLY));
  char buffer[4096];
  EXPECT_EQ(pread(status.Get(), buffer, sizeof(buffer), 0), 8);
  while (read(events.Get(), buffer, sizeof(buffer)) > 0) {
  }
  pollfd fds[] = {{status.Get(), POLLPRI, 0}, {events.Get(), POLLIN, 0}};
  EXPECT_EQ(poll(fds, 2, 0), 0);
  std::thread starter([&] {
    std::this_thread::sleep_for(milliseconds(200));
    Do("echo start > box/status");
  });
  EXPECT_GE(poll(fds, 1, 20000), 1);
  starter.join();
  EXPECT_TRUE(Eventually([&] { return poll(fds, 2, 1000) == 2; }));
  EXPECT_EQ(pread(status.Get(), buffer, sizeof(buffer), 0), 8);
  EXPECT_EQ(std::string(buffer, 8), "running\n");
  EXPECT_GT(read(events.Get(), buffer, sizeof(buffer)), 0);
}

TEST_F(Kernel, OthersSeeWhatTheyMay) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to be somebody else";
  std::filesystem::permissions(Dir().parent_path(),
                               std::filesystem::perms(0755));
  const std::string other =
      "setpriv --reuid 61235 --regid 61235 --clear-groups ";
  Do("mkdir box");
  EXPECT_EQ(Do("stat -c %a ."), "1777\n");
  EXPECT_THAT(Sh(other + "cat box/status").err, HasSubstr("Permission denied"));
  EXPECT_THAT(Sh(other + "rmdir box").err,
              HasSubstr("Operation not permitted"));
  Do(other + "mkdir theirs");
  EXPECT_EQ(Do("stat -c '%u %a' theirs"), "61235 700\n");
  EXPECT_EQ(Do(other + "cat theirs/status"), "stopped\n");
  EXPECT_EQ(Do(other + "cat .host/ssh_config | grep ^Host"),
            "Host sbx-theirs\n");
  EXPECT_THAT(Sh(other + "sh -c 'echo x > .host/defaults.yaml'").err,
              HasSubstr("Permission denied"));
  Do("chmod 755 box");
  EXPECT_EQ(Do(other + "cat box/status"), "stopped\n");
  EXPECT_NE(Sh(other + "sh -c 'echo start > box/status'").status, 0);
  Do("chown 61235:61235 box");
  Do(other + "sh -c 'echo start > box/status'");
  EXPECT_EQ(Do("cat box/status"), "running\n");
  EXPECT_NE(Sh(other + "cat box/../.host/authorized_keys").status, 0);
}

TEST_F(Kernel, TwoUsersDoWhatModesAllow) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to be somebody else";
  std::filesystem::permissions(Dir().parent_path(),
                               std::filesystem::perms(0755));
  const auto as = [](int uid, const std::string& groups,
                     const std::string& script) {
    return "setpriv --reuid " + std::to_string(uid) + " --regid " +
           std::to_string(uid) + " --groups " + groups + " bash -c '" + script +
           "'";
  };
  const auto ann = [&](const std::string& script) {
    return as(61235, "61000", script);
  };
  const auto ben = [&](const std::string& script) {
    return as(61236, "61000", script);
  };
  const auto eve = [&](const std::string& script) {
    return as(61237, "61237", script);
  };
  const auto refused = [&](const std::string& command) {
    const Ended ended = Sh(command);
    EXPECT_NE(ended.status, 0) << command;
    return ended.err;
  };
  Do(ann("mkdir box; mkdir own"));
  Do(ben("mkdir mine"));
  // One file of one sandbox is handed to a group.
  Do(ann("chgrp 61000 box box/status; chmod 710 box; chmod 660 box/status"));
  Do(ben("echo start > box/status"));
  EXPECT_EQ(Do(ben("cat box/status")), "running\n");
  for (const char* script :
       {"cat box/config.yaml", "ls box", "echo 3 > box/cpus", "cat own/status",
        "rm box/status", "chmod 777 box/status"}) {
    EXPECT_THAT(refused(ben(script)),
                testing::AnyOf(HasSubstr("Permission denied"),
                               HasSubstr("not permitted")))
        << script;
  }
  for (const char* script : {"rmdir box", "mv box his", "chown 61236 box"}) {
    EXPECT_THAT(refused(ben(script)), HasSubstr("not permitted")) << script;
  }
  EXPECT_THAT(refused(eve("cat box/status")), HasSubstr("Permission denied"));
  EXPECT_EQ(Do("stat -c '%u %g %a' box/status box/cpus"),
            "61235 61000 660\n61235 61000 600\n");
  // Each is told of what it may use.
  const std::string names =
      "tail -n +2 .host/list | cut -d\" \" -f1; "
      "cut -d\" \" -f2 .host/events | sort -u; "
      "grep ^Host .host/ssh_config | cut -d\" \" -f2";
  EXPECT_EQ(Do(ben(names)), "box\nmine\nbox\nmine\nsbx-box\nsbx-mine\n");
  EXPECT_EQ(Do(ann(names)), "box\nown\nbox\nown\nsbx-box\nsbx-own\n");
  EXPECT_EQ(Do(eve(names)), "");
  // Failures without a sandbox are each one's own.
  refused(ben("mkdir a.yaml"));
  EXPECT_THAT(Do(ben("cat .host/error")), HasSubstr("'a.yaml'"));
  EXPECT_EQ(Do(ann("cat .host/error")), "");
  EXPECT_THAT(
      Do(ann("cat .host/audit")),
      testing::ContainsRegex("61236 [0-9]+ bash write box/status ok start\n"));
  EXPECT_THAT(Do(ann("cat .host/audit")), Not(HasSubstr("mine")));
  // The whole of it is handed over: owner, then group.
  Do(ann("chmod 770 box"));
  EXPECT_EQ(Do(ben("echo 3 > box/cpus; cat box/cpus")), "3\n");
  EXPECT_THAT(refused(ben("cat box/authorized_keys")),
              HasSubstr("Permission denied"));
  Do("chown 61236 own");
  EXPECT_EQ(Do(ben("cat own/status")), "stopped\n");
  refused(ann("cat own/status"));
}

class OfAGroup : public Kernel {
 protected:
  std::string Options() const override {
    return Kernel::Options() + ",group=nogroup";
  }
};

TEST_F(OfAGroup, ItsMembersMakeSandboxesAndOthersDoNot) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to be somebody else";
  std::filesystem::permissions(Dir().parent_path(),
                               std::filesystem::perms(0755));
  const std::string user = "setpriv --reuid 61235 --regid 61235 --groups ";
  EXPECT_EQ(Do("stat -c '%a %G' ."), "1770 nogroup\n");
  Do(user + "$(getent group nogroup | cut -d: -f3) mkdir theirs");
  EXPECT_EQ(Do("stat -c '%u %a' theirs"), "61235 700\n");
  EXPECT_THAT(Sh(user + "61235 mkdir others").err,
              HasSubstr("Permission denied"));
  EXPECT_THAT(Sh(user + "61235 ls").err, HasSubstr("Permission denied"));
}

TEST_F(Kernel, AProtectedSandboxStays) {
  Do("mkdir box; chmod a-w box");
  for (const char* command :
       {"rmdir box", "mv box new", "rm -r box", "mv box .host/trash",
        "echo destroy > box/status"}) {
    const Ended ended = Sh(command);
    EXPECT_NE(ended.status, 0) << command;
    EXPECT_EQ(Do("ls"), "box\n") << command;
  }
  EXPECT_THAT(Do("cat box/error"), HasSubstr("chmod u+w"));
  Do("chmod u+w box; mv box new; rmdir new");
}

TEST_F(Kernel, SshTakesTheConfiguration) {
  Do("mkdir box");
  for (const char* config : {"box/ssh_config", ".host/ssh_config"}) {
    const std::string told =
        Do("ssh -F " + std::string(config) + " -G sbx-box");
    EXPECT_THAT(told, HasSubstr("hostname 127.0.0.1"));
    EXPECT_THAT(told, HasSubstr("hostkeyalias sbx-box"));
    EXPECT_THAT(told, HasSubstr("stricthostkeychecking true"));
    EXPECT_THAT(told, HasSubstr("--connect \"" + Path("box") + "\""));
  }
  // There is nobody behind the port of a test machine.
  const Ended ended = Sh("ssh -F box/ssh_config sbx-box true");
  EXPECT_EQ(ended.status, 255);
  EXPECT_THAT(ended.err, HasSubstr("Connection refused"));
  EXPECT_EQ(Do("cat box/status"), "running\n");
}

TEST_F(Kernel, ConnectPassesBothWaysToTheirEnds) {
  Do("mkdir box");
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port =
      htons(static_cast<uint16_t>(std::stoi(ReadLine(Path("box/ssh_port")))));
  const int on = 1;
  setsockopt(listener.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  ASSERT_EQ(
      bind(listener.Get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)),
      0);
  ASSERT_EQ(listen(listener.Get(), 1), 0);
  // A guest that answers once it has heard all.
  std::thread guest([&] {
    const UniqueFd peer(accept(listener.Get(), nullptr, nullptr));
    size_t heard = 0;
    char buffer[4096];
    ssize_t got = 0;
    while ((got = read(peer.Get(), buffer, sizeof(buffer))) > 0) {
      heard += static_cast<size_t>(got);
    }
    const std::string answer = std::to_string(heard) + " bytes\n";
    EXPECT_EQ(write(peer.Get(), answer.data(), answer.size()),
              static_cast<ssize_t>(answer.size()));
  });
  EXPECT_EQ(
      Do("head -c 300000 /dev/zero | " SBXFS_BIN_DIR "/sbxfs --connect box"),
      "300000 bytes\n");
  guest.join();
  EXPECT_EQ(Do("cat box/status"), "running\n");
  const Ended none = Sh(SBXFS_BIN_DIR "/sbxfs --connect nobox");
  EXPECT_EQ(none.status, 255);
  EXPECT_THAT(none.err, HasSubstr("Cannot connect to"));
}

}  // namespace
}  // namespace sbxfs
