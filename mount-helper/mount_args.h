#ifndef SBXFS_MOUNT_HELPER_MOUNT_ARGS_H_
#define SBXFS_MOUNT_HELPER_MOUNT_ARGS_H_

#include <string>
#include <string_view>
#include <vector>

namespace sbxfs {

// What mount(8) asks of mount.sbxfs, and the command that does it. Pure
// functions: nothing here looks at the system.

struct MountArgs {
  bool help = false;     // -h, alone
  bool version = false;  // -V, alone

  std::string spec;  // the libvirt URI, exactly as given
  std::string dir;
  bool fake = false;     // -f: check and say, mount nothing
  bool sloppy = false;   // -s: unknown options are only warned about
  bool verbose = false;  // -v: show the command
  // The options that are the daemon's business, as -o of libfuse wants them:
  // no quotes, a comma or backslash inside a value with a backslash before it.
  std::vector<std::string> options;

  // Whatever is wrong, one sentence each; nothing may be done unless empty.
  std::vector<std::string> errors;
};

// Reads SPEC DIR [-sfnv] [-N ns] [-o opts] [-t type.subtype], the form in
// which mount(8) calls its helpers; `words` is without argv[0].
[[nodiscard]] MountArgs ParseMountArgs(const std::vector<std::string>& words);

// The daemon's argv.
[[nodiscard]] std::vector<std::string> DaemonCommand(const MountArgs& args,
                                                     std::string_view daemon);

// Who mounts, out of the user database.
struct Mounter {
  std::string name;
  std::string home;
  std::string runtime_dir;  // /run/user/UID if there is one, else empty
};

// The daemon's environment: ours, and what mount(8) has taken out of it (PATH,
// HOME, ...), since libvirt looks for ssh, keys and its session's socket there.
[[nodiscard]] std::vector<std::string> DaemonEnvironment(
    std::vector<std::string> environment, const Mounter& mounter);

// `command` as one would type it into a shell.
[[nodiscard]] std::string ShellLine(const std::vector<std::string>& command);

}  // namespace sbxfs

#endif  // SBXFS_MOUNT_HELPER_MOUNT_ARGS_H_
