// Commands in a Debian guest, booted once and shared by the tests.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "backend/util/unique_fd.h"
#include "tests/support/debian_guests.h"
#include "tests/support/secrets.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kJobBoot = 600s;

constexpr char kJobEnv[] = "env:\n  FROM_CONFIG: two words\n";

class ExecTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!NoBootBecause().empty()) return;
    mount_ = std::make_unique<GuestMount>(
        std::string(BringTemplate() ? "" : "cold,") +
        "start_timeout=600,stop_timeout=90");
    const stdfs::path image = mount_->Dir() / ".host/images/debian-12";
    if (!stdfs::exists(image)) {
      const Ended cp = RunProgram({"cp", GuestImage(), image.string()}, 120s);
      ASSERT_EQ(cp.status, 0) << cp.err;
    }
    ASSERT_EQ(Call([] { return mkdir(Box().c_str(), 0700); }), Verdict{});
    std::ofstream(Box() / "config.yaml") << kWarmConfig << kJobEnv;
    ASSERT_EQ(ReadText(Box() / "error"), "");
    // Nothing runs yet.
    ASSERT_EQ(Call([] { return mkdir((Exec() / "early").c_str(), 0700); }),
              Verdict{});
    EXPECT_EQ(WriteText(Exec() / "early/command", "true\n"),
              (Verdict{EHOSTDOWN,
                       "Cannot run job 'early': the sandbox is "
                       "stopped; echo start > status first"}));
    Writer start(Box() / "status", "start\n");
    const auto verdict = start.Ended(kJobBoot);
    ASSERT_TRUE(verdict.has_value()) << ReadText(Box() / "progress");
    ASSERT_EQ(*verdict, Verdict{}) << ReadText(Box() / "console.log");
    up_ = true;
  }
  static void TearDownTestSuite() {
    if (mount_ == nullptr) return;
    ExpectNoSecrets(mount_->Dir());
    if (stdfs::exists(Box())) Clear(mount_->Dir());
    (void)unlink((mount_->Dir() / ".host/images/debian-12").c_str());
    mount_->Stop();
    mount_.reset();
  }
  void SetUp() override {
    if (const auto why = NoBootBecause(); !why.empty()) GTEST_SKIP() << why;
    if (!up_) GTEST_SKIP() << "the guest did not boot";
  }

  static stdfs::path Box() { return mount_->Dir() / "xbox"; }
  static stdfs::path Exec() { return Box() / "exec"; }
  static stdfs::path Make(const std::string& name) {
    const stdfs::path job = Exec() / name;
    EXPECT_EQ(Call([&] { return mkdir(job.c_str(), 0700); }), Verdict{});
    return job;
  }
  static Verdict Remove(const stdfs::path& job) {
    return Call([&] { return rmdir(job.c_str()); });
  }
  // A whole job: what it said, its exit status; and it is gone again.
  static Ended Run(const std::string& name, const std::string& command,
                   std::chrono::seconds limit = 60s) {
    const stdfs::path job = Make(name);
    Writer writer(job / "command", command);
    const auto verdict = writer.Ended(limit);
    EXPECT_TRUE(verdict.has_value()) << command;
    EXPECT_EQ(verdict.value_or(Verdict{}), Verdict{}) << command;
    Ended ended{0, ReadText(job / "stdout"), ReadText(job / "stderr")};
    const std::string code = ReadLine(job / "exit_code");
    ended.status = code.empty() ? -1 : std::stoi(code);
    EXPECT_EQ(ReadLine(job / "state"), "ended") << command;
    EXPECT_EQ(Remove(job), Verdict{});
    return ended;
  }

  // For a command: it goes on when it is let.
  static std::string Until(const std::string& mark) {
    return fmt::format("until [ -e /tmp/let.{} ]; do sleep 0.2; done; ", mark);
  }
  static void Let(const std::string& mark) {
    EXPECT_EQ(Run("let", ": >/tmp/let." + mark).status, 0);
  }

  static std::unique_ptr<GuestMount> mount_;
  static bool up_;
};

std::unique_ptr<GuestMount> ExecTest::mount_;
bool ExecTest::up_ = false;

