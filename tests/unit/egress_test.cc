// Whom a guest without a network may reach: the rules, and the proxy that holds
// to them.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "backend/egress/proxy.h"
#include "backend/egress/rules.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(EgressRules, AreReadOrNot) {
  using R = EgressRule;
  const std::vector<std::pair<const char*, std::optional<R>>> kTexts = {
      {"example.com", R{"example.com", R::kWeb}},
      {"Example.COM.:443", R{"example.com", 443}},
      {"*.debian.org:*", R{"*.debian.org", R::kAny}},
      {"10.0.0.7:22", R{"10.0.0.7", 22}},
      {"[fd00::1]:22", R{"fd00::1", 22}},
      {"[fd00::1]", R{"fd00::1", R::kWeb}},
      {"host.lima.internal:8080", R{"host.lima.internal", 8080}},
      {"a_b.example:1", R{"a_b.example", 1}},
      {"", {}},
      {"*", {}},
      {"*:443", {}},
      {"a.*.org", {}},
      {"*example.com", {}},
      {"example.com:0", {}},
      {"example.com:65536", {}},
      {"example.com:http", {}},
      {"example.com:", {}},
      {"http://example.com", {}},
      {"example.com/path", {}},
      {"-x.org", {}},
      {"a..b", {}},
      {"[::1", {}},
      {"[10.0.0.7]:1", {}},
      {"[::1]x", {}},
      {"fd00::1", {}},
      {"a b", {}},
  };
  for (const auto& [text, rule] : kTexts) {
    EXPECT_EQ(ParseEgressRule(text), rule) << text;
  }
}

TEST(EgressRules, AllowWhatTheyNameAlone) {
  std::vector<EgressRule> rules;
  for (const char* text : {"example.com", "*.debian.org:443", "10.0.0.7:*",
                           "[fd00::1]:22", "*.1:80"}) {
    rules.push_back(ParseEgressRule(text).value());
  }
  const std::vector<std::pair<const char*, bool>> kAsked = {
      {"example.com:443", true},
      {"EXAMPLE.com.:80", true},
      {"example.com:22", false},
      {"www.example.com:443", false},
      {"badexample.com:443", false},
      {"example.com.evil.org:443", false},
      {"deb.debian.org:443", true},
      {"a.b.debian.org:443", true},
      {"debian.org:443", false},
      {"xdebian.org:443", false},
      {"deb.debian.org:80", false},
      {"10.0.0.7:1", true},
      {"10.0.0.70:1", false},
      {"[fd00::1]:22", true},
      {"[fd00::2]:22", false},
      {"10.0.0.1:80", false},  // an address is no name below "1"
  };
  for (const auto& [text, allowed] : kAsked) {
    const auto to = ParseDestination(text);
    ASSERT_TRUE(to) << text;
    EXPECT_EQ(Allowing(rules, *to) != nullptr, allowed) << text;
  }
  for (const char* text : {"example.com", "example.com:x", ":443", "a b:1",
                           "[::1]", "2130706433 :1"}) {
    EXPECT_FALSE(ParseDestination(text)) << text;
  }
}

// On 127.0.0.1: takes one client, answers what it was sent up to its end.
class FarServer {
 public:
  FarServer() : ear_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    (void)bind(ear_.Get(), reinterpret_cast<sockaddr*>(&address), size);
    (void)listen(ear_.Get(), 4);
    (void)getsockname(ear_.Get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      const UniqueFd peer(accept(ear_.Get(), nullptr, nullptr));
      std::string all;
      char buffer[4096];
      for (ssize_t n; (n = read(peer.Get(), buffer, sizeof buffer)) > 0;) {
        all.append(buffer, static_cast<size_t>(n));
      }
      all = "got:" + all;
      (void)send(peer.Get(), all.data(), all.size(), MSG_NOSIGNAL);
    });
  }
  ~FarServer() {
    shutdown(ear_.Get(), SHUT_RDWR);
    thread_.join();
  }
  FarServer(const FarServer&) = delete;
  FarServer& operator=(const FarServer&) = delete;
  [[nodiscard]] int Port() const { return port_; }

 private:
  UniqueFd ear_;
  int port_ = 0;
  std::thread thread_;
};

// What a client that sends `request` and ends is answered.
std::string Answer(const std::string& request,
                   const std::vector<std::string>& texts) {
  std::vector<EgressRule> rules;
  for (const auto& text : texts) {
    rules.push_back(ParseEgressRule(text).value());
  }
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd client(ends[0]);
  auto served = std::async(std::launch::async, [&] {
    return ServeEgress(UniqueFd(ends[1]), rules);
  });
  EXPECT_EQ(send(client.Get(), request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  shutdown(client.Get(), SHUT_WR);
  std::string all;
  char buffer[4096];
  for (ssize_t n; (n = read(client.Get(), buffer, sizeof buffer)) > 0;) {
    all.append(buffer, static_cast<size_t>(n));
  }
  served.get();
  return all;
}

TEST(EgressProxy, CarriesATunnel) {
  const FarServer server;
  const std::string to = fmt::format("127.0.0.1:{}", server.Port());
  EXPECT_EQ(Answer(fmt::format("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n"
                               "early bytes",
                               to),
                   {to}),
            "HTTP/1.1 200 Connection established\r\n\r\ngot:early bytes");
}

TEST(EgressProxy, AsksAServerAsItsClientWould) {
  const FarServer server;
  EXPECT_EQ(
      Answer(fmt::format("POST http://host.lima.internal:{0}/a?b HTTP/1.1\r\n"
                         "Host: host.lima.internal:{0}\r\n"
                         "Proxy-Authorization: x\r\n"
                         "Proxy-Connection: keep-alive\r\n"
                         "Content-Length: 4\r\n\r\nbody",
                         server.Port()),
             {"host.lima.internal:*"}),
      fmt::format("got:POST /a?b HTTP/1.1\r\n"
                  "Host: host.lima.internal:{}\r\n"
                  "Content-Length: 4\r\nConnection: close\r\n\r\nbody",
                  server.Port()));
}

TEST(EgressProxy, RefusesInWords) {
  EXPECT_THAT(
      Answer("CONNECT example.com:22 HTTP/1.1\r\n\r\n", {"example.com"}),
      testing::AllOf(
          StartsWith("HTTP/1.1 403 Forbidden\r\n"),
          HasSubstr("\r\n\r\nsbxfs: 'example.com:22' is not in egress "
                    "of config.yaml\n")));
  EXPECT_THAT(Answer("GET http://example.com:22/ HTTP/1.0\r\n\r\n", {}),
              StartsWith("HTTP/1.1 403 "));
  // A name is no way to this machine, whatever it resolves to.
  EXPECT_THAT(Answer("CONNECT localhost:22 HTTP/1.1\r\n\r\n", {"localhost:22"}),
              HasSubstr("sbxfs: cannot reach 'localhost:22': it is an address "
                        "of the host's own\n"));
  for (const std::string text :
       {"GET / HTTP/1.1\r\n\r\n", "CONNECT a HTTP/1.1\r\n\r\n", "hello\r\n\r\n",
        "GET https://a/ HTTP/1.1\r\n\r\n", "", "GET",
        "CONNECT a:b@c:443 HTTP/1.1\r\n\r\n"}) {
    EXPECT_THAT(Answer(text, {"a:*"}), StartsWith("HTTP/1.1 400 ")) << text;
  }
  EXPECT_THAT(Answer("GET http://a/" + std::string(100000, 'x'), {"a"}),
              StartsWith("HTTP/1.1 400 "));
}

}  // namespace
}  // namespace sbxfs
