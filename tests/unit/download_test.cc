#include "backend/image/download.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "backend/util/error.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Steady = std::chrono::steady_clock;

constexpr char kBody[] = "the image";

// An HTTP server that answers by path; one request a connection.
class Server {
 public:
  Server() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_.Get(), generic, size), 0);
    EXPECT_EQ(listen(fd_.Get(), 8), 0);
    getsockname(fd_.Get(), generic, &size);
    base_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] {
      while (true) {
        const UniqueFd peer(accept(fd_.Get(), nullptr, nullptr));
        if (!peer.Valid()) return;
        std::string request;
        char buffer[1024];
        ssize_t got;
        while (request.find("\r\n\r\n") == request.npos &&
               (got = recv(peer.Get(), buffer, sizeof buffer, 0)) > 0) {
          request.append(buffer, got);
        }
        Answer(peer.Get(), request);
      }
    });
  }
  ~Server() {
    stop_ = true;
    shutdown(fd_.Get(), SHUT_RDWR);
    thread_.join();
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  [[nodiscard]] std::string Url(const std::string& path) const {
    return base_ + path;
  }

 private:
  static bool Say(int fd, const std::string& text) {
    return send(fd, text.data(), text.size(), MSG_NOSIGNAL) > 0;
  }
  void Answer(int fd, const std::string& request) const {
    const std::string path =
        request.substr(4, request.find(' ', 4) - 4);  // behind "GET "
    const auto found = [&](const std::string& where) {
      Say(fd, "HTTP/1.1 302 Found\r\nLocation: " + where +
                  "\r\nContent-Length: 5\r\n\r\nmoved");
    };
    if (path == "/ok") {
      Say(fd,
          "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + std::string(kBody));
    } else if (path == "/nolength") {
      Say(fd, "HTTP/1.0 200 OK\r\n\r\n" + std::string(kBody));
    } else if (path == "/empty") {
      Say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    } else if (path == "/moved") {
      found("/ok");
    } else if (path == "/loop") {
      found("/loop");
    } else if (path == "/outside") {
      found("http://example.org/ok");
    } else if (path == "/file") {
      found("file:///etc/passwd");
    } else if (path == "/cut") {
      Say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" +
                  std::string(kBody));
    } else if (path == "/slow") {
      Say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
      while (!stop_ && Say(fd, "x")) std::this_thread::sleep_for(50ms);
    } else if (path == "/silent") {
      while (!stop_) std::this_thread::sleep_for(20ms);
    } else {
      const std::string status = path.substr(1);
      Say(fd, "HTTP/1.1 " + status + " X\r\nContent-Length: 6\r\n\r\nsorry\n");
    }
  }

  UniqueFd fd_;
  std::string base_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

std::string Fetch(const std::string& url) {
  std::string out;
  Download(
      url, [&](std::string_view bytes) { out += bytes; },
      [](uint64_t, uint64_t) { return true; });
  return out;
}

std::pair<int, std::string> Failure(const std::string& url) {
  try {
    (void)Fetch(url);
    return {0, ""};
  } catch (const Error& error) {
    EXPECT_THAT(error.Sentence(), testing::StartsWith("Cannot fetch '"));
    return {error.Errno(), error.Sentence()};
  }
}

TEST(Download, BytesAndProgress) {
  const Server server;
  EXPECT_EQ(Fetch(server.Url("/ok")), kBody);
  EXPECT_EQ(Fetch(server.Url("/nolength")), kBody);
  EXPECT_EQ(Fetch(server.Url("/empty")), "");
  std::string out;
  std::pair<uint64_t, uint64_t> last;
  Download(
      server.Url("/moved"), [&](std::string_view bytes) { out += bytes; },
      [&](uint64_t now, uint64_t total) {
        last = {now, total};
        return true;
      });
  EXPECT_EQ(out, kBody);
  EXPECT_EQ(last, std::pair(uint64_t{9}, uint64_t{9}));
}

TEST(Download, Redirects) {
  const Server server;
  auto [error, sentence] = Failure(server.Url("/outside"));
  EXPECT_EQ(error, EIO);
  EXPECT_THAT(sentence, AllOf(HasSubstr(server.Url("/outside")),
                              HasSubstr("'http://example.org/ok'")));
  EXPECT_EQ(Failure(server.Url("/file")).first, EIO);
  std::tie(error, sentence) = Failure(server.Url("/loop"));
  EXPECT_EQ(error, EIO);
  EXPECT_THAT(sentence, HasSubstr("more than 10 redirects"));
}

TEST(Download, RefusesOtherAddresses) {
  for (const char* url :
       {"http://example.org/x", "file:///etc/passwd", "ftp://127.0.0.1/x",
        "http://127.0.0.1.example.org/x", "http://localhost@example.org/x",
        "/etc/passwd", "debian-12", ""}) {
    const auto [error, sentence] = Failure(url);
    EXPECT_EQ(error, EINVAL) << url << " " << sentence;
  }
  EXPECT_THAT(
      Failure("http://ann:secret@example.org/x").second,
      AllOf(HasSubstr("'http://example.org/x'"), Not(HasSubstr("secret"))));
}

TEST(Download, StatusesBecomeErrnos) {
  const Server server;
  EXPECT_EQ(Failure(server.Url("/404")).first, ENOENT);
  EXPECT_EQ(Failure(server.Url("/410")).first, ENOENT);
  EXPECT_EQ(Failure(server.Url("/403")).first, EACCES);
  EXPECT_EQ(Failure(server.Url("/503")).first, EIO);
  EXPECT_EQ(Failure(server.Url("/304")).first, EIO);
  EXPECT_THAT(Failure(server.Url("/404")).second,
              AllOf(HasSubstr("HTTP 404"), HasSubstr(server.Url("/404"))));
}

TEST(Download, BrokenTransfers) {
  std::string gone;
  {
    const Server server;
    const auto [error, sentence] = Failure(server.Url("/cut"));
    EXPECT_EQ(error, EIO);
    EXPECT_THAT(sentence, HasSubstr("broke after 9 bytes"));
    gone = server.Url("/ok");
  }
  EXPECT_EQ(Failure(gone).first, EHOSTUNREACH);
}

TEST(Download, CancelEndsItSoon) {
  const Server server;
  for (const char* path : {"/slow", "/silent"}) {
    const auto begin = Steady::now();
    try {
      Download(
          server.Url(path), [](std::string_view) {},
          [&](uint64_t, uint64_t) { return Steady::now() - begin < 300ms; });
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), ECANCELED);
    }
    EXPECT_LT(Steady::now() - begin, 20s) << path;
  }
}

