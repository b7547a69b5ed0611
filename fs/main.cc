// sbxfs: reads the command line, starts the daemon, serves one mount, and
// decides with which status the process ends.

#include <fmt/format.h>
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "backend/disk/reader_server.h"
#include "backend/egress/proxy.h"
#include "backend/fleet.h"
#include "backend/libvirt_backend.h"
#include "backend/mount/server.h"
#include "backend/util/error.h"
#include "backend/util/exit_code.h"
#include "backend/util/log.h"
#include "backend/util/service_manager.h"
#include "backend/wake_ports.h"
#include "fs/connect.h"
#include "fs/daemon.h"
#include "fs/holder.h"
#include "fs/mount_point.h"
#include "fs/only_mount.h"
#include "fs/options.h"
#include "fs/session.h"
#include "fs/status.h"

namespace sbxfs {
namespace {

// What mount(8)'s table of statuses calls a failure with this errno.
ExitCode StatusOf(const Error& error) {
  switch (error.Errno()) {
    case EPERM:
    case EACCES:
      return ExitCode::kUsage;
    case ENODEV:
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

// The status for the exception being handled.
ExitCode CurrentStatus() {
  try {
    throw;
  } catch (const Error& error) {
    return StatusOf(error);
  } catch (const std::bad_alloc&) {
    return ExitCode::kSystem;
  } catch (...) {
    return ExitCode::kBug;
  }
}

void Complain(std::string_view sentence) {
  fmt::print(stderr, "sbxfs: {}\n", sentence);
}

BackendOptions BackendOptionsOf(const Options& options) {
  BackendOptions backend;
  backend.uri = options.uri;
  backend.ssh_config = options.ssh_config;
  backend.insecure_tcp = options.insecure_tcp;
  backend.pool = options.pool;
  backend.disk_pool = options.disk_pool;
  backend.stop_timeout = options.stop_timeout;
  backend.start_timeout = options.start_timeout;
  backend.trash = options.trash;
  backend.start = options.start;
  backend.all = options.all;
  backend.no_warm = options.cold;
  backend.limits = options.limits;
  return backend;
}

std::vector<Hypervisor> HypervisorsOf(const Options& options) {
  std::ifstream file(options.hosts);
  std::ostringstream text;
  if (!(text << file.rdbuf())) {
    throw Error(
        file.is_open() ? EINVAL : ENOENT,
        fmt::format("Cannot use '{}': it cannot be read, or is empty; it "
                    "has a line NAME URI for each hypervisor",
                    options.hosts));
  }
  return ReadHypervisors(options.hosts, text.str());
}

SessionOptions SessionOptionsOf(const Options& options, const std::string& dir,
                                const std::string& source) {
  SessionOptions session;
  session.mount_point = dir;
  session.fuse_arguments = FuseArguments(options, source);
  session.program = std::filesystem::read_symlink("/proc/self/exe");
  session.uid = getuid();
  session.gid = getgid();
  session.allow_other = options.allow_other;
  session.group = options.group;
  return session;
}

std::unique_ptr<Backend> OpenBackend(const Options& options) {
  if (options.hosts.empty()) return OpenLibvirt(BackendOptionsOf(options));
  return OpenFleet(HypervisorsOf(options), BackendOptionsOf(options));
}

// The life of a process that serves the mount; returns its exit status.
int Serve(const Options& options, StartUp& start_up, Hold& hold) {
  const std::string& dir = hold.Dir();
  // libvirt writes to its socket without a care for who still reads.
  std::signal(SIGPIPE, SIG_IGN);
  // It has keys and secrets, which are to be in no core dump, nor seen by what
  // attaches to it with its user's rights. With -d somebody wants to see.
  if (!options.debug) prctl(PR_SET_DUMPABLE, 0);
  // Workers come and go, and each would get an arena, which keeps what it had
  // at its busiest.
  mallopt(M_ARENA_MAX, 2);
  const ServiceManager manager;
  StartLog({options.LogTarget(),
            options.log_level,
            {{"SBXFS_DIR", dir}, {"SBXFS_URI", options.uri}}});
  if (!hold.Why().empty()) {
    spdlog::error("The daemon before this one was ended by {}", hold.Why());
  }
  const auto backend = OpenBackend(options);
  const std::string source = !options.hosts.empty() ? options.hosts
                             : options.uri.empty()  ? backend->GetHost()->uri
                                                    : options.uri;
  // Connecting takes a while, in which another may have mounted; and only now
  // is libvirt's default known.
  if (!hold.IsMounted()) (void)ResolveMountPoint(dir, source);
  SessionOptions session_options = SessionOptionsOf(options, dir, source);
  session_options.memory = hold.Memory();
  session_options.resumed = hold.Resumed();
  session_options.mounted = hold.IsMounted();
  if (hold.IsMounted()) session_options.fd = hold.Fuse().Release();
  session_options.on_mounted = [&](int fuse) { hold.Mounted(fuse); };
  Session session(*backend, session_options);
  std::optional<WritableForMount> writable;
  if (!hold.IsMounted()) writable.emplace(dir);
  const Ending ending = session.Run(
      [&] {
        writable.reset();
        start_up.Ready();
        hold.Ready();
        manager.Tell(fmt::format("READY=1\nSTATUS={} on {}", source, dir));
      },
      [&] { manager.Tell("STOPPING=1"); });
  return ending == Ending::kHandedOver ? Hold::kHandedOver : 0;
}

// `held`: a mount that this program goes on with.
int Run(const Options& options, char** argv, std::optional<Hold> held) {
  const std::string program =
      std::filesystem::read_symlink("/proc/self/exe").string();
  StartUp start_up;
  if (UniqueFd mount = ServiceManager::Kept(kMountName);
      mount.Valid() && !held) {
    // Nothing of it answers yet: no question is asked of it.
    held = Hold::Of(std::filesystem::absolute(options.dir).lexically_normal(),
                    std::move(mount));
  }
  if (!held) {
    RequireFuse();
    const std::string dir = ResolveMountPoint(
        options.dir, options.hosts.empty() ? options.uri : options.hosts);
    if (options.check) {
      std::string what =
          options.uri.empty() ? "libvirt's default" : options.uri;
      if (!options.hosts.empty()) {
        (void)HypervisorsOf(options);
        what = options.hosts;
      }
      fmt::print("sbxfs: would mount '{}' on '{}'\n", what, dir);
      return 0;
    }
    if (options.only_mount) {
      OnlyMount(options, dir);
      return 0;
    }
    start_up = StartUp::Fork(options.foreground);
    held = Hold::Of(dir, UniqueFd());
  }
  try {
    held->Begin(argv, program, !options.foreground);
    if (held->Resumed()) start_up = StartUp();  // nobody waits for this one
    return Serve(options, start_up, *held);
  } catch (...) {
    return start_up.Fail(CurrentStatus(), CurrentError().Sentence());
  }
}

int Main(int argc, char** argv) {
  // libfuse takes options out of what it is given.
  std::vector<char*> words(argv, argv + argc + 1);
  std::optional<Hold> held = Hold::OfHolderBefore();
  const Options options = ParseOptions(argc, argv);
  if (options.help) {
    std::fputs(CommandUsage().c_str(), stdout);
    return 0;
  }
  if (options.version) {
    std::puts("sbxfs " SBXFS_VERSION);
    return 0;
  }
  for (const std::string& warning : options.warnings) Complain(warning);
  for (const std::string& error : options.errors) Complain(error);
  if (!options.errors.empty()) {
    // What another version took; a mount that nobody serves would be dead.
    if (held) UnmountBusy(held->Dir());
    return static_cast<int>(ExitCode::kUsage);
  }
  if (options.connect) return Connect(options.dir);
  if (options.status) return ShowStatus(options.dir);
  return Run(options, words.data(), std::move(held));
}

}  // namespace
}  // namespace sbxfs

int main(int argc, char** argv) {
  // The servers of mounts, the guests' ways out and what carries connections
  // are this program too, so that they are always of one version with the
  // daemon.
  if (argc > 0 && std::string_view(argv[0]) == sbxfs::kMountServer) {
    return sbxfs::ServeMount(argc, argv);
  }
  if (argc > 0 && std::string_view(argv[0]) == sbxfs::kDiskReader) {
    return sbxfs::RunDiskReader();
  }
  if (argc > 0 && std::string_view(argv[0]) == sbxfs::kEgressProxy) {
    return sbxfs::RunEgressProxy(argc, argv);
  }
  if (argc > 0 && std::string_view(argv[0]) == sbxfs::kCarrier) {
    return sbxfs::RunCarrier();
  }
  try {
    return sbxfs::Main(argc, argv);
  } catch (...) {
    sbxfs::Complain(sbxfs::CurrentError().Sentence());
    return static_cast<int>(sbxfs::CurrentStatus());
  }
}
