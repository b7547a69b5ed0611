#include "fs/connect.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>

#include "backend/util/error.h"
#include "backend/util/socket.h"
#include "backend/util/text.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

constexpr int kFailed = 255;

std::string ReadAll(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  ssize_t got = 0;
  while ((got = read(fd, buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return text;
}

// Whether it runs, usable or not.
bool Runs(const std::string& dir) {
  const UniqueFd file(open((dir + "/status").c_str(), O_RDONLY | O_CLOEXEC));
  return file.Valid() && Trim(ReadAll(file.Get())) == "running";
}

// Throws with the tree's own sentence when the sandbox does not come up. One
// that runs, but whose scripts or probes failed, is let into: how else would
// one find out why.
void Start(const std::string& dir) {
  const UniqueFd status(open((dir + "/status").c_str(), O_RDWR | O_CLOEXEC));
  if (!status.Valid()) {
    throw Error(errno, fmt::format("Cannot connect to '{}': {}", dir,
                                   std::strerror(errno)));
  }
  constexpr std::string_view kVerb = "start\n";
  while (write(status.Get(), kVerb.data(), kVerb.size()) < 0) {
    const int error = errno;
    if (error == EINTR) continue;  // the same verb again joins the first
    const std::string told(Trim(ReadAll(status.Get())));
    if (error == EIO && Runs(dir)) {
      fmt::print(stderr, "sbxfs: {}\n", told);
      return;
    }
    throw Error(error, told.empty() ? fmt::format("Cannot start '{}': {}", dir,
                                                  std::strerror(error))
                                    : told);
  }
}

uint16_t Port(const std::string& dir) {
  const UniqueFd file(open((dir + "/ssh_port").c_str(), O_RDONLY | O_CLOEXEC));
  const std::string text = file.Valid() ? ReadAll(file.Get()) : std::string();
  const auto port = ParseNumber(Trim(text));
  if (!port || *port == 0 || *port > 65535) {
    throw Error(ENOENT, fmt::format("Cannot connect to '{}': it has no ssh "
                                    "port; see its error file",
                                    dir));
  }
  return static_cast<uint16_t>(*port);
}

UniqueFd Dial(const std::string& dir, uint16_t port) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Ipv4Address(kLoopback, port).value();
  if (!fd.Valid() ||
      connect(fd.Get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) != 0) {
    throw Error(errno, fmt::format("Cannot connect to '{}': port {} of "
                                   "127.0.0.1: {}",
                                   dir, port, std::strerror(errno)));
  }
  const int on = 1;
  setsockopt(fd.Get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

bool WriteAll(int fd, const char* bytes, ssize_t size) {
  while (size > 0) {
    const ssize_t done = write(fd, bytes, static_cast<size_t>(size));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno == EAGAIN) {
      pollfd ready{fd, POLLOUT, 0};
      poll(&ready, 1, -1);
      continue;
    }
    if (done <= 0) return false;
    bytes += done;
    size -= done;
  }
  return true;
}

// One read and its write; false at the end.
bool Pass(int from, int to) {
  std::array<char, 65536> buffer;
  const ssize_t got = read(from, buffer.data(), buffer.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  return got > 0 && WriteAll(to, buffer.data(), got);
}

// Until the guest has said all: the end of our input is only its end.
void Pump(int guest) {
  bool sending = true;
  while (true) {
    std::array<pollfd, 2> fds = {
        pollfd{guest, POLLIN, 0},
        pollfd{sending ? STDIN_FILENO : -1, POLLIN, 0}};
    if (poll(fds.data(), fds.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (fds[1].revents != 0 && !Pass(STDIN_FILENO, guest)) {
      sending = false;
      shutdown(guest, SHUT_WR);
    }
    if (fds[0].revents != 0 && !Pass(guest, STDOUT_FILENO)) return;
  }
}

}  // namespace

int Connect(const std::string& sandbox_dir) {
  std::signal(SIGPIPE, SIG_IGN);
  try {
    Start(sandbox_dir);
    const UniqueFd guest = Dial(sandbox_dir, Port(sandbox_dir));
    Pump(guest.Get());
    return 0;
  } catch (...) {
    fmt::print(stderr, "sbxfs: {}\n", CurrentError().Sentence());
    return kFailed;
  }
}

}  // namespace sbxfs
