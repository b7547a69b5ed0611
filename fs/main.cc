// sbxfs: reads the command line, starts the daemon, serves one mount, and
// decides with which status the process ends.

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>

#include "backend/util/error.h"
#include "backend/util/exit_code.h"
#include "backend/util/log.h"
#include "fs/daemon.h"
#include "fs/mount_point.h"
#include "fs/options.h"

namespace sbxfs {
namespace {

// What mount(8)'s table of statuses calls a failure with this errno.
ExitCode StatusOf(const Error& error) {
  switch (error.Errno()) {
    case EPERM:
    case EACCES:
      return ExitCode::kUsage;
    case ENOMEM:
    case EAGAIN:
    case EMFILE:
    case ENFILE:
      return ExitCode::kSystem;
    case EINTR:
      return ExitCode::kSignal;
    default:
      return ExitCode::kFailure;
  }
}

void Complain(std::string_view sentence) {
  fmt::print(stderr, "sbxfs: {}\n", sentence);
}

// The life of the process that serves the mount; returns main's status.
int Serve(const Options& options, const std::string& dir, StartUp& start_up) {
  StartLog({options.LogTarget(), options.log_level});
  return start_up.Fail(ExitCode::kBug,
                       fmt::format("Cannot mount '{}' on '{}': not built yet",
                                   options.uri, dir));
}

int Run(const Options& options) {
  const std::string dir = ResolveMountPoint(options.dir, options.uri);
  if (options.check) {
    fmt::print("sbxfs: would mount '{}' on '{}'\n", options.uri, dir);
    return 0;
  }
  StartUp start_up = StartUp::Fork(options.foreground);
  try {
    return Serve(options, dir, start_up);
  } catch (...) {
    const Error error = CurrentError();
    return start_up.Fail(StatusOf(error), error.Sentence());
  }
}

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  if (options.help) {
    std::fputs(Usage().c_str(), stdout);
    return 0;
  }
  if (options.version) {
    std::puts("sbxfs " SBXFS_VERSION);
    return 0;
  }
  for (const std::string& warning : options.warnings) Complain(warning);
  for (const std::string& error : options.errors) Complain(error);
  if (!options.errors.empty()) return static_cast<int>(ExitCode::kUsage);
  return Run(options);
}

}  // namespace
}  // namespace sbxfs

int main(int argc, char** argv) {
  try {
    return sbxfs::Main(argc, argv);
  } catch (...) {
    const sbxfs::Error error = sbxfs::CurrentError();
    sbxfs::Complain(error.Sentence());
    return static_cast<int>(sbxfs::StatusOf(error));
  }
}
