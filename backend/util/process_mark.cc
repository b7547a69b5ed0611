#include "backend/util/process_mark.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// When a process began, in ticks since the boot; empty when there is none.
std::string StartOf(std::string_view pid) {
  const std::string stat = FirstLine(fmt::format("/proc/{}/stat", pid));
  // The second field is the program's name, which may have blanks in it.
  const auto name_end = stat.rfind(')');
  if (name_end == std::string::npos) return "";
  std::istringstream words(stat.substr(name_end + 1));
  std::string word;
  for (int field = 3; field <= 22; ++field) words >> word;
  return word;
}

// Machine, its boot, the pid namespace, the pid, when it began.
std::string Mark(std::string_view pid, std::string_view start) {
  std::error_code none;
  const std::string space =
      std::filesystem::read_symlink("/proc/self/ns/pid", none);
  return fmt::format("{} {} {} {} {}", FirstLine("/etc/machine-id"),
                     FirstLine("/proc/sys/kernel/random/boot_id"), space, pid,
                     start);
}

}  // namespace

std::string ThisProcessMark() {
  const std::string pid = fmt::to_string(getpid());
  return Mark(pid, StartOf(pid)) + "\n";
}

bool IsMarkOfTheDead(std::string_view mark) {
  const auto theirs = Split(Trim(mark), ' ');
  const std::string self = Mark("", "");
  const auto ours = Split(self, ' ');
  if (theirs.size() != ours.size()) return false;
  // Without an id there is no telling one machine from another.
  if (ours[0].empty() || theirs[0] != ours[0]) return false;
  if (theirs[1] != ours[1]) return true;
  if (theirs[2] != ours[2]) return false;
  return StartOf(theirs[3]) != theirs[4];
}

}  // namespace sbxfs
