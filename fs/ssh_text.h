#ifndef SBXFS_FS_SSH_TEXT_H_
#define SBXFS_FS_SSH_TEXT_H_

#include <string>
#include <string_view>

#include "fs/layout.h"

namespace sbxfs {

// The part of an ssh_config that leads to a sandbox, made for the view's
// reader.
[[nodiscard]] std::string SshHost(const View& view, const Sandbox& sandbox);

// Lines of a known_hosts file; empty without a key.
[[nodiscard]] std::string KnownHostLines(const Sandbox& sandbox);

// `text` in double quotes for the shell that ssh runs ProxyCommand with, ssh's
// own percent signs doubled.
[[nodiscard]] std::string QuoteForProxy(std::string_view text);

}  // namespace sbxfs

#endif  // SBXFS_FS_SSH_TEXT_H_
