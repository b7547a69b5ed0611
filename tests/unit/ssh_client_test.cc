#include "backend/guest/ssh_client.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <thread>

#include "backend/util/error.h"
#include "backend/util/unique_fd.h"
#include "tests/support/own_sshd.h"

namespace sbxfs {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::HasSubstr;
using Steady = std::chrono::steady_clock;

// A listener on 127.0.0.1 that treats each connection as told.
class Listener {
 public:
  explicit Listener(std::function<void(int)> serve = nullptr)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_.Get(), generic, size), 0);
    EXPECT_EQ(listen(fd_.Get(), 8), 0);
    getsockname(fd_.Get(), generic, &size);
    port_ = ntohs(address.sin_port);
    if (!serve) return;
    thread_ = std::thread([this, serve = std::move(serve)] {
      while (true) {
        const UniqueFd peer(accept(fd_.Get(), nullptr, nullptr));
        if (!peer.Valid()) return;
        serve(peer.Get());
      }
    });
  }
  ~Listener() {
    shutdown(fd_.Get(), SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  [[nodiscard]] int Port() const { return port_; }

 private:
  UniqueFd fd_;
  int port_ = 0;
  std::thread thread_;
};

void Say(int fd, std::string_view text) {
  (void)!send(fd, text.data(), text.size(), MSG_NOSIGNAL);
}

using SshClient = OwnSshd;

// The errno of a run that fails, and its sentence.
std::pair<int, std::string> Failure(const SshTarget& target,
                                    const std::string& command,
                                    std::chrono::milliseconds timeout) {
  try {
    (void)SshRun(target, command, "", timeout);
    return {0, ""};
  } catch (const Error& error) {
    return {error.Errno(), error.Sentence()};
  }
}

size_t OpenDescriptors() {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++count;
  }
  return count;
}

TEST_F(SshClient, RunsACommand) {
  const SshResult result =
      SshRun(Target(), "cat; echo err >&2; exit 7", "in\n", 20s);
  EXPECT_EQ(result.status, 7);
  EXPECT_EQ(result.output, "in\n");
}

TEST_F(SshClient, ASignalIs255) {
  EXPECT_EQ(SshRun(Target(), "kill -9 $$", "", 20s).status, 255);
}

TEST_F(SshClient, BothDirectionsAtOnce) {
  std::string input(3 << 20, 'x');
  const SshResult echo = SshRun(Target(), "cat", input, 60s);
  EXPECT_EQ(echo.status, 0);
  EXPECT_EQ(echo.output, input.substr(0, 1 << 20));
  const SshResult errors =
      SshRun(Target(), "head -c 5000000 /dev/zero >&2; wc -c", input, 60s);
  EXPECT_EQ(errors.output, "3145728\n");
  // A command that does not read what it is given.
  EXPECT_EQ(SshRun(Target(), "exit 3", input, 60s).status, 3);
}

TEST_F(SshClient, RefusesAnotherHostKey) {
  SshTarget target = Target();
  target.host_key = MakeKeyPair().public_key;
  auto [error, sentence] = Failure(target, "true", 20s);
  EXPECT_EQ(error, EKEYREJECTED);
  EXPECT_THAT(sentence, HasSubstr("its host key is not the one made for it"));

  target.host_key =
      "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAAB"
      "BBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U"
      "2w0WZ2YB/++Tpockg=";
  std::tie(error, sentence) = Failure(target, "true", 20s);
  EXPECT_EQ(error, EKEYREJECTED);
  EXPECT_THAT(sentence, HasSubstr("no ecdsa-sha2-nistp256 host key"));

  target.host_key = "";
  EXPECT_EQ(Failure(target, "true", 20s).first, EKEYREJECTED);
}

