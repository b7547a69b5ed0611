#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "tests/support/guest_mount.h"

// What .host/README shows can be done as it stands there, in its order.

namespace sbxfs {
namespace {

// Of a line "  COMMAND  what it is for" the command.
std::string CommandOf(const std::string& line) {
  if (!line.starts_with("  ") || line.starts_with("   ")) return "";
  return line.substr(2, line.find("  ", 2) - 2);
}

// Needs a guest that boots, which tests/readme has for README.md.
bool NeedsGuest(const std::string& command) {
  return command.starts_with("echo start") || command.starts_with("ssh ") ||
         command.starts_with("exec ") || command.starts_with("ls box/fs");
}

TEST(HostReadme, ItsCommandsWork) {
  if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
  GuestMount mount("cold");
  MakeBlank(mount.Dir() / ".host");
  const std::string home = std::getenv("HOME");
  std::ofstream(home + "/agent.yaml") << "cpus: 1\n";
  std::istringstream readme(ReadText(mount.Dir() / ".host/README"));
  std::string script;
  int count = 0;
  for (std::string line; std::getline(readme, line);) {
    if (line.starts_with("When ")) break;
    const std::string command = CommandOf(line);
    if (command.empty() || NeedsGuest(command)) continue;
    // There is no such directory here.
    const auto src = command.find("/src:w");
    script +=
        src == command.npos ? command : "echo \"$HOME:w\" > box/mounts/src";
    script += '\n';
    ++count;
  }
  EXPECT_EQ(count, 12) << script;
  const Ended ended = RunProgram({"bash", "-exc", script});
  EXPECT_EQ(ended.status, 0) << ended.err << ReadText(mount.Dir() / "box/error")
                             << ReadText(mount.Dir() / ".host/error");
  EXPECT_EQ(ReadLine(mount.Dir() / "box/status"), "stopped");
  Clear(mount.Dir());
  mount.Stop();
}

}  // namespace
}  // namespace sbxfs
