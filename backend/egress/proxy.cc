#include "backend/egress/proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/write.hpp>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "backend/util/carry.h"
#include "backend/util/error.h"
#include "backend/util/slip.h"
#include "backend/util/socket.h"
#include "backend/util/spawn.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

namespace http = boost::beast::http;
using nlohmann::json;

constexpr int kProxyLock = 3;
constexpr int kMostClients = 256;
constexpr int kPatienceSeconds = 30;  // for a request, and for a connection

constexpr char kCannotProxy[] = "Cannot start the way out of a guest";

[[noreturn]] void FailProxy(std::string_view step, int error) {
  throw Error(error, fmt::format("{}: {}: {}", kCannotProxy, step,
                                 std::strerror(error)));
}

void Limit(int fd, int seconds) {
  const timeval time{seconds, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

// A refusal that a person may read: curl shows its first line, apt its status.
std::string Refuse(int client, int status, std::string_view reason,
                   const std::string& sentence) {
  const std::string body = "sbxfs: " + sentence + "\n";
  (void)SendAll(client,
                fmt::format("HTTP/1.1 {} {}\r\nContent-Type: text/plain\r\n"
                            "Content-Length: {}\r\nConnection: close\r\n\r\n{}",
                            status, reason, body.size(), body));
  return sentence;
}

// What a name must not lead to: this machine is no part of the network that
// was allowed, whatever a name server says.
bool IsOfThisMachine(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    const uint32_t host = ntohl(v4->sin_addr.s_addr);
    return host >> 24 == 127 || host >> 24 == 0 || host >> 16 == 0xa9fe;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    return v6.s6_addr[12] == 127 || v6.s6_addr[12] == 0 ||
           (v6.s6_addr[12] == 169 && v6.s6_addr[13] == 254);
  }
  return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6) ||
         IN6_IS_ADDR_LINKLOCAL(&v6);
}

// Invalid, and why, where nobody answers.
UniqueFd Connect(const Destination& to, std::string& why) {
  // As in a guest with a network, the host is its loopback.
  const bool here = to.host == "host.lima.internal";
  const std::string host = here ? "127.0.0.1" : to.host;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), fmt::to_string(to.port).c_str(),
                                &hints, &found);
  if (error != 0) {
    why = gai_strerror(error);
    return UniqueFd();
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(found,
                                                               &freeaddrinfo);
  why = "it is an address of the host's own";
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    if (!here && !IsAddress(host) && IsOfThisMachine(one->ai_addr)) continue;
    UniqueFd fd(socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd.Valid()) continue;
    Limit(fd.Get(), kPatienceSeconds);
    if (connect(fd.Get(), one->ai_addr, one->ai_addrlen) == 0) return fd;
    why = std::strerror(errno);
  }
  return UniqueFd();
}

using Parser = http::request_parser<http::empty_body>;

// Up to the end of a request's head; what came behind it.
std::optional<std::string> ReadHead(int client, Parser& parser) {
  parser.header_limit(65536);
  parser.skip(true);  // whatever body follows is not ours to read
  std::string text;
  std::array<char, 8192> buffer;
  while (!parser.is_header_done()) {
    const ssize_t count = recv(client, buffer.data(), buffer.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0 || text.size() > 65536) return {};
    text.append(buffer.data(), static_cast<size_t>(count));
    boost::system::error_code error;
    const size_t used = parser.put(boost::asio::buffer(text), error);
    if (error && error != http::error::need_more) return {};
    text.erase(0, used);
  }
  return text;
}

// The request as the server itself is to have it. One for each connection: the
// next may be for another.
std::string HeadFor(const Parser& parser, std::string_view path) {
  auto head = parser.get().base();
  head.target({path.data(), path.size()});
  for (const char* name : {"Proxy-Connection", "Proxy-Authorization",
                           "Connection", "Keep-Alive"}) {
    head.erase(name);
  }
  head.set(http::field::connection, "close");
  std::ostringstream text;
  text << head;
  return text.str();
}

}  // namespace