TEST_F(SshClient, IsRefusedWithAnotherKey) {
  SshTarget target = Target();
  target.identity = MakeKeyPair();
  auto [error, sentence] = Failure(target, "true", 20s);
  EXPECT_EQ(error, EACCES);
  EXPECT_THAT(sentence, HasSubstr("'" + MyName() + "'"));
  target.identity.private_key = "none";
  EXPECT_EQ(Failure(target, "true", 20s).first, EACCES);
}

TEST_F(SshClient, TheDeadlineIsOverall) {
  const auto begin = Steady::now();
  for (const char* command :
       {"sleep 60", "while :; do echo x; sleep 0.1; done", "yes"}) {
    const auto [error, sentence] = Failure(Target(), command, 1500ms);
    EXPECT_EQ(error, ETIMEDOUT) << command;
    EXPECT_THAT(sentence, HasSubstr("longer than 1.5 s"));
  }
  EXPECT_LT(Steady::now() - begin, 40s);
}

TEST_F(SshClient, KeepsNoDescriptor) {
  SshTarget stranger = Target();
  stranger.host_key = MakeKeyPair().public_key;
  SshTarget refused = Target();
  refused.identity = MakeKeyPair();
  SshTarget none = Target();
  { none.port = Listener().Port(); }
  const size_t before = OpenDescriptors();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(SshRun(Target(), "true", "", 20s).status, 0);
    EXPECT_EQ(Failure(stranger, "true", 20s).first, EKEYREJECTED);
    EXPECT_EQ(Failure(refused, "true", 20s).first, EACCES);
    EXPECT_EQ(Failure(none, "true", 20s).first, EHOSTUNREACH);
    EXPECT_EQ(Failure(Target(), "sleep 9", 500ms).first, ETIMEDOUT);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(SshClient, ALostConnection) {
  const auto [error, sentence] =
      Failure(Target(), "kill -9 $PPID; sleep 60", 20s);
  EXPECT_EQ(error, EHOSTUNREACH) << sentence;
}

TEST(SshAnswers, LooksAtTheBannerOnly) {
  EXPECT_FALSE(SshAnswers(Listener().Port(), 1s));  // closed by now
  const Listener silent;
  const auto begin = Steady::now();
  EXPECT_FALSE(SshAnswers(silent.Port(), 300ms));
  EXPECT_GE(Steady::now() - begin, 300ms);
  EXPECT_LT(Steady::now() - begin, 10s);
  EXPECT_FALSE(SshAnswers(Listener([](int) {}).Port(), 5s));
  EXPECT_FALSE(SshAnswers(
      Listener([](int fd) { Say(fd, "220 mail.example\r\n"); }).Port(), 5s));
  EXPECT_TRUE(SshAnswers(Listener([](int fd) {
                           Say(fd, "SS");
                           std::this_thread::sleep_for(100ms);
                           Say(fd, "H-2.0-x\r\n");
                         }).Port(),
                         5s));
}

TEST(SshRun, WhatIsNoSshServer) {
  const KeyPair key = MakeKeyPair();
  SshTarget target{0, "me", key.public_key, key};
  const auto failure = [&](const Listener& listener) {
    target.port = listener.Port();
    return Failure(target, "true", 700ms).first;
  };
  const auto begin = Steady::now();
  EXPECT_EQ(failure(Listener()), EHOSTUNREACH);
  EXPECT_EQ(failure(Listener([](int) {})), EHOSTUNREACH);
  EXPECT_EQ(failure(Listener([](int fd) { Say(fd, "hello\r\n"); })),
            EHOSTUNREACH);
  // Bytes that come one by one must not stretch the deadline. The eighth makes
  // a packet, and that one is no ssh.
  EXPECT_EQ(failure(Listener([](int fd) {
              Say(fd, "SSH-2.0-x\r\n");
              for (int i = 0; i < 7; ++i) {
                Say(fd, std::string(1, '\0'));
                std::this_thread::sleep_for(250ms);
              }
            })),
            ETIMEDOUT);
  EXPECT_LT(Steady::now() - begin, 20s);
}

}  // namespace
}  // namespace sbxfs
