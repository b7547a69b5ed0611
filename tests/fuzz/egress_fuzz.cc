// Requests of a guest to the proxy that is its only way out. Names are resolved
// here: those that a rule allows lead to a server that hears what gets through.
#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <string_view>
#include <thread>

#include "backend/egress/proxy.h"
#include "backend/util/mutex.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kAllowed = ".allowed";

std::string ReadAll(int fd) {
  std::string all;
  std::array<char, 4096> buffer;
  ssize_t count = 0;
  while ((count = recv(fd, buffer.data(), buffer.size(), 0)) > 0) {
    all.append(buffer.data(), static_cast<size_t>(count));
  }
  return all;
}

// Listens on a socket without a file; takes one connection after the other.
class FarServer {
 public:
  FarServer() : ear_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    // A name behind a NUL is in no directory. It is long enough to look like no
    // address of this machine where one might be.
    const std::string name =
        fmt::format("\0sbxfs-egress-fuzz-{:016}"sv, getpid());
    address_.sun_family = AF_UNIX;
    name.copy(address_.sun_path, sizeof address_.sun_path);
    length_ =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    Check(bind(ear_.Get(), reinterpret_cast<sockaddr*>(&address_), length_) ==
                  0 &&
              listen(ear_.Get(), 8) == 0,
          "a socket to listen on");
    found_.ai_family = AF_UNIX;
    found_.ai_socktype = SOCK_STREAM;
    found_.ai_addr = reinterpret_cast<sockaddr*>(&address_);
    found_.ai_addrlen = length_;
    std::thread([this] { Listen(); }).detach();
  }

  addrinfo* Found() { return &found_; }
  // What the last connection brought.
  std::string Heard() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!done_) changed_.Wait(mutex_);
    done_ = false;
    return std::move(heard_);
  }

 private:
  void Listen() EXCLUDES(mutex_) {
    for (;;) {
      const UniqueFd client(accept(ear_.Get(), nullptr, nullptr));
      std::string all = ReadAll(client.Get());
      MutexLock lock(mutex_);
      heard_ = std::move(all);
      done_ = true;
      changed_.NotifyAll();
    }
  }

  UniqueFd ear_;
  sockaddr_un address_{};
  socklen_t length_ = 0;
  addrinfo found_{};
  Mutex mutex_;
  CondVar changed_;
  bool done_ GUARDED_BY(mutex_) = false;
  std::string heard_ GUARDED_BY(mutex_);
};

// Never freed: its thread ends with the process.
FarServer& TheServer() {
  static auto* const server = new FarServer;
  return *server;
}

// A plain request is passed on as one to the server itself.
void CheckHead(const std::string& heard) {
  const size_t end = heard.find("\r\n\r\n");
  Check(end != heard.npos, "a request has a head", heard);
  const std::string head = Lower(heard.substr(0, end + 2));
  const auto words =
      Split(std::string_view(head).substr(0, head.find("\r\n")), ' ');
  Check(words.size() >= 3 && words[1].starts_with('/'),
        "a path, not a place elsewhere", head);
  Check(head.find("\r\nproxy-connection:") == head.npos &&
            head.find("\r\nproxy-authorization:") == head.npos,
        "what is for the proxy stays here", head);
  Check(head.find("\r\nconnection: close\r\n") != head.npos,
        "one request for a connection", head);
}

}  // namespace
}  // namespace sbxfs::fuzz

// In the place of libc's.
extern "C" int getaddrinfo(const char* name, const char*, const addrinfo*,
                           addrinfo** found) {
  using namespace sbxfs::fuzz;
  Check(std::string_view(name).ends_with(kAllowed),
        "who is asked for is allowed", name);
  *found = TheServer().Found();
  return 0;
}
extern "C" void freeaddrinfo(addrinfo*) noexcept {}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  using namespace sbxfs::fuzz;
  if (size > 100000) return 0;
  int fds[2];
  Check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0,
        "two sockets");
  const UniqueFd guest(fds[0]);
  UniqueFd proxy(fds[1]);
  const int room = 1 << 20;
  setsockopt(guest.Get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  Check(
      send(guest.Get(), data, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size),
      "a request fits");
  shutdown(guest.Get(), SHUT_WR);
  const std::vector<EgressRule> rules = {
      EgressRule{"*" + std::string(kAllowed), EgressRule::kAny}};
  const std::string said = ServeEgress(std::move(proxy), rules);
  Check(IsPlainLine(said), "a log's line is one", said);
  const std::string answer = ReadAll(guest.Get());
  if (answer.starts_with("HTTP/1.1 400 ") ||
      answer.starts_with("HTTP/1.1 403 ")) {
    return 0;
  }
  const std::string heard = TheServer().Heard();
  if (answer.empty()) {
    CheckHead(heard);
  } else {
    Check(answer.starts_with("HTTP/1.1 200 "), "a tunnel, or a refusal",
          answer);
    Check(Text(data, size).ends_with(heard), "a tunnel brings what came behind",
          heard);
  }
  return 0;
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  (void)sbxfs::fuzz::TheServer();
  return 0;
}