TEST(Download, WhatTheSinkThrowsComesOut) {
  const Server server;
  EXPECT_THROW(
      Download(
          server.Url("/ok"),
          [](std::string_view) { throw std::out_of_range("full"); }, nullptr),
      std::out_of_range);
  EXPECT_THROW(
      Download(
          server.Url("/ok"), [](std::string_view) {},
          [](uint64_t, uint64_t) -> bool { throw std::out_of_range("tired"); }),
      std::out_of_range);
}

constexpr char kAbc256[] =
    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Digest, AcceptsTheRightOne) {
  for (const std::string& expected :
       {std::string(kAbc256),
        std::string("sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB41"
                    "0FF61F20015AD"),
        std::string("sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8"
                    "b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"),
        std::string("sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9"
                    "eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce"
                    "80e2a9ac94fa54ca49f")}) {
    Digest digest(expected);
    digest.Add("a");
    digest.Add("");
    digest.Add("bc");
    EXPECT_NO_THROW(digest.Check("x")) << expected;
  }
}

TEST(Digest, RefusesWithBothValues) {
  Digest digest(kAbc256);
  digest.Add("abd");
  try {
    digest.Check("debian");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EBADMSG);
    EXPECT_THAT(
        error.Sentence(),
        AllOf(
            HasSubstr("'debian'"), HasSubstr(kAbc256),
            HasSubstr("sha256:a52d159f262b2c6ddb724a61840befc36eb30c88877a4030"
                      "b65cbe86298449c9")));
  }
}

TEST(Digest, OtherForms) {
  for (const char* bad :
       {"", "abc", "sha256", "sha256:", "sha256:xyz", "md5:1234",
        "sha256:"
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
        "sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a"
        "d"}) {
    try {
      const Digest digest(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EINVAL) << bad;
    }
  }
}

}  // namespace
}  // namespace sbxfs
