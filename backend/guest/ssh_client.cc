#include "backend/guest/ssh_client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "backend/guest/ssh_handle.h"
#include "backend/util/error.h"
#include "backend/util/socket.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kMaxOutput = 1 << 20;

// Milliseconds until `deadline`, rounded up, so that a wait cannot spin.
int Left(Clock::time_point deadline) {
  const auto left = deadline - Clock::now();
  if (left <= left.zero()) return 0;
  return static_cast<int>(
      std::min<int64_t>(left / milliseconds(1) + 1, INT32_MAX));
}

// False when the deadline came first.
bool WaitFor(int fd, short events, int timeout) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  return poll(&entry, 1, timeout) > 0;
}

// A non-blocking connection to 127.0.0.1:`port`; errno in `error` otherwise.
UniqueFd Connect(int port, Clock::time_point deadline, int& error) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in address = Ipv4Address(kLoopback, port).value();
  if (fd.Valid() &&
      connect(fd.Get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof address) == 0) {
    return fd;
  }
  error = errno;
  if (!fd.Valid() || error != EINPROGRESS) return {};
  error = ETIMEDOUT;
  if (!WaitFor(fd.Get(), POLLOUT, Left(deadline))) return {};
  socklen_t size = sizeof error;
  if (getsockopt(fd.Get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 ||
      error != 0) {
    return {};
  }
  return fd;
}

// What the command left, or -1 where nothing was told of it.
int ExitStatus(ssh_channel channel) {
#if LIBSSH_VERSION_INT >= SSH_VERSION_INT(0, 11, 0)
  // The older call is deprecated there.
  uint32_t code = 0;
  char* signal = nullptr;
  const int told = ssh_channel_get_exit_state(channel, &code, &signal, nullptr);
  const bool killed = signal != nullptr;
  ssh_string_free_char(signal);
  return told == SSH_OK && !killed ? static_cast<int>(code) : -1;
#else
  return ssh_channel_get_exit_status(channel);
#endif
}

// One connection, used for one command. libssh's own timeouts are per call, so
// it is kept non-blocking and every wait is ours.
class Client {
 public:
  Client(const SshTarget& target, const std::string& command,
         milliseconds timeout, const std::atomic<bool>* given_up = nullptr)
      : target_(target),
        command_(command),
        timeout_(timeout),
        deadline_(Clock::now() + timeout),
        given_up_(given_up) {}

  void Open();
  void CheckHostKey() const;
  void LogIn();
  [[nodiscard]] SshResult Run(std::string_view input);
  [[nodiscard]] SshSessionPtr Release() {
    channel_.reset();
    return std::move(session_);
  }

 private:
  // Calls libssh until it is done; its last answer.
  template <typename F>
  int Finish(int again, F&& call) {
    int status;
    while ((status = call()) == again) Wait();
    return status;
  }
  void Wait();
  // Whether all of the command's output and its status are here, or will not
  // come.
  bool Ended();
  // Whether something was read from stdout or stderr.
  bool Drain(SshResult& result, bool is_stderr);

  [[noreturn]] void FailBroken(std::string_view what) const;
  [[noreturn]] void FailLate() const;

  const SshTarget& target_;
  const std::string& command_;
  const milliseconds timeout_;
  const Clock::time_point deadline_;
  const std::atomic<bool>* const given_up_;
  // The channel goes before its session.
  SshSessionPtr session_;
  SshChannelPtr channel_;
};

void Client::Wait() {
  const int left = Left(deadline_);
  if (left == 0) FailLate();
  if (given_up_ != nullptr && *given_up_) FailBroken("nobody waits for it");
  short events = POLLIN;
  if ((ssh_get_poll_flags(session_.get()) & SSH_WRITE_PENDING) != 0) {
    events |= POLLOUT;
  }
  // The limit is a net for bytes that libssh has read and not looked at.
  WaitFor(ssh_get_fd(session_.get()), events, std::min(left, 200));
}

void Client::FailLate() const {
  if (ssh_get_serverbanner(session_.get()) == nullptr) {
    FailBroken("no answer");
  }
  throw Error(ETIMEDOUT,
              fmt::format("Cannot finish '{}' in the guest: it took longer "
                          "than {} s",
                          command_, timeout_.count() / 1000.0));
}

void Client::FailBroken(std::string_view what) const {
  throw Error(EHOSTUNREACH,
              fmt::format("Cannot reach the guest at '127.0.0.1:{}': {}; see "
                          "console.log whether its sshd runs",
                          target_.port, what));
}

void Client::Open() {
  int error = 0;
  UniqueFd fd = Connect(target_.port, deadline_, error);
  if (!fd.Valid()) FailBroken(std::strerror(error));
  session_.reset(ssh_new());
  if (!session_) throw std::bad_alloc();
  const ssh_session session = session_.get();
  ssh_set_blocking(session, 0);
  const bool off = false;
  // Neither the user's nor the system's configuration has a say here.
  ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &off);
  ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
  ssh_options_set(session, SSH_OPTIONS_USER, target_.user.c_str());
  const std::string type =
      target_.host_key.substr(0, target_.host_key.find(' '));
  ssh_options_set(
      session, SSH_OPTIONS_HOSTKEYS,
      type == "ssh-rsa" ? "rsa-sha2-512,rsa-sha2-256" : type.c_str());
  const socket_t owned = fd.Release();
  ssh_options_set(session, SSH_OPTIONS_FD, &owned);
  if (Finish(SSH_AGAIN, [&] { return ssh_connect(session); }) == SSH_OK) return;
  const std::string_view reason = ssh_get_error(session);
  if (reason.find("host key") != std::string_view::npos) {
    throw Error(EKEYREJECTED,
                fmt::format("Cannot trust the guest at '127.0.0.1:{}': it has "
                            "no {} host key; another machine answers there, "
                            "or the guest lost the key made for it",
                            target_.port, type));
  }
  FailBroken(reason);
}

