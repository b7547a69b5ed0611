#ifndef SBXFS_BACKEND_GUEST_BOOT_H_
#define SBXFS_BACKEND_GUEST_BOOT_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/spec/spec.h"

namespace sbxfs {

// What a guest does at each boot: boot.sh, which is the same for all, and what
// it reads beside it on the seed's disk. Pure functions.

// The texts of boot.sh, secret.sh and become.sh.
extern const char kBootScript[];
// What makes a guest that goes on from a memory template itself.
extern const char kBecomeScript[];
extern const char kSecretScript[];

// Mounts the seed's disk and runs boot.sh's early part: a line of sh for
// cloud-init's bootcmd.
[[nodiscard]] std::string BootCommand();

struct BootInput {
  std::string name;      // of the sandbox
  std::string hostname;  // in the guest
  std::string instance_id;
  std::string user;
  Spec spec;
  std::map<std::string, std::string> env;  // from GuestEnv
};
// Files of the disk: {name, text}.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> BootDocuments(
    const BootInput& input);

// config.yaml's env and, unless propagateProxyEnv is off, the proxies that
// `get` (getenv) knows, in both cases of their names; loopback in a proxy's
// address becomes the host as the guest sees it.
[[nodiscard]] std::map<std::string, std::string> GuestEnv(
    const Spec& spec, const std::function<const char*(const char* name)>& get);

// One step of a boot as the guest noted it.
struct BootStep {
  std::string sequence;       // "001": also the name of its log
  std::string what;           // "provision script 2 (mode system)"
  std::optional<int> status;  // unset: it runs
};
struct BootReport {
  bool cloud_init_done = false;  // or there is none
  bool present = false;          // boot.sh has begun in this boot
  bool all = false;              // it is through
  std::optional<unsigned> uid;   // the user's
  unsigned steps = 0;            // that there will be
  std::vector<BootStep> begun;
};
// A script for sh that prints what ParseBootReport reads.
extern const char kBootReportScript[];
[[nodiscard]] BootReport ParseBootReport(std::string_view text);

// The log of all steps, its end where it is long: a script for sh.
extern const char kProvisionLogScript[];

// What is left of a log's end in a sentence: its last three lines, without
// boot.sh's own, printable, joined by " | "; 300 bytes at most.
[[nodiscard]] std::string LastWords(std::string_view log);
// Any text as one printable line.
[[nodiscard]] std::string OneLine(std::string_view text);

// What runs a probe in the guest, for sh: as the guest's user, in a login
// shell, by the program that the script's #! names, which reads it as its
// standard input. stderr goes where stdout goes.
[[nodiscard]] std::string ProbeCommand(const std::string& script,
                                       const std::string& user);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_BOOT_H_
