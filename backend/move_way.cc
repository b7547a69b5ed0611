#include "backend/move_way.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>

#include "backend/guest/boot.h"
#include "backend/tunnel_process.h"
#include "backend/util/error.h"
#include "backend/util/socket.h"
#include "backend/util/spawn.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr auto kLogin = 30s;
constexpr int kTries = 3;  // a port may be taken over there

// One that nobody listens on here just now.
uint16_t FreePort() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = Ipv4Address(kLoopback, 0).value();
  socklen_t size = sizeof address;
  if (bind(fd.Get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      getsockname(fd.Get(), reinterpret_cast<sockaddr*>(&address), &size) !=
          0) {
    throw Error(errno, "Cannot find a free port");
  }
  return ntohs(address.sin_port);
}

}  // namespace

MoveWay::MoveWay(Core& from, Core& to, std::string_view what) {
  const Route source = from.Way();
  const std::string host = to.Way().uri.host;
  if (to.local && !source.ssh.empty()) {
    ThroughSsh(source.ssh, what);
  } else if (host.find(':') != host.npos) {
    uri = fmt::format("tcp://[{}]", host);
  } else if (!host.empty()) {
    uri = fmt::format("tcp://{}", host);
  } else if (from.local && to.local) {
    uri = "tcp://127.0.0.1";
  }
}

MoveWay::~MoveWay() { End(); }

void MoveWay::ThroughSsh(const std::vector<std::string>& ssh,
                         std::string_view what) {
  std::string said;
  for (int i = 0; i < kTries; ++i) {
    const uint16_t memory = FreePort();
    const uint16_t disks = FreePort();
    if (memory == disks || !Begin(ssh, memory, disks, said)) continue;
    uri = fmt::format("tcp://127.0.0.1:{}", memory);
    listen_address = "127.0.0.1";
    disks_port = disks;
    return;
  }
  throw Error(EHOSTDOWN,
              fmt::format("{}: its way through ssh could not be opened: {}",
                          what, said.empty() ? "ssh said nothing" : said));
}

// It runs `cat` over there, which ends when we do, however that is.
bool MoveWay::Begin(const std::vector<std::string>& ssh, uint16_t memory,
                    uint16_t disks, std::string& said) {
  int in[2];
  int err[2];
  if (pipe2(in, O_CLOEXEC) != 0) throw Error(errno, "Cannot make a pipe");
  const UniqueFd input(in[0]);
  stdin_ = UniqueFd(in[1]);
  if (pipe2(err, O_CLOEXEC) != 0) throw Error(errno, "Cannot make a pipe");
  const UniqueFd words(err[0]);
  UniqueFd to_words(err[1]);
  const auto forward = [](uint16_t port) {
    return fmt::format("127.0.0.1:{0}:127.0.0.1:{0}", port);
  };
  std::vector<std::string> command = ssh;
  std::vector<std::string> options = ForwardingWords();
  options.insert(options.end(),
                 {"-T", "-R", forward(memory), "-R", forward(disks)});
  command.insert(command.end() - 1, options.begin(), options.end());
  command.emplace_back("exec cat");
  ssh_ = Spawn(std::move(command), input.Get(), -1, to_words.Get());
  to_words.Reset();
  said.clear();
  const auto until = std::chrono::steady_clock::now() + kLogin;
  while (said.find(kLoggedIn) == said.npos) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        until - std::chrono::steady_clock::now());
    pollfd ready{words.Get(), POLLIN, 0};
    char piece[512];
    ssize_t count = 0;
    if (left.count() > 0 &&
        poll(&ready, 1, static_cast<int>(left.count())) > 0) {
      count = read(words.Get(), piece, sizeof piece);
    }
    if (count <= 0) {
      said = LastWords(said);
      End();
      return false;
    }
    said.append(piece, static_cast<size_t>(count));
  }
  return true;
}

void MoveWay::End() {
  stdin_.Reset();
  if (ssh_ <= 0) return;
  kill(ssh_, SIGTERM);
  waitpid(ssh_, nullptr, 0);
  ssh_ = -1;
}

}  // namespace sbxfs
