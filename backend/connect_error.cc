#include "backend/connect_error.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "backend/guest/boot.h"
#include "backend/libvirt_error.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

// A failure is known by all of these words being in its message. The first row
// that fits is taken: what is more precise stands before what is less so. The
// words are libvirt's, OpenSSH's, libssh's and GnuTLS's.
struct Failure {
  std::vector<std::string_view> words;
  std::string_view remedy;
  std::string_view cause = {};  // in place of a message that fills a screen
};
const Failure kFailures[] = {
    // This machine.
    {{"user record for uid"},
     "this user has no name here: add a line for its uid to /etc/passwd (in a "
     "container, where it was given by number)"},
    {{"No user exists for uid"},
     "this user has no name here, which ssh wants: add a line for its uid to "
     "/etc/passwd (in a container, where it was given by number)"},
    {{"no connection driver available"},
     "libvirt here has no such driver: see the spelling before '://', and "
     "whether the package of that driver is installed"},
    // ssh: what it prints comes in libvirt's message.
    {{"UNPROTECTED PRIVATE KEY FILE"},
     "chmod 600 the key",
     "others can read the key, so that ssh does not use it"},
    {{"IDENTIFICATION HAS CHANGED"},
     "if that machine was made anew take its old key out with ssh-keygen -R "
     "HOST, else somebody is in between",
     "its host key is another than the one in known_hosts"},
    {{"Host key verification failed"},
     "the host's key is not in known_hosts: connect once with ssh and look at "
     "it, or add it with known_hosts="},
    {{"HOST KEY VERIFICATION FAILED"},
     "if that machine was made anew take its old key out with ssh-keygen -R "
     "HOST, else somebody is in between",
     "its host key is not the one in known_hosts"},
    {{"Identity file", "not accessible"},
     "there is no such key: make it with ssh-keygen, or correct keyfile="},
    {{"Permission denied (publickey"},
     "the host takes no key of this user: add keyfile=PATH to the URI, or the "
     "key to authorized_keys over there (ssh-copy-id)"},
    {{"Permission denied (password"},
     "the host wants a password, which nobody can be asked for: set up a key "
     "(ssh-copy-id)"},
    {{"authentication failed", "ssh"},
     "the host takes no key of this user: add keyfile=PATH to the URI, or the "
     "key to authorized_keys over there (ssh-copy-id)"},
    {{"nc: not found"},
     "there is no nc over there: install netcat-openbsd, or leave socket= and "
     "proxy=netcat out"},
    {{"virt-ssh-helper: not found"},
     "libvirt over there is not installed, or older than 6.8: say "
     "proxy=netcat"},
    {{"virt-ssh-helper: command not found"},
     "libvirt over there is not installed, or older than 6.8: say "
     "proxy=netcat"},
    // Names and networks.
    {{"host.docker.internal"},
     "that name is there in a container alone which was run with --add-host "
     "host.docker.internal:host-gateway (extra_hosts in compose)"},
    {{"resolve"},
     "the name does not resolve: see its spelling, /etc/hosts and "
     "/etc/resolv.conf"},
    {{"Name or service not known"},
     "the name does not resolve: see its spelling, /etc/hosts and "
     "/etc/resolv.conf"},
    {{"Network is unreachable"},
     "this machine has no route to there: see ip route"},
    {{"No route to host"},
     "that machine does not answer: see whether it runs, and its firewall"},
    {{"Connection timed out"},
     "no packet came back: see whether it runs, and its firewall"},
    // TLS.
    {{"annot read CA certificate"},
     "put the CA's certificate there, or name its directory with pkipath="},
    {{"Unable to read TLS confirmation"},
     "the server does not take our certificate: put clientcert.pem and "
     "clientkey.pem, signed by its CA, where pkipath= says"},
    {{"Failed to verify peer's certificate"},
     "another CA than that of cacert.pem signed the server's certificate, or "
     "it "
     "was made for another host name: openssl s_client -connect HOST:PORT "
     "-CAfile cacert.pem -verify_hostname HOST tells which"},
    {{"certificate", "expired"},
     "the certificate is out of date: renew it, or set the clock"},
    {{"certificate", "not yet active"},
     "the certificate is not valid yet: set the clock"},
    {{"TLS handshake failed"},
     "no TLS is spoken at that port: see the port, and whether it is "
     "qemu+tcp's"},
    // Who may.
    {{"no polkit agent"},
     "this user may not use that libvirt: add it to the group libvirt, or use "
     "qemu:///session"},
    {{"uthentication"},
     "that libvirt wants a name and password, which nobody can be asked for: "
     "use qemu+ssh, or qemu+tls with certificates"},
    // libvirt's sockets.
    {{"Failed to connect socket to", "Permission denied"},
     "this user may not use that libvirt: add it to the group libvirt, or use "
     "qemu:///session"},
};

const Failure* Find(std::string_view message) {
  for (const Failure& failure : kFailures) {
    if (std::all_of(failure.words.begin(), failure.words.end(),
                    [&](std::string_view word) {
                      return message.find(word) != std::string_view::npos;
                    })) {
      return &failure;
    }
  }
  return nullptr;
}

// Of failures whose words mean one thing with ssh and another without.
std::string_view RemedyByTransport(std::string_view message, bool ssh,
                                   bool root) {
  auto says = [&](std::string_view words) {
    return message.find(words) != std::string_view::npos;
  };
  if (says("Failed to connect socket to")) {
    if (ssh) return "no libvirtd listens over there: start it";
    return root ? "no libvirtd listens there: start it (systemctl start "
                  "libvirtd, or virtlogd -d; libvirtd -d)"
                : "no libvirtd listens there: start it, or use qemu:///session";
  }
  if (says("onnection refused")) {
    return ssh ? "no sshd listens there: see host and port"
               : "nothing listens there: see host and port, and whether "
                 "libvirtd was told to (systemctl start libvirtd-tcp.socket or "
                 "libvirtd-tls.socket)";
  }
  if (says("reset by peer")) {
    return ssh ? "the host ended it: try the same with ssh"
               : "what listens there is no libvirtd of that transport: see the "
                 "port (16509 for tcp, 16514 for tls)";
  }
  return "";
}

}  // namespace

std::string ConnectFailure(std::string_view message, std::string_view uri,
                           bool root) {
  const std::string said = OneLine(Trim(message));
  const Failure* failure = Find(message);
  const bool ssh = uri.find("ssh") < uri.find("://");
  const std::string_view remedy = failure != nullptr
                                      ? failure->remedy
                                      : RemedyByTransport(message, ssh, root);
  const std::string_view cause =
      failure != nullptr && !failure->cause.empty() ? failure->cause : said;
  return fmt::format("{}{}{}", cause, remedy.empty() ? "" : "; ", remedy);
}

Error ConnectError(const std::string& uri) {
  const std::string what =
      fmt::format("Cannot connect to '{}'", uri.empty() ? "libvirt" : uri);
  const virError* last = virGetLastError();
  const std::string message =
      last == nullptr || last->message == nullptr ? "" : last->message;
  const int error = LibvirtError(what).Errno();
  return Error(error,
               what + ": " + ConnectFailure(message, uri, geteuid() == 0));
}

}  // namespace sbxfs
