#ifndef SBXFS_FS_OPTIONS_H_
#define SBXFS_FS_OPTIONS_H_

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

namespace sbxfs {

// The command line of sbxfs as values. ParseOptions fills it and looks at
// nothing else but the group database, so that it can be tested as a function.
struct Options {
  // What to do.
  bool help = false;        // -h, --help
  bool version = false;     // -V, --version
  bool check = false;       // --check: look at everything, mount nothing
  bool connect = false;     // --connect: carry ssh to the sandbox `dir`
  bool status = false;      // --status: show what is mounted, or `dir` alone
  bool only_mount = false;  // --only-mount: leave serving to another process
  bool foreground = false;  // -f, and implied by -d
  bool debug = false;       // -d: all that is logged, libfuse's requests too

  std::string uri;  // as given; empty: libvirt's own default
  std::string dir;  // as given; empty with --status alone: all

  // Logging. No target given means stderr with -f, else syslog.
  std::optional<std::string> log;  // stderr, syslog or a file
  std::string log_level = "warning";

  // Sandboxes.
  std::chrono::seconds trash{24 * 60 * 60};  // 0: rmdir deletes at once
  std::chrono::seconds stop_timeout{60};
  std::chrono::seconds start_timeout{600};
  bool start = false;  // boot at mkdir
  bool all = false;    // show domains made by others
  std::string pool = "sbxfs";
  std::string disk_pool;  // of additional disks; empty: the same
  UserLimits limits;

  // The way to the hypervisor.
  std::string ssh_config;     // an absolute path, or empty
  bool cold = false;          // no memory templates
  bool insecure_tcp = false;  // qemu+tcp is allowed
  // An absolute path, in the place of uri: several hypervisors; or empty.
  std::string hosts;

  // The mount.
  bool allow_other = false;
  bool read_only = false;
  std::optional<gid_t> group;        // of the root; needs allow_other
  std::vector<std::string> to_fuse;  // -o options for libfuse, unescaped

  // Whatever is wrong, one sentence each; nothing may be done unless empty.
  std::vector<std::string> errors;
  // Unknown options that `-o sloppy` lets pass.
  std::vector<std::string> warnings;

  // Where the log goes, all options considered.
  [[nodiscard]] std::string LogTarget() const;
};

// Reads main's arguments. Never throws for a wrong one: see `errors`.
[[nodiscard]] Options ParseOptions(int argc, char** argv);

// The arguments fuse_session_new wants, argv[0] included. `source` is what the
// mount table shows: the URI exactly as mount(8) got it, since `mount -a`
// looks for it.
[[nodiscard]] std::vector<std::string> FuseArguments(const Options& options,
                                                     std::string_view source);

// What the command line takes, but for what has no meaning here: switches, as
// "--check", and names after -o, with a '=' where a value follows.
[[nodiscard]] std::vector<std::string_view> OptionNames();

// What --help prints.
[[nodiscard]] std::string CommandUsage();

}  // namespace sbxfs

#endif  // SBXFS_FS_OPTIONS_H_
