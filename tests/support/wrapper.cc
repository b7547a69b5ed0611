#include "tests/support/wrapper.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

std::string Wrapper() {
  const char* const set = std::getenv("MOUNT_WRAPPER");
  return set != nullptr ? set : "";
}

}  // namespace

bool IsWrapped() { return !Wrapper().empty(); }

void Execute(const std::vector<std::string>& command) {
  std::vector<char*> argv;
  for (const std::string& word : command) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  _exit(127);
}

void ExecuteWrapped(std::vector<std::string> command) {
  std::istringstream words(Wrapper());
  std::vector<std::string> whole;
  for (std::string word; words >> word;) whole.push_back(word);
  for (std::string& word : command) whole.push_back(std::move(word));
  Execute(whole);
}

void WarmUp(const std::filesystem::path& mount) {
  const std::filesystem::path box = mount / "warm-up";
  (void)Eventually(
      [&] { return mkdir(box.c_str(), 0700) == 0 || errno == EEXIST; });
  (void)Eventually([&] { return rmdir(box.c_str()) == 0 || errno == ENOENT; });
  const std::filesystem::path trash = mount / ".host/trash/warm-up";
  (void)Eventually(
      [&] { return rmdir(trash.c_str()) == 0 || errno == ENOENT; });
}

}  // namespace sbxfs