TEST_F(ExecTest, OutputErrorsAndExitCode) {
  const Ended said = Run("1", "echo out; echo err >&2; exit 7");
  EXPECT_EQ(said.out, "out\n");
  EXPECT_EQ(said.err, "err\n");
  EXPECT_EQ(said.status, 7);
  EXPECT_EQ(Run("1", "true\n").status, 0);
  EXPECT_EQ(Run("1", "kill -9 $$").status, 137);
  EXPECT_EQ(Run("1", "no-such-program").status, 127);
  // Several lines are a script.
  EXPECT_EQ(Run("1", "for i in 1 2\ndo echo $i\ndone\n").out, "1\n2\n");
}

TEST_F(ExecTest, EnvironmentDirectoryUserAndInput) {
  const Ended plain = Run("e",
                          "id -un; pwd; echo \"$HOME $USER $FROM_CONFIG\"; "
                          "env | grep -c SBXFS_JOB; readlink /proc/self/fd/0");
  EXPECT_TRUE(plain.out.starts_with("joe\n/home/joe")) << plain.out;
  EXPECT_NE(plain.out.find(" joe two words\n0\n"), std::string::npos)
      << plain.out;

  std::ofstream(Box() / "secrets/TOKEN") << Canary("job\n");
  ASSERT_TRUE(stdfs::exists(Box() / "secrets/TOKEN"));
  const stdfs::path job = Make("e");
  EXPECT_EQ(WriteText(job / "env", "A=1\nB=it's \"b\" $HOME\n"), Verdict{});
  EXPECT_EQ(WriteText(job / "env", "A=2\ndir=mine\nIFS=x\n"), Verdict{});
  EXPECT_EQ(ReadText(job / "env"),
            "B=it's \"b\" $HOME\nA=2\ndir=mine\nIFS=x\n");
  // Values of variables are secrets, too.
  EXPECT_EQ(WriteText(job / "env", "KEY=" + Canary("env\n")), Verdict{});
  EXPECT_EQ(WriteText(job / "cwd", "/usr/share\n"), Verdict{});
  EXPECT_EQ(WriteText(job / "user", "root\n"), Verdict{});
  const std::string input("in\0put\n\xff", 8);
  EXPECT_EQ(WriteText(job / "stdin", input), Verdict{});
  EXPECT_EQ(ReadText(job / "stdin"), input);
  {
    const ProcessWatch watch;
    EXPECT_EQ(WriteText(job / "command",
                        "id -un; pwd; echo \"$A $B $dir $TOKEN\"; cat"),
              Verdict{});
  }
  EXPECT_EQ(
      ReadText(job / "stdout"),
      "root\n/usr/share\n2 it's \"b\" $HOME mine " + Canary("job\n") + input);
  ExpectNoSecrets(mount_->Dir());
  EXPECT_EQ(ReadText(job / "stderr"), "");
  EXPECT_EQ(WriteText(job / "command", "true").error, EBUSY);
  EXPECT_EQ(WriteText(job / "env", "A=3").error, EBUSY);
  EXPECT_EQ(Remove(job), Verdict{});
  ASSERT_EQ(WriteText(Box() / "secrets/TOKEN", "none\n"), Verdict{});
}

TEST_F(ExecTest, ArgvIsNoShells) {
  const stdfs::path job = Make("a");
  EXPECT_EQ(
      WriteText(job / "argv", std::string("printf\0%s|\0$HOME\0\0a b\0", 22)),
      Verdict{});
  EXPECT_EQ(ReadText(job / "stdout"), "$HOME||a b|");
  EXPECT_EQ(ReadLine(job / "exit_code"), "0");
  EXPECT_EQ(Remove(job), Verdict{});
}

TEST_F(ExecTest, WhatTheGuestCannotRunIsRefusedAndCanBeMended) {
  const stdfs::path job = Make("r");
  EXPECT_EQ(WriteText(job / "user", "nobody-here"), Verdict{});
  EXPECT_EQ(WriteText(job / "command", "true"),
            (Verdict{EINVAL,
                     "Cannot run job 'r': there is no user "
                     "'nobody-here' in the guest; mend the job's "
                     "files and write again"}));
  EXPECT_EQ(ReadLine(job / "state"), "new");
  EXPECT_EQ(WriteText(job / "user", "joe"), Verdict{});
  EXPECT_EQ(WriteText(job / "cwd", "/no/such"), Verdict{});
  EXPECT_EQ(WriteText(job / "command", "true"), Verdict{});
  EXPECT_EQ(ReadLine(job / "exit_code"), "125");
  EXPECT_NE(ReadText(job / "stderr"), "");
  EXPECT_EQ(Remove(job), Verdict{});
}