std::string ServeEgress(UniqueFd client, const std::vector<EgressRule>& rules) {
  Limit(client.Get(), kPatienceSeconds);
  Parser parser;
  const auto rest = ReadHead(client.Get(), parser);
  if (!rest) return Refuse(client.Get(), 400, "Bad Request", "no HTTP request");
  const auto& request = parser.get();
  const std::string target(request.target());
  const bool tunnel = request.method() == http::verb::connect;
  std::string path;
  std::optional<Destination> to;
  constexpr std::string_view kHttp = "http://";
  if (tunnel) {
    to = ParseDestination(target);
  } else if (target.starts_with(kHttp)) {
    const auto slash = target.find_first_of("/?", kHttp.size());
    to = ParseDestination(
        std::string_view(target).substr(
            kHttp.size(),
            slash == std::string::npos ? slash : slash - kHttp.size()),
        80);
    if (slash != std::string::npos) path = target.substr(slash);
    if (!path.starts_with('/')) path.insert(0, "/");
  }
  if (!to) {
    return Refuse(client.Get(), 400, "Bad Request",
                  "this is a proxy, for CONNECT and http://");
  }
  const std::string name = fmt::format("{}:{}", to->host, to->port);
  if (Allowing(rules, *to) == nullptr) {
    return Refuse(client.Get(), 403, "Forbidden",
                  fmt::format("'{}' is not in egress of config.yaml", name));
  }
  std::string why;
  const UniqueFd server = Connect(*to, why);
  if (!server.Valid()) {
    return Refuse(client.Get(), 502, "Bad Gateway",
                  fmt::format("cannot reach '{}': {}", name, why));
  }
  const bool begun = tunnel ? SendAll(client.Get(),
                                      "HTTP/1.1 200 Connection established\r\n"
                                      "\r\n")
                            : SendAll(server.Get(), HeadFor(parser, path));
  if (begun && SendAll(server.Get(), *rest)) Carry(client.Get(), server.Get());
  return name;
}

void StartEgressProxy(const std::string& slip, const std::string& digest,
                      const std::string& path,
                      const std::vector<std::string>& rules,
                      const std::vector<std::string>& ssh) {
  const SlipLock lock(slip, kCannotProxy);
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  const json told = {
      {"digest", digest}, {"path", path}, {"rules", rules}, {"ssh", ssh}};
  const int status =
      AwaitExit(Spawn("/proc/self/exe", {kEgressProxy, told.dump()},
                      {{null.Get(), STDIN_FILENO},
                       {null.Get(), STDOUT_FILENO},
                       {lock.Log(), STDERR_FILENO},
                       {lock.Lock(), kProxyLock}}));
  if (status != 0) FailProxy("its process", ECHILD);
}

int RunEgressProxy(int argc, char** argv) {
  try {
    if (argc != 2) FailProxy("its arguments", EINVAL);
    fcntl(kProxyLock, F_SETFD, FD_CLOEXEC);
    close_range(kProxyLock + 1, ~0U, 0);
    const json told = json::parse(argv[1]);
    std::vector<EgressRule> rules;
    for (const std::string text : told.at("rules")) {
      if (const auto rule = ParseEgressRule(text)) rules.push_back(*rule);
    }
    const UniqueFd ear(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const std::string path = told.at("path");
    const sockaddr_un address = UnixAddress(path);
    umask(0077);
    if (bind(ear.Get(), reinterpret_cast<const sockaddr*>(&address),
             sizeof address) != 0 ||
        listen(ear.Get(), 64) != 0) {
      FailProxy(path, errno);
    }
    GoOnInSlip(kProxyLock, told.at("digest"), kCannotProxy);
    prctl(PR_SET_NAME, kEgressProxy);
    // Ended with ssh, by whichever end.
    static std::atomic<pid_t> ssh = 0;
    ssh = Spawn(told.at("ssh").get<std::vector<std::string>>(), STDIN_FILENO,
                -1, STDERR_FILENO);
    std::signal(SIGTERM, [](int) {
      kill(ssh, SIGTERM);
      _exit(0);
    });
    std::thread([path] {
      (void)AwaitExit(ssh);
      (void)unlink(path.c_str());
      _exit(0);
    }).detach();
    static std::atomic<int> clients = 0;
    for (;;) {
      UniqueFd client(accept4(ear.Get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client.Valid()) continue;
      if (++clients > kMostClients) {
        --clients;
        continue;
      }
      std::thread([&rules, client = std::move(client)]() mutable {
        const std::string said = ServeEgress(std::move(client), rules);
        // Nor may a guest fill a disk of ours.
        static std::atomic<int> lines = 0;
        if (++lines < 10000) fmt::print(stderr, "{}\n", said);
        --clients;
      }).detach();
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", kEgressProxy, error.what());
    return 1;
  }
}

}  // namespace sbxfs
