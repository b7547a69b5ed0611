#include "backend/mount/sshfs.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

// What follows -o.
std::string SshfsOptions(const MountSpec& mount) {
  std::string options =
      "passive,allow_other,default_permissions,idmap=none,nosuid,nodev";
  if (!mount.writable) options += ",ro";
  // A tree that changes on both sides must not be remembered for the 20 s that
  // sshfs takes by itself.
  if (!mount.sshfs_cache) {
    options += ",dcache_timeout=1";
  } else if (!*mount.sshfs_cache) {
    options += ",dir_cache=no";
  }
  if (mount.sshfs_follow_symlinks.value_or(false)) {
    options += ",follow_symlinks";
  }
  options += ",fsname=";
  for (const char c : mount.location) {
    if (c == ',' || c == '\\') options += '\\';
    options += c;
  }
  return options;
}

}  // namespace

std::string DigestOf(const MountSpec& mount) {
  auto tri = [](const std::optional<bool>& value) {
    return !value ? '-' : *value ? '1' : '0';
  };
  return fmt::format(
      "{:08x}",
      Hash32(fmt::format("{}\n{}\n{}\n{}{}", mount.location, mount.mount_point,
                         mount.writable, tri(mount.sshfs_cache),
                         tri(mount.sshfs_follow_symlinks))));
}

std::string Unescape(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned code = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(&text[i + 1], &text[i] + 4, code, 8).ptr ==
            &text[i] + 4) {
      plain += static_cast<char>(code);
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::string GuestCommand(const MountSpec& mount) {
  const std::string script = fmt::format(
      "{}p={}; "
      "[ -d \"$p\" ] || $s umount -l \"$p\" 2>/dev/null; "
      "mkdir -p \"$p\" 2>/dev/null || $s mkdir -p \"$p\" || exit; "
      "exec $s sshfs -f -o {} :/ \"$p\"",
      kAsRoot, ShellQuote(mount.mount_point), ShellQuote(SshfsOptions(mount)));
  return "exec /bin/sh -c " + ShellQuote(script);
}

std::vector<std::string> SshWords(const GuestLogin& login,
                                  const std::string& command) {
  std::vector<std::string> words = {"ssh", "-F", "none", "-T"};
  for (const std::string& option :
       {std::string("BatchMode=yes"), std::string("IdentitiesOnly=yes"),
        std::string("IdentityAgent=none"),
        "IdentityFile=\"" + login.identity_file + "\"",
        std::string("StrictHostKeyChecking=yes"),
        std::string("UserKnownHostsFile=/dev/null"),
        std::string("GlobalKnownHostsFile=/dev/null"),
        std::string("HostKeyAlias=guest"),
        "KnownHostsCommand=/bin/echo guest " + login.host_key,
        std::string("ControlPath=none"), std::string("LogLevel=ERROR"),
        std::string("ConnectTimeout=20"),
        // A guest that was reset answers the first of these with a reset; one
        // that is paused may be so for a while.
        std::string("ServerAliveInterval=10"),
        std::string("ServerAliveCountMax=360")}) {
    words.insert(words.end(), {"-o", option});
  }
  words.insert(words.end(), {"-p", fmt::to_string(login.port), "-l", login.user,
                             "127.0.0.1", command});
  return words;
}

}  // namespace sbxfs