TEST_F(ExecTest, BinaryOutputIsExact) {
  const Ended said = Run("b",
                         "for i in 1 2 3; do head -c 100000 /bin/sh; done; "
                         "head -c 5000 /bin/sh >&2");
  EXPECT_EQ(said.status, 0);
  const Ended sum = Run("b",
                        "for i in 1 2 3; do head -c 100000 /bin/sh; done | "
                        "sha256sum; head -c 5000 /bin/sh | sha256sum");
  const stdfs::path file = stdfs::temp_directory_path() / "sbxfs-exec-out";
  std::ofstream(file, std::ios::binary) << said.out;
  std::string mine = RunProgram({"sha256sum", file.string()}).out.substr(0, 64);
  EXPECT_EQ(said.out.size(), 300000u);
  EXPECT_EQ(mine, sum.out.substr(0, 64));
  std::ofstream(file, std::ios::binary) << said.err;
  mine = RunProgram({"sha256sum", file.string()}).out.substr(0, 64);
  EXPECT_NE(sum.out.find(mine), std::string::npos);
  stdfs::remove(file);
}

TEST_F(ExecTest, GrowsWhileItRunsAndIsFollowed) {
  const stdfs::path job = Make("g");
  EXPECT_EQ(WriteText(job / "command",
                      "echo one; " + Until("two") + "echo two; " +
                          Until("three") + "echo three",
                      O_NONBLOCK),
            Verdict{});
  EXPECT_EQ(ReadLine(job / "state"), "running");
  EXPECT_EQ(ReadText(job / "exit_code"), "");
  EXPECT_TRUE(Eventually([&] { return ReadText(job / "stdout") == "one\n"; }));
  EXPECT_EQ(stdfs::file_size(job / "stdout"), 4u);

  // poll(2) tells of growth, and of the end.
  const UniqueFd out(open((job / "stdout").c_str(), O_RDONLY));
  char buffer[64];
  ASSERT_EQ(read(out.Get(), buffer, sizeof(buffer)), 4);
  pollfd wait{out.Get(), POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 0), 0);
  Let("two");
  ASSERT_EQ(poll(&wait, 1, 20000), 1);
  EXPECT_EQ(read(out.Get(), buffer, sizeof(buffer)), 4);
  const UniqueFd state(open((job / "state").c_str(), O_RDONLY));
  ASSERT_GT(read(state.Get(), buffer, sizeof(buffer)), 0);
  pollfd ended{state.Get(), POLLPRI, 0};
  Let("three");
  EXPECT_EQ(poll(&ended, 1, 20000), 1);
  EXPECT_EQ(ReadLine(job / "state"), "ended");
  EXPECT_EQ(ReadText(job / "stdout"), "one\ntwo\nthree\n");
  EXPECT_EQ(Remove(job), Verdict{});
}

TEST_F(ExecTest, AnInterruptEndsTheWaitingAlone) {
  const stdfs::path job = Make("i");
  Writer writer(job / "command", Until("done") + "echo done");
  EXPECT_TRUE(Eventually([&] { return writer.Waits(); }));
  EXPECT_TRUE(
      Eventually([&] { return ReadLine(job / "reason") == "it runs"; }));
  writer.Signal(SIGINT);
  EXPECT_TRUE(writer.EndedBySignal(SIGINT));
  EXPECT_EQ(ReadLine(job / "state"), "running");
  Let("done");
  EXPECT_TRUE(Eventually([&] { return ReadLine(job / "state") == "ended"; }));
  EXPECT_EQ(ReadText(job / "stdout"), "done\n");
  EXPECT_EQ(Remove(job), Verdict{});
}

