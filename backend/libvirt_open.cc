#include "backend/libvirt_open.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <thread>

#include "backend/domain_xml.h"
#include "backend/libvirt_error.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr auto kOpenLimit = 20s;

// What a person can do about a failed opening, for the failures LAB-like
// set-ups really have; empty when libvirt's own words must do.
std::string Remedy(const std::string& uri, const std::string& message) {
  auto says = [&](const char* words) {
    return message.find(words) != std::string::npos;
  };
  if (says("Failed to connect socket to")) {
    if (says("Permission denied")) {
      return "; this user may not use that libvirt: add it to the group "
             "libvirt, or use qemu:///session";
    }
    return geteuid() == 0
               ? "; no libvirtd listens there: start it (systemctl start "
                 "libvirtd, or virtlogd -d; libvirtd -d)"
               : "; no libvirtd listens there: start it, or use "
                 "qemu:///session";
  }
  if (says("Could not resolve hostname") || says("unable to resolve")) {
    return "; the host name does not resolve: check its spelling and "
           "/etc/hosts";
  }
  if (says("Connection refused")) {
    return "; nothing listens there: check host and port";
  }
  if (says("Permission denied (publickey")) {
    return "; the server takes no key of this user: add keyfile=PATH to the "
           "URI, or the key to its authorized_keys";
  }
  if (says("Host key verification failed")) {
    return "; the server's host key is unknown or has changed: connect once "
           "with ssh and check it";
  }
  if (says("no connection driver available") || says("unable to find")) {
    return fmt::format("; libvirt knows no driver for '{}'", uri);
  }
  return "";
}

Error OpenError(const std::string& uri) {
  const std::string what =
      fmt::format("Cannot connect to '{}'", uri.empty() ? "libvirt" : uri);
  const virError* last = virGetLastError();
  const std::string message =
      last != nullptr && last->message != nullptr ? last->message : "";
  const Error error = LibvirtError(what);
  // LibvirtError speaks of a lost connection for errors of the RPC layer.
  const bool lost = error.Errno() == EHOSTDOWN;
  return Error(
      lost ? EHOSTDOWN : error.Errno(),
      (lost ? what + ": " + message : error.Sentence()) + Remedy(uri, message));
}

ConnPtr OpenNow(const std::string& uri) {
  // No credentials are asked for: there is nobody to ask.
  virConnectAuth auth{};
  ConnPtr connection(
      virConnectOpenAuth(uri.empty() ? nullptr : uri.c_str(), &auth, 0));
  if (connection == nullptr) throw OpenError(uri);
  return connection;
}

}  // namespace

// virConnectOpen to a hung daemon blocks for ever, before keepalive can be
// set, so it gets a thread that may be left behind.
ConnPtr OpenLibvirtConnection(const std::string& uri) {
  auto promise = std::make_shared<std::promise<ConnPtr>>();
  auto future = promise->get_future();
  std::thread([uri, promise] {
    try {
      promise->set_value(OpenNow(uri));
    } catch (...) {
      promise->set_exception(std::current_exception());
    }
  }).detach();
  if (future.wait_for(kOpenLimit) != std::future_status::ready) {
    throw Error(ETIMEDOUT,
                fmt::format("Cannot connect to '{}': no answer within {} s; "
                            "the daemon there hangs, or a firewall drops the "
                            "packets",
                            uri.empty() ? "libvirt" : uri, kOpenLimit.count()));
  }
  return future.get();
}

std::string HostUuid(virConnectPtr connection) {
  const std::string xml = TakeString(virConnectGetCapabilities(connection));
  if (xml.empty()) ThrowLibvirt("Cannot ask for the hypervisor's identity");
  return XmlText(xml, "/capabilities/host/uuid");
}

}  // namespace sbxfs
