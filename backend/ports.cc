#include "backend/ports.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "backend/util/socket.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// Below the kernel's ephemeral ports, so that no connection of another
// program takes one while its sandbox is stopped.
constexpr int kFirst = 22000;
constexpr int kLast = 31999;

// 0, or bind's errno.
int TryToBind(const Forward& wanted) {
  int error = 0;
  (void)BindTo(wanted, error);
  return error;
}

// The inode of the socket that has the port, from /proc/net/.
std::string InodeWith(const Forward& wanted) {
  constexpr std::string_view kListening = "0A";
  const std::string suffix = fmt::format(":{:04X}", wanted.host_port);
  const std::string base = wanted.udp ? "/proc/net/udp" : "/proc/net/tcp";
  for (const char* family : {"", "6"}) {
    std::ifstream file(base + family);
    std::string line;
    while (std::getline(file, line)) {
      std::istringstream words(line);
      std::string slot, local, remote, state, inode;
      words >> slot >> local >> remote >> state;
      for (int i = 0; i < 6; ++i) words >> inode;
      if ((wanted.udp || state == kListening) && local.ends_with(suffix)) {
        return inode;
      }
    }
  }
  return "";
}

// From here on any user may listen.
int FirstFreePort() {
  std::ifstream file("/proc/sys/net/ipv4/ip_unprivileged_port_start");
  int port = 1024;
  file >> port;
  return port;
}

// Other users' descriptors cannot be seen: then the process stays unnamed.
std::string ProcessWith(const std::string& inode) {
  namespace stdfs = std::filesystem;
  const std::string wanted = "socket:[" + inode + "]";
  std::error_code ignored;
  for (const auto& process : stdfs::directory_iterator("/proc", ignored)) {
    const std::string pid = process.path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    stdfs::directory_iterator fds(process.path() / "fd", ignored);
    if (ignored) continue;
    for (const auto& fd : fds) {
      if (stdfs::read_symlink(fd.path(), ignored) != wanted) continue;
      std::ifstream comm(process.path() / "comm");
      std::string name;
      std::getline(comm, name);
      return fmt::format("process '{}' (pid {})", name, pid);
    }
  }
  return "another process";
}

bool IsSsh(const Forward& forward) {
  return forward == SshForward(forward.host_port);
}

std::string Words(const Forward& forward) {
  if (IsSsh(forward)) return fmt::format("ssh port {}", forward.host_port);
  return fmt::format("port {} (for the guest's {})", HostSide(forward),
                     forward.guest_port);
}

}  // namespace

