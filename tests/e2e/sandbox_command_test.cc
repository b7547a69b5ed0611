// mount-helper/sandbox as people use it: in a terminal, with a Debian guest.
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

constexpr char kSandbox[] = SBXFS_SOURCE_DIR "/mount-helper/sandbox";
constexpr auto kLong = 300s;

class SandboxCommandTest : public DebianGuests {
 protected:
  SandboxCommandTest() : DebianGuests(Boots::kWarmIfItCan) {}

  void SetUp() override {
    DebianGuests::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (RunProgram({"tmux", "-V"}).status != 0) GTEST_SKIP() << "no tmux";
    std::ofstream(Host() / "defaults.yaml") << kWarmConfig;
    root_ = std::getenv("SBXFS_INSIDE");
    stdfs::create_directory(root_ / "the src");
    // Of all processes it is in their environment alone.
    std::random_device random;
    mark_ = fmt::format("{:08x}{:08x}", random(), random());
    setenv("ANTHROPIC_API_KEY", ("sk '" + mark_ + "$x").c_str(), 1);
    setenv("SANDBOXES", Dir().c_str(), 1);
    setenv("TMUX_TMPDIR", root_.c_str(), 1);
    setenv("PS1", "> ", 1);
    unsetenv("SANDBOX_ENV");
  }
  void TearDown() override {
    if (!root_.empty()) (void)Tmux({"kill-server"});
    for (const char* name :
         {"ANTHROPIC_API_KEY", "SANDBOXES", "TMUX_TMPDIR", "PS1"}) {
      unsetenv(name);
    }
    DebianGuests::TearDown();
  }

  static Ended Tmux(std::vector<std::string> words) {
    words.insert(words.begin(), {"tmux", "-L", "sandbox", "-f", "/dev/null"});
    return RunProgram(words);
  }
  // A kind of terminal that no guest has heard of.
  static void MakeTerminalKind() {
    ASSERT_EQ(RunProgram({"sh", "-c",
                          "infocmp -x xterm-256color | sed "
                          "'s/^xterm-256color|[^,]*/unheard-of/' | tic -x -"})
                  .status,
              0);
  }
  // One with a shell.
  class Terminal {
   public:
    explicit Terminal(std::string name) : name_(std::move(name)) {
      const char* shell =
          "cd \"$SBXFS_INSIDE/the src\"; TERM=unheard-of exec sh";
      EXPECT_EQ(Tmux({"new-session", "-d", "-s", name_, "-x", "150", "-y", "50",
                      shell})
                    .status,
                0);
    }
    void Type(const std::string& line) const {
      (void)Tmux({"send-keys", "-t", name_, "-l", line});
      Press("Enter");
    }
    void Press(const std::string& key) const {
      (void)Tmux({"send-keys", "-t", name_, key});
    }
    [[nodiscard]] std::string Screen() const {
      return Tmux({"capture-pane", "-p", "-t", name_}).out;
    }
    [[nodiscard]] bool Has(const std::string& text) const {
      return Screen().find(text) != std::string::npos;
    }
    [[nodiscard]] bool Shows(const std::string& text) const {
      // Each look is a process.
      const bool shown = Eventually(
          [&] {
            std::this_thread::sleep_for(100ms);
            return Has(text);
          },
          kLong);
      EXPECT_TRUE(shown) << text << " is not on\n" << Screen();
      return shown;
    }

   private:
    const std::string name_;
  };
  // Whether the command has come to that sleep: between its echo and that a
  // Ctrl-C was once seen to be lost on it.
  [[nodiscard]] bool Sleeps(const std::string& seconds) {
    return Eventually(
        [&] { return Job("box", "pgrep -fc '^sleep " + seconds + "'") == "1"; },
        kLong);
  }
  // Files, the tree's too, and command lines that have the key, be it as it is
  // or in what is a guest agent's.
  [[nodiscard]] std::string Traces() const {
    const std::string patterns = "/run/key-pattern";  // in memory
    std::ofstream(patterns) << mark_ << '\n'
                            << Base64Encode(mark_.substr(0, 12)) << '\n'
                            << Base64Encode(mark_.substr(1, 12)) << '\n'
                            << Base64Encode(mark_.substr(2, 12)) << '\n';
    std::string found = RunProgram({"grep", "-rlaF", "-f", patterns,
                                    root_.string(), "/var/log", "/etc/libvirt"},
                                   kLong)
                            .out;
    for (const auto& entry : stdfs::directory_iterator("/proc")) {
      const std::string line = ReadText(entry.path() / "cmdline");
      if (line.find(mark_) != std::string::npos) found += entry.path();
    }
    stdfs::remove(patterns);
    return found;
  }

  stdfs::path root_;
  std::string mark_;  // the key is made of it
};

