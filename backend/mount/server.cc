#include "backend/mount/server.h"

#include <endian.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <utility>

#include "backend/util/error.h"
#include "backend/util/slip.h"
#include "backend/util/socket.h"
#include "backend/util/spawn.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

// Where the process finds what it is given.
constexpr int kRoot = 3, kLock = 4, kLog = 5;

constexpr char kCannotServe[] = "Cannot start the server of a mount";

[[noreturn]] void FailServer(std::string_view step, int error) {
  throw Error(error, fmt::format("{}: {}: {}", kCannotServe, step,
                                 std::strerror(error)));
}

// In the server's process.

// ssh, with the key of the mount and so with the daemon's rights, and our end
// of its stdin and stdout.
std::pair<UniqueFd, pid_t> StartSsh(const std::vector<std::string>& words) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    FailServer("a socket", errno);
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  return {std::move(ours), Spawn(words, theirs.Get(), theirs.Get(), kLog)};
}

void BecomeUser(const Rights& rights) {
  if (geteuid() != 0 || rights.uid == 0) return;
  if (setgroups(rights.groups.size(), rights.groups.data()) != 0 ||
      setresgid(rights.gid, rights.gid, rights.gid) != 0 ||
      setresuid(rights.uid, rights.uid, rights.uid) != 0) {
    FailServer("its user's rights", errno);
  }
}

// A guest may have many files open at once.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

bool ReadAll(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t count = read(fd, data, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    data += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

void Serve(int fd, SftpServer& server) {
  uint32_t size = 0;
  while (ReadAll(fd, reinterpret_cast<char*>(&size), sizeof size)) {
    std::string request(be32toh(size), '\0');
    if (request.size() > SftpServer::kMaxPacket) return;
    if (!ReadAll(fd, request.data(), request.size())) return;
    std::string reply = server.Answer(request);
    size = htobe32(static_cast<uint32_t>(reply.size()));
    reply.insert(0, reinterpret_cast<const char*>(&size), sizeof size);
    if (!SendAll(fd, reply)) return;
  }
}

json ToJson(const MountServer& server) {
  return {{"digest", server.digest},        {"writable", server.writable},
          {"uid", server.rights.uid},       {"gid", server.rights.gid},
          {"groups", server.rights.groups}, {"guest_uid", server.guest_uid},
          {"guest_gid", server.guest_gid},  {"ssh", server.ssh}};
}

MountServer FromJson(const json& from) {
  MountServer server;
  server.digest = from.at("digest");
  server.root = UniqueFd(kRoot);
  server.writable = from.at("writable");
  server.rights = {from.at("uid"), from.at("gid"), from.at("groups")};
  server.guest_uid = from.at("guest_uid");
  server.guest_gid = from.at("guest_gid");
  server.ssh = from.at("ssh").get<std::vector<std::string>>();
  return server;
}

}  // namespace

int ServeMount(int argc, char** argv) {
  if (argc != 3) return 1;
  try {
    for (const int fd : {kRoot, kLock, kLog}) fcntl(fd, F_SETFD, FD_CLOEXEC);
    close_range(kLog + 1, ~0U, 0);
    MountServer server = FromJson(json::parse(argv[2]));
    GoOnInSlip(kLock, server.digest, kCannotServe);
    prctl(PR_SET_NAME, kMountServer);
    RaiseFileLimit();
    const auto [connection, ssh] = StartSsh(server.ssh);
    close(kLog);
    BecomeUser(server.rights);
    umask(0);
    ConfineByLandlock(kRoot);
    auto groups = server.rights.groups;
    groups.push_back(server.rights.gid);
    SftpServer sftp(Jail(std::move(server.root), server.writable),
                    {server.rights.uid, std::move(groups), server.guest_uid,
                     server.guest_gid});
    Serve(connection.Get(), sftp);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "sbxfs-mount: {}\n", error.what());
    return 1;
  }
}

std::optional<MountSlip> ReadSlip(const std::filesystem::path& slip) {
  const UniqueFd fd(open(slip.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.Valid()) return std::nullopt;
  if (flock(fd.Get(), LOCK_SH | LOCK_NB) == 0) return std::nullopt;
  char text[256];
  const ssize_t size = pread(fd.Get(), text, sizeof text, 0);
  MountSlip found;
  if (size > 0) {
    std::istringstream words(std::string(text, static_cast<size_t>(size)));
    words >> found.pid >> found.digest;
  }
  return found;
}

void StartMountServer(const std::filesystem::path& slip, MountServer server) {
  const SlipLock lock(slip, kCannotServe);
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  const int status = AwaitExit(Spawn(
      "/proc/self/exe", {kMountServer, server.label, ToJson(server).dump()},
      {{null.Get(), STDIN_FILENO},
       {null.Get(), STDOUT_FILENO},
       {lock.Log(), STDERR_FILENO},
       {server.root.Get(), kRoot},
       {lock.Lock(), kLock},
       {lock.Log(), kLog}}));
  if (status != 0) FailServer("its process", ECHILD);
}

void StopMountServer(const std::filesystem::path& slip) {
  const auto until = std::chrono::steady_clock::now() + 5s;
  int signal = SIGTERM;
  while (const auto found = ReadSlip(slip)) {
    // Without a pid it is only just starting.
    if (found->pid > 1) kill(found->pid, signal);
    std::this_thread::sleep_for(20ms);
    const auto now = std::chrono::steady_clock::now();
    if (now > until - 2s) signal = SIGKILL;
    if (now > until) {
      throw Error(ETIMEDOUT,
                  fmt::format("Cannot end the server of a mount: process {} "
                              "does not end; kill it",
                              found->pid));
    }
  }
  std::error_code ignored;
  std::filesystem::remove(slip, ignored);
  std::filesystem::remove(slip.native() + ".log", ignored);
}

std::vector<std::string> SlipsIn(const std::filesystem::path& dir,
                                 std::string_view prefix) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    std::string name = entry.path().filename();
    if (entry.is_regular_file(error) && name.starts_with(prefix) &&
        !name.ends_with(".log")) {
      names.push_back(std::move(name));
    }
  }
  return names;
}

void StopServersIn(const std::filesystem::path& dir, std::string_view prefix) {
  for (const auto& name : SlipsIn(dir, prefix)) StopMountServer(dir / name);
}

}  // namespace sbxfs
