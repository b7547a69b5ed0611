#include "fs/ssh_text.h"

#include <fmt/format.h>

#include "fs/tree.h"

namespace sbxfs {

std::string QuoteForProxy(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\' || c == '$' || c == '`') quoted += '\\';
    if (c == '%') quoted += '%';
    quoted += c;
  }
  return quoted + '"';
}

std::string SshHost(const View& view, const Sandbox& sandbox) {
  const TreeOptions& options = view.tree.options;
  const std::string alias = "sbx-" + sandbox.name;
  std::string text = fmt::format("Host {}\n  HostName 127.0.0.1\n", alias);
  if (sandbox.ssh_port != 0) {
    text += fmt::format("  Port {}\n", sandbox.ssh_port);
  }
  if (!sandbox.user.empty()) {
    text += fmt::format("  User {}\n", sandbox.user);
  }
  text += fmt::format(
      "  HostKeyAlias {}\n"
      "  StrictHostKeyChecking yes\n"
      "  UserKnownHostsFile /dev/null\n"
      "  GlobalKnownHostsFile /dev/null\n",
      alias);
  if (!sandbox.host_key.empty()) {
    text += fmt::format("  KnownHostsCommand /bin/echo {} {}\n", alias,
                        sandbox.host_key);
  }
  // Once one identity is named ssh tries no others, so the usual ones are
  // named too.
  if (view.reader.uid == options.uid && !view.host->identity_file.empty()) {
    text += fmt::format(
        "  IdentityFile \"{}\"\n"
        "  IdentityFile ~/.ssh/id_ed25519\n"
        "  IdentityFile ~/.ssh/id_ecdsa\n"
        "  IdentityFile ~/.ssh/id_rsa\n",
        view.host->identity_file);
  }
  // Read anew at each connection, and so always in time.
  if (!sandbox.ssh_principal.empty()) {
    text += fmt::format("  CertificateFile \"{}/{}/ssh_cert\"\n",
                        options.mount_point, sandbox.name);
  }
  if (sandbox.forward_agent) text += "  ForwardAgent yes\n";
  if (sandbox.forward_x11) text += "  ForwardX11 yes\n";
  if (sandbox.forward_x11_trusted) text += "  ForwardX11Trusted yes\n";
  text += fmt::format("  ProxyCommand {} --connect {}\n",
                      QuoteForProxy(options.program),
                      QuoteForProxy(options.mount_point + '/' + sandbox.name));
  return text;
}

std::string KnownHostLines(const Sandbox& sandbox) {
  if (sandbox.host_key.empty()) return {};
  std::string text = fmt::format("sbx-{} {}\n", sandbox.name, sandbox.host_key);
  if (sandbox.ssh_port != 0) {
    text +=
        fmt::format("[127.0.0.1]:{} {}\n", sandbox.ssh_port, sandbox.host_key);
  }
  return text;
}

}  // namespace sbxfs