TEST_F(SandboxCommandTest, InATerminal) {
  MakeTerminalKind();
  const Terminal terminal("one");
  const stdfs::path box = Dir() / "box";
  const std::string command = kSandbox;

  std::ofstream(Host() / "templates/small.yaml") << "memory: 512MiB\n";
  // Ctrl-C in the middle of the first start: all of it is there, and goes on.
  terminal.Type("SANDBOX_TEMPLATE=small " + command +
                " box . ; echo \"one $?\"");
  ASSERT_TRUE(terminal.Shows("box: step"));
  terminal.Press("C-c");
  ASSERT_TRUE(terminal.Shows("one 130"));
  EXPECT_FALSE(terminal.Has("box: step")) << terminal.Screen();
  EXPECT_TRUE(terminal.Has("sandbox: 'box' goes on"));
  EXPECT_EQ(
      ReadText(box / "config.yaml"),
      "# Made by sandbox(1).\nbase: 'template:small'\nmounts: [{location: '" +
          (root_ / "the src").string() + "', writable: true}]\n");

  // The second call gets in, to the directory, with what its terminal needs.
  terminal.Type(command + " box . ; echo \"two $?\"");
  ASSERT_TRUE(terminal.Shows("joe@lima-box:"));
  EXPECT_FALSE(terminal.Has("box: step")) << terminal.Screen();
  terminal.Type("pwd >where; infocmp >terminal; exit 7");
  ASSERT_TRUE(terminal.Shows("two 7"));
  EXPECT_EQ(ReadLine(root_ / "the src/where"), (root_ / "the src").string());
  EXPECT_NE(ReadText(root_ / "the src/terminal").find("unheard-of,"),
            std::string::npos);

  // Ctrl-C is the command's, in a terminal and without.
  terminal.Type(command +
                " box sh -c 'echo be\"\"gun; sleep 11111'; echo \"three $?\"");
  ASSERT_TRUE(terminal.Shows("begun"));
  ASSERT_TRUE(Sleeps("11111"));
  terminal.Press("C-c");
  ASSERT_TRUE(terminal.Shows("three 130"));
  terminal.Type(command +
                " box sh -c 'echo on; sleep 22222' >out; echo \"four $?\"");
  ASSERT_TRUE(Sleeps("22222"));
  EXPECT_EQ(ReadText(root_ / "the src/out"), "on\n");
  terminal.Press("C-c");
  ASSERT_TRUE(terminal.Shows("four 130"));
  EXPECT_EQ(Job("box", "pgrep -fc '^sleep [12]'"), "0");

  // The key: the command has it, and there is no trace of it elsewhere.
  terminal.Type(
      command +
      " box . sh -c 'printf %s \"$ANTHROPIC_API_KEY\" | sha256sum >sum; "
      "sync; echo ha\"\"ve; read line; "
      "echo \"$ANTHROPIC_API_KEY\" >~/kept; sync'; echo \"five $?\"");
  ASSERT_TRUE(terminal.Shows("have"));
  EXPECT_EQ(
      ReadText(root_ / "the src/sum"),
      RunProgram({"sh", "-c", "printf %s \"$ANTHROPIC_API_KEY\" | sha256sum"})
          .out);
  // It was a job's until it was taken.
  EXPECT_TRUE(Eventually([&] {
    return RunProgram({"ls", box / "exec"}).out == "new\n";
  }));
  EXPECT_EQ(Traces(), "");
  EXPECT_EQ(Virsh({"dumpxml", "--security-info", "box"}).find(mark_),
            std::string::npos);
  // A job that reads its own output has no end.
  EXPECT_EQ(Job("box",
                "sudo cat /proc/[0-9]*/cmdline; sudo find /run /dev/shm "
                "-type f ! -name out -exec cat {} +")
                .find(mark_),
            std::string::npos);
  EXPECT_EQ(Job("box", "ls -A /dev/shm"), "");
  // What the command itself then writes is found, and there alone.
  terminal.Press("Enter");
  ASSERT_TRUE(terminal.Shows("five 0"));
  const std::string disk = Traces();
  EXPECT_NE(disk.find(".disk"), std::string::npos) << disk;
  EXPECT_EQ(disk.find('\n'), disk.size() - 1) << disk;
}

TEST_F(SandboxCommandTest, TwoAtOnce) {
  MakeTerminalKind();
  const Terminal one("one"), other("other");
  for (const Terminal* terminal : {&one, &other}) {
    terminal->Type(std::string(kSandbox) +
                   " two sh -c 'hostname; exit $0' 7; echo \"ended $?\"");
  }
  for (const Terminal* terminal : {&one, &other}) {
    ASSERT_TRUE(terminal->Shows("ended 7"));
    EXPECT_TRUE(terminal->Has("lima-two\n")) << terminal->Screen();
  }
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "two");
  EXPECT_NE(RunProgram({kSandbox, "-l"}).out.find("\ntwo   running  "),
            std::string::npos);
}

}  // namespace
}  // namespace sbxfs
