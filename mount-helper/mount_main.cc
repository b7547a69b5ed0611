// mount.sbxfs: turns mount(8)'s words into the daemon's and becomes the daemon,
// whose own start-up decides when the process ends and with which status.

#include <fmt/format.h>
#include <limits.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "backend/util/exit_code.h"
#include "mount-helper/mount_args.h"

namespace {

using sbxfs::ExitCode;

constexpr const char* kUsage =
    "Usage: mount.sbxfs URI DIR [-fnsv] [-o OPTION,...]\n"
    "mount(8) calls it for mount -t sbxfs URI DIR and for lines of "
    "/etc/fstab.\n"
    "\n"
    "  -f  check the arguments and say what would be done\n"
    "  -n  nothing: there is no /etc/mtab to write\n"
    "  -s  warn about unknown options instead of refusing them\n"
    "  -v  show the command that is run\n"
    "  -o  options of mount(8) and of sbxfs(8)\n"
    "\n"
    "The manual: mount.sbxfs(8).\n";

int Complain(const std::string& sentence, ExitCode status) {
  fmt::print(stderr, "mount.sbxfs: {}\n", sentence);
  return static_cast<int>(status);
}

// The daemon that was installed with this program, wherever that was; the one
// of where it would have been by default; or that beside it in a build tree.
std::string FindDaemon() {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self);
  std::string dir(self, static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
  dir.erase(std::min(dir.rfind('/'), dir.size()));
  std::string installed = SBXFS_DAEMON;
  if (dir.ends_with("/sbin")) {
    installed = dir.substr(0, dir.size() - 4) + "bin/sbxfs";
  }
  for (const std::string& path :
       {installed, std::string(SBXFS_DAEMON), dir + "/sbxfs"}) {
    if (access(path.c_str(), F_OK) == 0) return path;
  }
  return SBXFS_DAEMON;
}

sbxfs::Mounter Me() {
  sbxfs::Mounter me;
  if (const passwd* entry = getpwuid(getuid())) {
    me.name = entry->pw_name;
    me.home = entry->pw_dir;
  }
  const std::string runtime_dir = fmt::format("/run/user/{}", getuid());
  struct stat status;
  if (stat(runtime_dir.c_str(), &status) == 0 && status.st_uid == getuid()) {
    me.runtime_dir = runtime_dir;
  }
  return me;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

int Run(const std::vector<std::string>& words) {
  const sbxfs::MountArgs args = sbxfs::ParseMountArgs(words);
  if (args.help) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (args.version) {
    std::puts("mount.sbxfs " SBXFS_VERSION);
    return 0;
  }
  for (const std::string& error : args.errors) {
    Complain(error, ExitCode::kUsage);
  }
  if (!args.errors.empty()) return static_cast<int>(ExitCode::kUsage);

  const std::string daemon = FindDaemon();
  std::vector<std::string> command = sbxfs::DaemonCommand(args, daemon);
  if (args.verbose) {
    fmt::print("mount.sbxfs: {}\n", sbxfs::ShellLine(command));
    std::fflush(stdout);
  }
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    environment.emplace_back(*variable);
  }
  environment = sbxfs::DaemonEnvironment(std::move(environment), Me());
  execve(daemon.c_str(), Pointers(command).data(),
         Pointers(environment).data());
  return Complain(
      fmt::format("Cannot run '{}': {}", daemon, std::strerror(errno)),
      ExitCode::kSystem);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(std::vector<std::string>(argv + (argc > 0), argv + argc));
  } catch (const std::exception& error) {
    return Complain(fmt::format("Cannot mount: {}", error.what()),
                    ExitCode::kSystem);
  }
}