void Client::CheckHostKey() const {
  ssh_key raw = nullptr;
  if (ssh_get_server_publickey(session_.get(), &raw) != SSH_OK) {
    FailBroken(ssh_get_error(session_.get()));
  }
  const SshKeyPtr theirs(raw);
  const SshKeyPtr expected = ImportPublicKey(target_.host_key);
  if (expected &&
      ssh_key_cmp(theirs.get(), expected.get(), SSH_KEY_CMP_PUBLIC) == 0) {
    return;
  }
  throw Error(EKEYREJECTED,
              fmt::format("Cannot trust the guest at '127.0.0.1:{}': its host "
                          "key is not the one made for it; another machine "
                          "answers there, or the guest has made a new key",
                          target_.port));
}

void Client::LogIn() {
  const SshKeyPtr key = ImportPrivateKey(target_.identity.private_key);
  const int status = key ? Finish(SSH_AUTH_AGAIN,
                                  [&] {
                                    return ssh_userauth_publickey(
                                        session_.get(), nullptr, key.get());
                                  })
                         : SSH_AUTH_DENIED;
  if (status == SSH_AUTH_SUCCESS) return;
  if (ssh_is_connected(session_.get()) == 0) FailBroken("it hung up");
  throw Error(EACCES,
              fmt::format("Cannot log in to the guest as '{}': it refuses the "
                          "mount's key; is that key still in the user's "
                          "~/.ssh/authorized_keys there",
                          target_.user));
}

bool Client::Ended() {
  // Asking for the status also reads packets; polling a channel at its end of
  // file would not, and the status comes behind that.
  const int status = ExitStatus(channel_.get());
  return ssh_channel_is_closed(channel_.get()) != 0 ||
         (status >= 0 && ssh_channel_is_eof(channel_.get()) != 0);
}

bool Client::Drain(SshResult& result, bool is_stderr) {
  std::array<char, 16384> buffer;
  bool any = false;
  int got;
  while ((got = ssh_channel_read_nonblocking(channel_.get(), buffer.data(),
                                             buffer.size(), is_stderr)) > 0) {
    any = true;
    if (is_stderr) continue;
    const size_t room = kMaxOutput - result.output.size();
    result.output.append(buffer.data(), std::min<size_t>(got, room));
    if (Left(deadline_) == 0) FailLate();
  }
  return any;
}

SshResult Client::Run(std::string_view input) {
  channel_.reset(ssh_channel_new(session_.get()));
  const ssh_channel channel = channel_.get();
  if (channel == nullptr) throw std::bad_alloc();
  if (Finish(SSH_AGAIN, [&] { return ssh_channel_open_session(channel); }) !=
          SSH_OK ||
      Finish(SSH_AGAIN, [&] {
        return ssh_channel_request_exec(channel, command_.c_str());
      }) != SSH_OK) {
    FailBroken(ssh_get_error(session_.get()));
  }
  SshResult result;
  bool sent = false;
  while (!Ended()) {
    bool busy = false;
    const size_t room = ssh_channel_window_size(channel);
    if (!input.empty() && room > 0) {
      const int put = ssh_channel_write(
          channel, input.data(),
          static_cast<uint32_t>(std::min({input.size(), room, size_t{32768}})));
      // A command may end without having read all of it.
      input.remove_prefix(put < 0 ? input.size() : static_cast<size_t>(put));
      busy = put > 0;
    }
    if (input.empty() && !sent) {
      ssh_channel_send_eof(channel);
      sent = true;
    }
    busy |= Drain(result, false);
    busy |= Drain(result, true);
    if (!busy && !Ended()) Wait();
  }
  Drain(result, false);
  const int status = ExitStatus(channel);
  // A channel without status is one that was killed, or whose sshd was.
  if (status < 0 && ssh_is_connected(session_.get()) == 0) {
    FailBroken("it hung up");
  }
  result.status = status < 0 ? 255 : status;
  return result;
}

}  // namespace

bool SshAnswers(int port, milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  int error = 0;
  const UniqueFd fd = Connect(port, deadline, error);
  if (!fd.Valid()) return false;
  constexpr std::string_view kBanner = "SSH-";
  std::string got;
  while (got.size() < kBanner.size()) {
    char buffer[64];
    const ssize_t size = recv(fd.Get(), buffer, sizeof buffer, 0);
    if (size > 0) {
      got.append(buffer, size);
    } else if (size == 0 || (errno != EAGAIN && errno != EINTR) ||
               !WaitFor(fd.Get(), POLLIN, Left(deadline))) {
      return false;
    }
  }
  return got.starts_with(kBanner);
}

SshResult SshRun(const SshTarget& target, const std::string& command,
                 const std::string& input, milliseconds timeout) {
  Client client(target, command, timeout);
  client.Open();
  client.CheckHostKey();
  client.LogIn();
  return client.Run(input);
}

SshLogin SshLogIn(const SshTarget& target, const std::string& first,
                  milliseconds timeout, const std::atomic<bool>& given_up) {
  Client client(target, first, timeout, &given_up);
  client.Open();
  client.CheckHostKey();
  client.LogIn();
  SshResult said = client.Run({});
  return {client.Release(), std::move(said)};
}

}  // namespace sbxfs
