#include "fs/process.h"

#include <fmt/format.h>

#include <charconv>
#include <csignal>
#include <fstream>
#include <sstream>
#include <string>

namespace sbxfs {
namespace {

std::uint64_t ParseHex(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

constexpr std::uint64_t Bit(int signal) { return 1ULL << (signal - 1); }

}  // namespace

Process ReadProcess(pid_t tid) {
  Process process;
  process.tgid = tid;
  if (tid <= 0) return process;
  std::ifstream status(fmt::format("/proc/{}/status", tid));
  std::uint64_t blocked = 0;
  std::string line;
  while (std::getline(status, line)) {
    std::istringstream words(line);
    std::string key;
    std::string value;
    words >> key;
    if (key == "Name:") {
      process.command = line.substr(line.find('\t') + 1);
    } else if (key == "Tgid:") {
      words >> process.tgid;
      process.known = true;
    } else if (key == "SigPnd:" || key == "ShdPnd:") {
      words >> value;
      process.pending |= ParseHex(value);
    } else if (key == "SigBlk:") {
      words >> value;
      blocked = ParseHex(value);
    } else if (key == "Groups:") {
      for (gid_t gid = 0; words >> gid;) process.groups.push_back(gid);
    }
  }
  process.pending &= ~blocked;
  return process;
}

namespace {

// The fields of /proc/TID/stat from the state on. The command's name stands
// before it in parentheses and may hold spaces and more.
std::istringstream StatFields(pid_t tid) {
  std::ifstream file(fmt::format("/proc/{}/stat", tid));
  std::string text;
  std::getline(file, text);
  const auto end = text.rfind(')');
  return std::istringstream(end == std::string::npos ? std::string()
                                                     : text.substr(end + 1));
}

}  // namespace

std::uint64_t StartOf(pid_t pid) {
  std::istringstream words = StatFields(pid);
  std::string skipped;
  for (int i = 0; i < 19; ++i) words >> skipped;
  std::uint64_t start = 0;
  words >> start;
  return start;
}

bool IsKilled(pid_t tid) {
  std::istringstream words = StatFields(tid);
  std::string skipped;
  for (int i = 0; i < 6; ++i) words >> skipped;
  unsigned long flags = 0;
  words >> flags;
  constexpr unsigned long kSignaled = 0x400;
  return (flags & kSignaled) != 0;
}

bool WantsOut(const Process& process) {
  constexpr std::uint64_t kHarmless =
      Bit(SIGWINCH) | Bit(SIGCHLD) | Bit(SIGURG) | Bit(SIGCONT) |
      // A job that is stopped means to go on; the kernel stops it afterwards.
      Bit(SIGSTOP) | Bit(SIGTSTP) | Bit(SIGTTIN) | Bit(SIGTTOU);
  return !process.known || (process.pending & ~kHarmless) != 0;
}

}  // namespace sbxfs
