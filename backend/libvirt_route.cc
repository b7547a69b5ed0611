#include "backend/libvirt_route.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "backend/connect_error.h"
#include "backend/guest/boot.h"
#include "backend/util/capture.h"
#include "backend/util/error.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

// The parameters that libvirt's remote driver knows, and the transports that
// heed them (libvirt.org/uri.html; src/remote/remote_driver.c). All others it
// passes over without a word.
struct Known {
  std::string_view name;
  std::vector<std::string_view> transports;
  std::string_view meaning;
};
const Known kKnown[] = {
    {"name", {}, "the URI that is opened over there"},
    {"mode",
     {"unix", "ssh", "libssh", "libssh2"},
     "auto, direct (virtqemud) or legacy (libvirtd)"},
    {"socket",
     {"unix", "ssh", "libssh", "libssh2"},
     "the libvirt socket, a path over there"},
    {"proxy",
     {"ssh", "libssh", "libssh2"},
     "auto, native (virt-ssh-helper) or netcat"},
    {"netcat", {"ssh", "libssh", "libssh2"}, "the nc to run over there"},
    {"command", {"ssh", "ext"}, "the program in place of ssh"},
    {"keyfile", {"ssh", "libssh", "libssh2"}, "the private key"},
    {"no_tty", {"ssh"}, "never ask at a terminal; always so here"},
    {"no_verify", {"ssh", "tls"}, "take any peer for the right one"},
    {"sshauth", {"libssh", "libssh2"}, "the ways to log in, tried in order"},
    {"known_hosts", {"libssh", "libssh2"}, "where host keys are looked up"},
    {"known_hosts_verify", {"libssh", "libssh2"}, "normal, auto or ignore"},
    {"no_sanity", {"tls"}, "do not look at our own certificates first"},
    {"pkipath", {"tls"}, "where cacert.pem, clientcert.pem, clientkey.pem lie"},
    {"tls_priority", {"tls"}, "ciphers, as GnuTLS writes them"},
};

std::string HomeDirectory() {
  // mount(8) empties the environment.
  const passwd* user = getpwuid(geteuid());
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home != '\0') return home;
  return user == nullptr ? "/" : user->pw_dir;
}

// lima+ssh://INSTANCE/system is ssh with Lima's own configuration for it.
void TakeLima(LibvirtUri& uri, std::string& ssh_config) {
  const std::string instance = uri.host;
  const char* lima = std::getenv("LIMA_HOME");
  const stdfs::path home = lima != nullptr && *lima != '\0'
                               ? stdfs::path(lima)
                               : stdfs::path(HomeDirectory()) / ".lima";
  if (ssh_config.empty()) ssh_config = home / instance / "ssh.config";
  uri.driver = "qemu";
  uri.host = "lima-" + instance;
  if (uri.path.empty() || uri.path == "/") uri.path = "/system";
}

// OpenSSH's answer to where a host is, for the keys that matter here.
std::multimap<std::string, std::string> AskSsh(
    const std::string& uri, const std::vector<std::string>& ssh) {
  std::vector<std::string> words = ssh;
  words.insert(words.begin() + 1, "-G");
  const Captured said = Capture(words);
  if (said.status != 0) {
    throw Error(EINVAL,
                fmt::format("Cannot connect to '{}': {}", uri,
                            ConnectFailure(LastWords(said.err), uri, false)));
  }
  std::multimap<std::string, std::string> answer;
  for (const auto& line : Split(said.out, '\n')) {
    const auto space = line.find(' ');
    if (space == std::string_view::npos) continue;
    answer.emplace(line.substr(0, space), line.substr(space + 1));
  }
  return answer;
}

std::string First(const std::multimap<std::string, std::string>& answer,
                  const std::string& key) {
  const auto found = answer.find(key);
  return found == answer.end() ? "" : found->second;
}

// What a key must be for OpenSSH to use it, which it says among much else.
void CheckKey(const std::string& uri, const std::string& key) {
  auto refuse = [&](int error, std::string_view reason) {
    throw Error(error, fmt::format("Cannot connect to '{}': its key '{}' {}",
                                   uri, key, reason));
  };
  struct stat info {};
  if (!key.starts_with('/')) {
    refuse(EINVAL, "is no absolute path; write it from / on");
  }
  if (stat(key.c_str(), &info) != 0) {
    refuse(errno,
           fmt::format("cannot be used: {}; make one with ssh-keygen, or "
                       "correct keyfile=",
                       std::strerror(errno)));
  }
  if (access(key.c_str(), R_OK) != 0) {
    refuse(EACCES, "cannot be read by this user; chown it");
  }
  if (info.st_uid == geteuid() && (info.st_mode & 077) != 0) {
    refuse(EACCES,
           fmt::format("can be read by others, so that ssh does not use it; "
                       "chmod 600 {}",
                       key));
  }
}

