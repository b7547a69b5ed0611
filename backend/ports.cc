#include "backend/ports.h"

#include <dirent.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// Below the kernel's ephemeral ports, so that no connection of another
// program takes one while its sandbox is stopped.
constexpr int kFirst = 22000;
constexpr int kLast = 31999;

bool CanBind(int port) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.Valid()) return true;
  // As QEMU does: connections in TIME_WAIT hold nothing up.
  const int on = 1;
  setsockopt(fd.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return bind(fd.Get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) == 0 ||
         errno != EADDRINUSE;
}

// The inode of the socket that listens on `port`, from /proc/net/tcp{,6}.
std::string ListeningInode(int port) {
  const std::string suffix = fmt::format(":{:04X}", port);
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    while (std::getline(file, line)) {
      std::istringstream words(line);
      std::string slot, local, remote, state, word, inode;
      words >> slot >> local >> remote >> state;
      for (int i = 0; i < 6; ++i) words >> inode;
      if (state == "0A" && local.ends_with(suffix)) return inode;
    }
  }
  return "";
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

}  // namespace

std::string Ports::Holder(const std::string& uuid, int port) {
  for (const auto& sandbox : core_.catalog.All()) {
    if (sandbox->uuid != uuid && sandbox->ssh_port == port) {
      return fmt::format("sandbox '{}'{}", sandbox->name,
                         sandbox->trashed ? " in .host/trash" : "");
    }
  }
  // Only a hypervisor on this machine has this machine's ports.
  if (!core_.local || core_.test_driver || CanBind(port)) return "";
  const std::string inode = ListeningInode(port);
  return inode.empty() ? "another process" : ProcessWith(inode);
}

int Ports::Reserve(const std::string& uuid, int wanted, std::string_view what) {
  auto take = [this](int port) {
    MutexLock lock(mutex_);
    return reserved_.insert(port).second;
  };
  if (wanted != 0) {
    std::string holder = Holder(uuid, wanted);
    if (holder.empty() && !take(wanted)) holder = "a sandbox being made";
    if (holder.empty()) return wanted;
    throw Error(EADDRINUSE,
                fmt::format("{}: port {} is taken by {}; choose another", what,
                            wanted, holder));
  }
  constexpr int kCount = kLast - kFirst + 1;
  const int start = static_cast<int>(std::hash<std::string>()(uuid) % kCount);
  for (int i = 0; i < kCount; ++i) {
    const int port = kFirst + (start + i) % kCount;
    if (!take(port)) continue;
    if (Holder(uuid, port).empty()) return port;
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