// One that is prepared, one that runs and is waited for, one that has ended.
TEST_F(ExecTest, AnUpgradeOfTheDaemonGoesOnWithJobs) {
  const stdfs::path fresh = Make("fresh");
  EXPECT_EQ(WriteText(fresh / "env", "WORD=kept\n"), Verdict{});
  const stdfs::path ended = Make("ended");
  EXPECT_EQ(WriteText(ended / "command", "printf 'a\\000b\\377'; exit 4"),
            Verdict{});
  const stdfs::path job = Make("u");
  Writer writer(job / "command",
                "echo one; " + Until("upgraded") + "echo two; exit 3");
  EXPECT_TRUE(Eventually([&] { return ReadText(job / "stdout") == "one\n"; }));
  const UniqueFd out(open((job / "stdout").c_str(), O_RDONLY | O_CLOEXEC));

  const pid_t before = mount_->Server();
  ASSERT_EQ(kill(mount_->Pid(), SIGUSR2), 0);
  ASSERT_TRUE(Eventually([&] {
    const pid_t now = mount_->Server();
    return now > 0 && now != before;
  }));
  EXPECT_EQ(ReadLine(ended / "exit_code"), "4");
  EXPECT_EQ(ReadText(ended / "stdout"), std::string("a\0b\377", 4));
  EXPECT_EQ(ReadLine(job / "state"), "running");
  EXPECT_TRUE(writer.Waits());
  EXPECT_EQ(WriteText(fresh / "command", "echo $WORD"), Verdict{});
  EXPECT_EQ(ReadText(fresh / "stdout"), "kept\n");
  Let("upgraded");
  EXPECT_EQ(writer.Ended(60s), Verdict{});
  EXPECT_EQ(ReadLine(job / "exit_code"), "3");
  // The open file of before goes on with what has come.
  std::string text;
  std::array<char, 64> part;
  for (ssize_t got = 1; got > 0;) {
    got = read(out.Get(), part.data(), part.size());
    if (got > 0) text.append(part.data(), static_cast<size_t>(got));
  }
  EXPECT_EQ(text, "one\ntwo\n");
  for (const auto& one : {fresh, ended, job}) EXPECT_EQ(Remove(one), Verdict{});
}

TEST_F(ExecTest, RmdirEndsAllOfIt) {
  const stdfs::path job = Make("k");
  // A process that left the session is the job's, too.
  Writer writer(job / "command",
                "setsid sleep 77777 & trap '' TERM INT HUP; sleep 77778");
  EXPECT_TRUE(Eventually(
      [&] { return Run("p", "pgrep -fc '^sleep 7777[78]'").out == "2\n"; }));
  const auto begin = Clock::now();
  EXPECT_EQ(Remove(job), Verdict{});
  EXPECT_LT(Clock::now() - begin, 10s);
  const auto verdict = writer.Ended();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->error, ECANCELED);
  EXPECT_EQ(Call([&] { return access(job.c_str(), F_OK); }).error, ENOENT);
  EXPECT_TRUE(Eventually(
      [&] { return Run("p", "pgrep -fc '^sleep 7777[78]'").out == "0\n"; }));
}

TEST_F(ExecTest, ADeadlineEndsIt) {
  const stdfs::path job = Make("d");
  EXPECT_EQ(WriteText(job / "deadline", "5s"), Verdict{});
  EXPECT_EQ(ReadLine(job / "deadline"), "5");
  EXPECT_EQ(WriteText(job / "command", "echo begun; sleep 1000"), Verdict{});
  EXPECT_EQ(ReadText(job / "stdout"), "begun\n");
  EXPECT_EQ(ReadLine(job / "exit_code"), "143");
  EXPECT_EQ(ReadLine(job / "reason"),
            "ended by signal 15, or with exit code 143; its deadline of 5 s "
            "had passed");
  EXPECT_EQ(Remove(job), Verdict{});
}

TEST_F(ExecTest, BackgroundProcessesAreNotWaitedFor) {
  const stdfs::path job = Make("bg");
  const auto begin = Clock::now();
  EXPECT_EQ(WriteText(job / "command", "sleep 66666 & echo begun"), Verdict{});
  EXPECT_LT(Clock::now() - begin, 60s);
  EXPECT_EQ(ReadText(job / "stdout"), "begun\n");
  EXPECT_EQ(Run("p", "pgrep -fc '^sleep 66666'").out, "1\n");
  EXPECT_EQ(Remove(job), Verdict{});
  EXPECT_TRUE(Eventually(
      [&] { return Run("p", "pgrep -fc '^sleep 66666'").out == "0\n"; }));
}