// The words of ssh without host and command. Nobody is asked anything, and a
// port that accepts and then says nothing is given up.
std::vector<std::string> SshOptions(const LibvirtUri& uri,
                                    const std::string& ssh_config) {
  std::vector<std::string> words;
  if (!ssh_config.empty()) words.insert(words.end(), {"-F", ssh_config});
  auto option = [&](const std::string& text) {
    words.insert(words.end(), {"-o", text});
  };
  option("BatchMode=yes");
  option("ConnectTimeout=10");
  option("ServerAliveInterval=5");
  option("ServerAliveCountMax=3");
  // libvirt heeds these with libssh and libssh2 alone.
  if (const auto file = uri.Parameter("known_hosts"); !file.empty()) {
    option("UserKnownHostsFile=" + file);
  }
  const std::string verify = uri.Parameter("known_hosts_verify");
  if (verify == "normal") option("StrictHostKeyChecking=yes");
  if (verify == "auto") option("StrictHostKeyChecking=accept-new");
  if (verify == "ignore") option("StrictHostKeyChecking=no");
  return words;
}

// libvirt runs one program as its ssh, and hands it no options of ours.
std::string WriteWrapper(const std::string& directory,
                         const std::vector<std::string>& options) {
  std::string script = "#!/bin/sh\n# How sbxfs has libvirt call ssh.\nexec ssh";
  for (const auto& word : options) script += " " + ShellQuote(word);
  script += " \"$@\"\n";
  const uLong sum = crc32(0, reinterpret_cast<const Bytef*>(script.data()),
                          static_cast<uInt>(script.size()));
  const std::string path = fmt::format("{}/ssh-{:08x}", directory, sum);
  if (stdfs::exists(path)) return path;
  // Another mount may write the same just now.
  const std::string fresh = fmt::format("{}.{}", path, getpid());
  std::ofstream(fresh) << script;
  if (chmod(fresh.c_str(), 0700) != 0 ||
      rename(fresh.c_str(), path.c_str()) != 0) {
    throw Error(errno, fmt::format("Cannot write '{}': {}", path,
                                   std::strerror(errno)));
  }
  return path;
}

class Finder {
 public:
  Finder(const std::string& uri, const RouteOptions& options)
      : text_(uri), options_(options), ssh_config_(options.ssh_config) {}

  Route Find() {
    route_.given = text_;
    if (text_.empty()) {
      Say("uri", "libvirt's own default");
      return std::move(route_);
    }
    LibvirtUri& uri = route_.uri;
    uri = LibvirtUri::Parse(text_);
    lima_ = uri.driver == "lima" && uri.transport == "ssh";
    if (lima_) TakeLima(uri, ssh_config_);
    CheckFiles();
    SayParts();
    if (uri.transport == "libssh") RefuseLibssh();
    if (uri.transport == "tcp") AllowTcp();
    if (uri.BySsh()) GoBySsh();
    SayParameters();
    return std::move(route_);
  }

 private:
  void Say(std::string_view key, std::string_view value) {
    route_.explanation += fmt::format("{} {}\n", key, value);
  }

  void CheckFiles() {
    const std::string key = route_.uri.Parameter("keyfile");
    if (!key.empty() && route_.uri.BySsh()) CheckKey(text_, key);
    if (ssh_config_.empty() || !route_.uri.BySsh()) return;
    if (access(ssh_config_.c_str(), R_OK) == 0) return;
    const int error = errno;
    throw Error(
        error,
        fmt::format("Cannot connect to '{}': {}'{}': {}; {}", text_,
                    lima_ ? "Lima's " : "", ssh_config_, std::strerror(error),
                    lima_ ? "start the instance (limactl list shows "
                            "those there are)"
                          : "correct -o ssh_config="));
  }

  void SayParts() {
    const LibvirtUri& uri = route_.uri;
    Say("uri", text_);
    Say("driver", uri.driver);
    Say("transport", uri.transport);
    if (!uri.user.empty()) Say("user", uri.user);
    if (!uri.host.empty()) Say("host", uri.host);
    if (uri.port != 0) Say("port", std::to_string(uri.port));
    Say("path", uri.path);
    if (uri.driver == "qemu" && uri.path == "/session") {
      Say("note", "session: the libvirt of one user over there");
    }
  }

  // With libvirt 9.0 and libssh 0.10 streams hang for ever there, and four
  // virsh vol-download at once end in a segmentation fault now and then.
  void RefuseLibssh() {
    throw Error(EOPNOTSUPP,
                fmt::format("Cannot connect to '{}': libvirt hangs and crashes "
                            "over libssh; say qemu+ssh or qemu+libssh2, which "
                            "take the same parameters",
                            text_));
  }

  void AllowTcp() {
    if (!options_.insecure_tcp) {
      throw Error(
          EPERM,
          fmt::format("Cannot connect to '{}': tcp is neither encrypted nor "
                      "authenticated, so that whoever reaches that port owns "
                      "the hypervisor; use qemu+ssh or qemu+tls, or mount with "
                      "-o insecure_tcp where the network between is trusted",
                      text_));
    }
    route_.warning =
        "note: unauthenticated and not encrypted: qemu+tcp, by -o insecure_tcp";
  }

