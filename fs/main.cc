// sbxfs: reads the command line, starts the daemon, serves one mount, and
// decides with which status the process ends.

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "backend/libvirt_backend.h"
#include "backend/util/error.h"
#include "backend/util/exit_code.h"
#include "backend/util/log.h"
#include "fs/connect.h"
#include "fs/daemon.h"
#include "fs/mount_point.h"
#include "fs/options.h"
#include "fs/session.h"

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

BackendOptions ForBackend(const Options& options) {
  BackendOptions backend;
  backend.uri = options.uri;
  backend.pool = options.pool;
  backend.stop_timeout = options.stop_timeout;
  backend.start_timeout = options.start_timeout;
  backend.trash = options.trash;
  backend.start = options.start;
  backend.all = options.all;
  return backend;
}

// The life of the process that serves the mount; returns main's status.
int Serve(const Options& options, const std::string& dir, StartUp& start_up) {
  StartLog({options.LogTarget(), options.log_level});
  const std::unique_ptr<Backend> backend = OpenLibvirt(ForBackend(options));
  SessionOptions session;
  session.mount_point = dir;
  // The mount table shows what was given: `mount -a` compares it.
  session.fuse_arguments = FuseArguments(
      options, options.uri.empty() ? backend->GetHost()->uri : options.uri);
  session.program = std::filesystem::read_symlink("/proc/self/exe");
  session.uid = geteuid();
  session.gid = getegid();
  session.allow_other = options.allow_other;
  session.group = options.group;
  try {
    Session(*backend, session).Run([&start_up] { start_up.Ready(); });
  } catch (...) {
    const Error error = CurrentError();
    return start_up.Fail(StatusOf(error), error.Sentence());
  }
  return 0;
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
  if (options.connect) return Connect(options.dir);
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