TEST_F(ExecTest, ManyAtOnce) {
  const int count = LongRun() ? 32 : 12;
  std::vector<stdfs::path> jobs;
  std::vector<Writer> writers;
  const auto begin = Clock::now();
  for (int i = 0; i < count; ++i) {
    jobs.push_back(Make(fmt::format("m{}", i)));
    writers.emplace_back(jobs.back() / "command",
                         fmt::format("sleep 2; echo {0}; exit {0}", i));
  }
  for (int i = 0; i < count; ++i) {
    const auto verdict = writers[i].Ended(120s);
    ASSERT_TRUE(verdict.has_value()) << i;
    EXPECT_EQ(*verdict, Verdict{}) << i;
    EXPECT_EQ(ReadText(jobs[i] / "stdout"), fmt::format("{}\n", i));
    EXPECT_EQ(ReadText(jobs[i] / "exit_code"), fmt::format("{}\n", i));
  }
  fmt::print("{} at once: {:.1f} s\n", count,
             std::chrono::duration<double>(Clock::now() - begin).count());
  for (const auto& job : jobs) EXPECT_EQ(Remove(job), Verdict{});
}

TEST_F(ExecTest, ManyOneAfterTheOther) {
  const int count = LongRun() ? 1000 : 15;
  const auto begin = Clock::now();
  for (int i = 0; i < count; ++i) {
    const Ended said = Run("n", fmt::format("echo {0}; exit {1}", i, i % 100));
    ASSERT_EQ(said.out, fmt::format("{}\n", i));
    ASSERT_EQ(said.status, i % 100);
  }
  fmt::print("{} commands: {:.1f} s\n", count,
             std::chrono::duration<double>(Clock::now() - begin).count());
  // Nothing is left of them. What looks is a job too: the last one's leavings
  // are cleaned up a second after its end.
  EXPECT_TRUE(Eventually([&] {
    std::this_thread::sleep_for(2s);
    return Run("n", "sudo ls /run/sbxfs-exec | wc -l").out == "1\n";
  }));
}

TEST_F(ExecTest, MuchOutputIsCutAndToldOf) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
  const stdfs::path job = Make("c");
  Writer writer(job / "command", "head -c 100000000 /dev/zero; echo end >&2");
  const auto verdict = writer.Ended(240s);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(*verdict, Verdict{}) << ReadText(job / "reason");
  EXPECT_EQ(ReadText(job / "stderr"), "end\n");
  EXPECT_EQ(ReadLine(job / "exit_code"), "0");
  EXPECT_EQ(ReadLine(job / "reason"),
            "ended with exit code 0; stdout was cut at 64MiB");
  EXPECT_EQ(stdfs::file_size(job / "stdout"), 67108864u);
  const auto begin = Clock::now();
  const Ended zeros = RunProgram({"sh", "-c",
                                  "tr -d '\\0' < " + (job / "stdout").string() +
                                      " | wc -c; "
                                      "wc -c < " +
                                      (job / "stdout").string()},
                                 240s);
  EXPECT_EQ(zeros.out, "0\n67108864\n") << zeros.err;
  fmt::print("128 MiB read: {:.1f} s\n",
             std::chrono::duration<double>(Clock::now() - begin).count());
  EXPECT_EQ(Remove(job), Verdict{});
}

TEST_F(ExecTest, NewTakesACommandAndReadsAsItsOutput) {
  const std::string at = (Exec() / "new").string();
  const Ended said = RunProgram({"bash", "-c",
                                 "exec 3<>" + at +
                                     "; echo 'echo out; echo err >&2; "
                                     "echo \"exit $?\"' >&3; cat <&3"});
  EXPECT_EQ(said.status, 0) << said.err;
  EXPECT_EQ(said.out, "out\nerr\nexit 0\n");
  EXPECT_EQ(RunProgram({"ls", Exec().string()}).out, "early\nnew\n");

  // Nobody waits, and what comes is told of.
  const UniqueFd file(open(at.c_str(), O_RDWR | O_NONBLOCK));
  ASSERT_TRUE(file.Valid());
  constexpr std::string_view kCommand = "sleep 1; echo late";
  ASSERT_EQ(write(file.Get(), kCommand.data(), kCommand.size()),
            static_cast<ssize_t>(kCommand.size()));
  EXPECT_EQ(write(file.Get(), "ls", 2), -1);
  EXPECT_EQ(errno, EBUSY);
  pollfd wait{file.Get(), POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 20000), 1);

  // Closed, it ends.
  const UniqueFd other(open(at.c_str(), O_RDWR | O_NONBLOCK));
  EXPECT_EQ(write(other.Get(), "sleep 55555", 11), 11);
  EXPECT_TRUE(Eventually(
      [&] { return Run("p", "pgrep -fc '^sleep 55555'").out == "1\n"; }));
  close(const_cast<UniqueFd&>(other).Release());
  EXPECT_TRUE(Eventually(
      [&] { return Run("p", "pgrep -fc '^sleep 55555'").out == "0\n"; }));
}