  void GoBySsh() {
    LibvirtUri& uri = route_.uri;
    std::vector<std::string> words = SshOptions(uri, ssh_config_);
    route_.ssh = {"ssh"};
    route_.ssh.insert(route_.ssh.end(), words.begin(), words.end());
    if (uri.port != 0) {
      route_.ssh.insert(route_.ssh.end(), {"-p", std::to_string(uri.port)});
    }
    if (!uri.user.empty()) {
      route_.ssh.insert(route_.ssh.end(), {"-l", uri.user});
    }
    if (const auto key = uri.Parameter("keyfile"); !key.empty()) {
      route_.ssh.insert(route_.ssh.end(), {"-i", key});
    }
    if (uri.transport == "ssh" && uri.Parameter("no_verify") == "1") {
      route_.ssh.insert(route_.ssh.end(), {"-o", "StrictHostKeyChecking=no"});
    }
    route_.ssh.push_back(uri.host);
    LookUp();
    if (uri.transport != "ssh") return;
    Say("ssh", fmt::format("{}", fmt::join(route_.ssh, " ")));
    uri.Set("no_tty", "1");
    if (!uri.Parameter("command").empty()) {
      Say("note", "command= is run as it is, without the options above");
    } else {
      // A master of the user's may be dead without ssh noticing.
      words.insert(words.end(), {"-o", "ControlPath=none"});
      uri.Set("command", WriteWrapper(options_.directory, words));
    }
  }

  // What ssh's configuration adds; libssh and libssh2 do not read it all.
  void LookUp() {
    LibvirtUri& uri = route_.uri;
    const auto answer = AskSsh(text_, route_.ssh);
    const std::string port = First(answer, "port");
    Say("ssh-says",
        fmt::format("hostname {}, port {}, user {}, key {}",
                    First(answer, "hostname"), port, First(answer, "user"),
                    First(answer, "identityfile")));
    if (uri.transport == "ssh" || ssh_config_.empty()) return;
    uri.host = First(answer, "hostname");
    if (uri.port == 0) {
      uri.port = static_cast<uint16_t>(ParseNumber(port).value_or(22));
    }
    if (uri.user.empty()) uri.user = First(answer, "user");
    if (const auto key = First(answer, "identityfile");
        uri.Parameter("keyfile").empty() && key.starts_with('/')) {
      uri.Set("keyfile", key);
    }
  }

  void SayParameters() {
    const LibvirtUri given = lima_ ? route_.uri : LibvirtUri::Parse(text_);
    for (const auto& [name, value] : given.parameters) {
      if (lima_ && (name == "command" || name == "no_tty")) continue;
      SayParameter(name, value);
    }
    if (!options_.ssh_config.empty() && !route_.uri.BySsh()) {
      Say("ignored", "-o ssh_config: this transport uses no ssh");
    }
    if (route_.uri.transport == "tls" &&
        route_.uri.Parameter("pkipath").empty()) {
      Say("note",
          "certificates: ~/.pki/libvirt, else /etc/pki/CA/cacert.pem and "
          "/etc/pki/libvirt; pkipath= names another directory");
    }
  }

  void SayParameter(const std::string& name, const std::string& value) {
    const std::string& transport = route_.uri.transport;
    const std::string word = name + "=" + value;
    const auto* known =
        std::find_if(std::begin(kKnown), std::end(kKnown),
                     [&](const Known& one) { return one.name == name; });
    if (known == std::end(kKnown)) {
      Say("ignored", word + ": libvirt knows no such parameter");
      return;
    }
    const bool heeded =
        known->transports.empty() ||
        std::find(known->transports.begin(), known->transports.end(),
                  transport) != known->transports.end();
    if (heeded) {
      Say("parameter", fmt::format("{}: {}", word, known->meaning));
      Warn(name, value);
    } else if (transport == "ssh" && name.starts_with("known_hosts")) {
      Say("parameter", fmt::format("{}: {}; libvirt ignores it with ssh, sbxfs "
                                   "gives it to ssh",
                                   word, known->meaning));
    } else {
      Say("ignored",
          fmt::format(
              "{}: {} does not heed it; {}", word, transport,
              fmt::format("{} {}", fmt::join(known->transports, ", "),
                          known->transports.size() == 1 ? "does" : "do")));
    }
  }

  void Warn(const std::string& name, const std::string& value) {
    if (name == "no_verify" && value == "1") {
      Say("change", route_.uri.transport == "ssh"
                        ? "no_verify=1 lets a changed host key through, and "
                          "writes it into known_hosts: leave it out once the "
                          "host is known"
                        : "no_verify=1 lets any server through: leave it out");
    }
    if (name == "socket" && route_.uri.Parameter("proxy") == "native") {
      Say("change",
          "proxy=native goes to the default daemon whatever socket= says: "
          "leave proxy out, or say proxy=netcat");
    }
  }

  const std::string text_;
  const RouteOptions& options_;
  std::string ssh_config_;
  bool lima_ = false;
  Route route_;
};

}  // namespace

Route FindRoute(const std::string& uri, const RouteOptions& options) {
  return Finder(uri, options).Find();
}

}  // namespace sbxfs