UniqueFd BindTo(const Forward& wanted, int& error) {
  const int type = wanted.udp ? SOCK_DGRAM : SOCK_STREAM;
  UniqueFd fd(socket(AF_INET, type | SOCK_CLOEXEC, 0));
  error = 0;
  if (!fd.Valid()) return fd;
  const auto address = Ipv4Address(wanted.host_ip, wanted.host_port);
  if (!address) return fd;
  // As QEMU does: connections in TIME_WAIT hold nothing up. For UDP it would
  // let two listen on one port.
  const int on = 1;
  if (!wanted.udp) {
    setsockopt(fd.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  }
  if (bind(fd.Get(), reinterpret_cast<const sockaddr*>(&*address),
           sizeof(*address)) != 0) {
    error = errno;
  }
  return fd;
}

std::string Ports::Holder(const std::string& uuid, const Forward& wanted,
                          bool now) {
  for (const auto& sandbox : core_.catalog.All()) {
    if (!now && sandbox->uuid != uuid && sandbox->ssh_port != 0 &&
        Collide(SshForward(sandbox->ssh_port), wanted)) {
      return fmt::format("sandbox '{}'{}", sandbox->name,
                         sandbox->trashed ? " in .host/trash" : "");
    }
  }
  for (const auto& other : core_.WhoForwards(uuid, wanted)) {
    const SandboxPtr sandbox = core_.catalog.Get(other);
    if (sandbox != nullptr && !core_.catalog.IsOff(other)) {
      return fmt::format("sandbox '{}'", sandbox->name);
    }
  }
  // Ports of other machines are not to be seen.
  if (!core_.ReachesGuests() || core_.test_driver || IsElsewhere(wanted) ||
      TryToBind(wanted) != EADDRINUSE) {
    return "";
  }
  const std::string inode = InodeWith(wanted);
  return inode.empty() ? "another process" : ProcessWith(inode);
}

// CheckAddresses lets none but kOnHypervisor be all addresses.
bool Ports::IsElsewhere(const Forward& wanted) const {
  return core_.relayed && wanted.host_ip == "0.0.0.0";
}

void Ports::CheckAddresses(const Spec& spec, std::string_view what) const {
  if (!core_.relayed) return;
  for (const PortForward& rule : spec.port_forwards) {
    if (rule.ignore || rule.host_ip != "0.0.0.0") continue;
    throw Error(EOPNOTSUPP,
                fmt::format("{}: the hypervisor is another machine, whose "
                            "guests' ports ssh opens here on 127.0.0.1 alone; "
                            "write {}:PORT for all addresses of the hypervisor",
                            what, kOnHypervisor));
  }
}

void Ports::CheckOne(const std::string& uuid, const Forward& wanted,
                     std::string_view what) {
  const std::string holder = Holder(uuid, wanted, /*now=*/false);
  if (!holder.empty()) {
    throw Error(EADDRINUSE, fmt::format("{}: {} is taken by {}; choose another",
                                        what, Words(wanted), holder));
  }
  CheckRights(uuid, wanted, what);
}

void Ports::CheckRights(const std::string& uuid, const Forward& wanted,
                        std::string_view what) {
  if (!core_.ReachesGuests() || core_.test_driver || IsElsewhere(wanted)) {
    return;
  }
  if (core_.relayed && (wanted.udp || wanted.host_ip != "127.0.0.1")) {
    throw Error(EOPNOTSUPP,
                fmt::format("{}: the hypervisor is another machine, whose "
                            "guests' ports ssh opens here, on 127.0.0.1 and "
                            "for TCP alone; {}:PORT is one of the hypervisor's",
                            what, kOnHypervisor));
  }
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  const bool root =
      core_.guest_uid == 0 && (sandbox == nullptr || sandbox->uid == 0);
  if (const int first = FirstFreePort(); !root && wanted.host_port < first) {
    throw Error(EACCES,
                fmt::format("{}: {} is below {}, which only a guest of root's "
                            "that QEMU runs as root can have; choose another",
                            what, Words(wanted), first));
  }
  if (TryToBind(wanted) == EADDRNOTAVAIL) {
    throw Error(EADDRNOTAVAIL,
                fmt::format("{}: this machine has no address {}; see ip addr",
                            what, wanted.host_ip));
  }
}

void Ports::CheckStart(const std::string& uuid,
                       const std::vector<Forward>& wanted,
                       std::string_view what) {
  for (const Forward& one : wanted) {
    std::string holder = Holder(uuid, one, /*now=*/true);
    // Or it is ours, from a moment ago, when it ran: ssh is closing it.
    for (int i = 0; core_.relayed && !holder.empty() && i < 20; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      holder = Holder(uuid, one, /*now=*/true);
    }
    if (!holder.empty()) {
      throw Error(EADDRINUSE,
                  fmt::format("{}: its {} is taken by {}; end that, or write "
                              "another to {}",
                              what, Words(one), holder,
                              IsSsh(one) ? "ssh_port" : "ports/"));
    }
    CheckRights(uuid, one, what);
  }
}

void Ports::Check(const std::string& uuid, const std::vector<Forward>& wanted,
                  const std::vector<Forward>& had, std::string_view what) {
  for (const Forward& one : wanted) {
    // What the guest itself has in the way goes before this comes.
    if (std::none_of(had.begin(), had.end(),
                     [&](const Forward& old) { return Collide(old, one); })) {
      CheckOne(uuid, one, what);
    }
  }
}

int Ports::Reserve(const std::string& uuid, int wanted, std::string_view what) {
  auto take = [this](int port) {
    MutexLock lock(mutex_);
    return reserved_.insert(port).second;
  };
  if (wanted != 0) {
    CheckOne(uuid, SshForward(wanted), what);
    if (take(wanted)) return wanted;
    throw Error(EADDRINUSE, fmt::format("{}: port {} is taken by a sandbox "
                                        "being made; choose another",
                                        what, wanted));
  }
  constexpr int kCount = kLast - kFirst + 1;
  const int start = static_cast<int>(std::hash<std::string>()(uuid) % kCount);
  for (int i = 0; i < kCount; ++i) {
    const int port = kFirst + (start + i) % kCount;
    if (!take(port)) continue;
    if (Holder(uuid, SshForward(port), false).empty()) return port;
    Release(port);
  }
  throw Error(EADDRINUSE, fmt::format("{}: every port from {} to {} is taken",
                                      what, kFirst, kLast));
}

void Ports::Release(int port) {
  MutexLock lock(mutex_);
  reserved_.erase(port);
}

}  // namespace sbxfs