TEST_F(ExecTest, ReadersPassAndRemovalsAreRefused) {
  const stdfs::path job = Make("t");
  EXPECT_EQ(WriteText(job / "command", "echo kept"), Verdict{});
  EXPECT_EQ(
      RunProgram({"grep", "-rl", "kept", Exec().string()}).out,
      (job / "command").string() + "\n" + (job / "stdout").string() + "\n");
  EXPECT_NE(RunProgram({"rm", "-rf", job.string()}).status, 0);
  EXPECT_EQ(ReadText(job / "stdout"), "kept\n");
  EXPECT_EQ(Remove(job), Verdict{});
}

TEST_F(ExecTest, WhatAnAgentAnswersTooLateIsNotDoneTwice) {
  EXPECT_EQ(Run("s",
                "sudo systemd-run -q sh -c 'sleep 1; pkill -STOP -x qemu-ga; "
                "sleep 12; pkill -CONT -x qemu-ga; : >/run/awake'")
                .status,
            0);
  std::this_thread::sleep_for(2s);
  const Ended said = Run("s", "echo x >>/tmp/done; echo said; exit 3");
  EXPECT_EQ(said.out, "said\n");
  EXPECT_EQ(said.status, 3);
  // Asked by ssh. The agent begins what it was asked for, and finds it done.
  EXPECT_TRUE(Eventually(
      [&] { return Run("s", "sleep 1; ls /run/awake").status == 0; }, 60s));
  EXPECT_EQ(Run("s", "sleep 2; cat /tmp/done").out, "x\n");
}

TEST_F(ExecTest, WithoutAnAgentItGoesBySsh) {
  // The job that stops the agent is none of the agent's processes.
  EXPECT_EQ(Run("s", "sudo systemctl stop qemu-guest-agent; echo on").out,
            "on\n");
  const auto begin = Clock::now();
  const Ended said = Run("s", "echo $FROM_CONFIG; cat; echo err >&2; exit 3");
  EXPECT_EQ(said.out, "two words\n");
  EXPECT_EQ(said.err, "err\n");
  EXPECT_EQ(said.status, 3);
  fmt::print("by ssh: {:.1f} s\n",
             std::chrono::duration<double>(Clock::now() - begin).count());
  const stdfs::path job = Make("s");
  EXPECT_EQ(WriteText(job / "stdin", "by ssh\n"), Verdict{});
  EXPECT_EQ(WriteText(job / "command", "cat; sleep 44444", O_NONBLOCK),
            Verdict{});
  EXPECT_TRUE(
      Eventually([&] { return ReadText(job / "stdout") == "by ssh\n"; }));
  EXPECT_EQ(Remove(job), Verdict{});
  EXPECT_EQ(Run("s", "sudo systemctl start qemu-guest-agent").status, 0);
  Ended last;
  EXPECT_TRUE(Eventually([&] {
    last = Run("s", "pgrep -fc '^sleep 44444'");
    return last.out == "0\n";
  })) << last.status
      << ": " << last.out << last.err;
}

// Last: the guest is stopped.
TEST_F(ExecTest, ZAJobEndsWithItsGuest) {
  const stdfs::path job = Make("z");
  Writer writer(job / "command", "echo said; sleep 1000");
  EXPECT_TRUE(Eventually([&] { return ReadText(job / "stdout") == "said\n"; }));
  ASSERT_EQ(WriteText(Box() / "status", "kill\n"), Verdict{});
  const auto verdict = writer.Ended();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(*verdict, (Verdict{EHOSTDOWN,
                               "Cannot run job 'z': it did not end, the guest "
                               "stopped before it ended; see console.log"}));
  EXPECT_EQ(ReadLine(job / "state"), "lost");
  EXPECT_EQ(ReadText(job / "stdout"), "said\n");
  EXPECT_EQ(ReadText(job / "exit_code"), "");
  EXPECT_EQ(Remove(job), Verdict{});
}

}  // namespace
}  // namespace sbxfs
