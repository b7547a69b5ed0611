#include "backend/guest/sftp_client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <sstream>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

using std::chrono::milliseconds;
using WholeSeconds = std::chrono::seconds;
using WallClock = std::chrono::system_clock;

// What OpenSSH's takes and gives at most, and some.
constexpr size_t kMostPacket = 300 * 1024;
// What is taken at a time: a guest may send without an end.
constexpr int kMostPieces = 16;
// For one reply.
constexpr milliseconds kOneAnswerWithin{10000};
constexpr uint32_t kSftpVersion = 3;

[[noreturn]] void FailNoSftp() {
  throw Error(EPROTO,
              "Cannot read what the guest's sftp server says: it is no "
              "SFTP");
}

uint32_t SecondsOf(WallClock::time_point time) {
  const auto since =
      std::chrono::floor<WholeSeconds>(time.time_since_epoch()).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(since, 0, UINT32_MAX));
}

}  // namespace

SftpOut& SftpOut::Byte(uint8_t value) {
  bytes_ += static_cast<char>(value);
  return *this;
}
SftpOut& SftpOut::U32(uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes_ += static_cast<char>(value >> shift);
  }
  return *this;
}
SftpOut& SftpOut::U64(uint64_t value) {
  return U32(static_cast<uint32_t>(value >> 32))
      .U32(static_cast<uint32_t>(value));
}
SftpOut& SftpOut::Text(std::string_view text) {
  U32(static_cast<uint32_t>(text.size()));
  bytes_ += text;
  return *this;
}
SftpOut& SftpOut::Attributes(const FileChanges& changes) {
  uint32_t which = 0;
  if (changes.size) which |= sftp::kHasSize;
  if (changes.uid && changes.gid) which |= sftp::kHasOwner;
  if (changes.mode) which |= sftp::kHasMode;
  if (changes.read && changes.modified) which |= sftp::kHasTimes;
  U32(which);
  if (changes.size) U64(*changes.size);
  if (changes.uid && changes.gid) U32(*changes.uid).U32(*changes.gid);
  if (changes.mode) U32(*changes.mode);
  if (changes.read && changes.modified) {
    U32(SecondsOf(*changes.read)).U32(SecondsOf(*changes.modified));
  }
  return *this;
}

std::string_view SftpIn::Take(size_t size) {
  if (rest_.size() < size) FailNoSftp();
  const auto taken = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return taken;
}
uint8_t SftpIn::Byte() { return static_cast<uint8_t>(Take(1)[0]); }
uint32_t SftpIn::U32() {
  uint32_t value = 0;
  for (const char c : Take(4)) value = value << 8 | static_cast<uint8_t>(c);
  return value;
}
uint64_t SftpIn::U64() {
  const uint64_t high = U32();
  return high << 32 | U32();
}
std::string_view SftpIn::Text() { return Take(U32()); }

FileFacts SftpIn::Attributes() {
  FileFacts facts;
  const uint32_t which = U32();
  if ((which & sftp::kHasSize) != 0) facts.size = U64();
  if ((which & sftp::kHasOwner) != 0) {
    facts.uid = U32();
    facts.gid = U32();
  }
  if ((which & sftp::kHasMode) != 0) facts.mode = U32();
  if ((which & sftp::kHasTimes) != 0) {
    facts.read = WallClock::time_point(WholeSeconds(U32()));
    facts.modified = WallClock::time_point(WholeSeconds(U32()));
  }
  if ((which & sftp::kHasExtended) != 0) {
    for (uint32_t left = U32(); left > 0; --left) {
      Text();
      Text();
    }
  }
  facts.blocks = facts.size / 512 + (facts.size % 512 != 0 ? 1 : 0);
  return facts;
}

uint32_t SftpClient::Answer::Code() const {
  if (type != kStatus) FailNoSftp();
  return SftpIn(body).U32();
}

SftpClient::SftpClient(const SshTarget& target, milliseconds timeout,
                       const std::atomic<bool>& given_up)
    : target_(target), limit_(timeout) {
  const auto deadline = Clock::now() + timeout;
  SshLogin login = SshLogIn(target, "id -u; id -G", timeout, given_up);
  session_ = std::move(login.session);
  socket_ = UniqueFd(fcntl(ssh_get_fd(session_.get()), F_DUPFD_CLOEXEC, 0));
  std::istringstream words(login.said.output);
  bool known = static_cast<bool>(words >> uid_);
  for (gid_t gid; words >> gid;) gids_.insert(gid);
  Begin(deadline);
  limit_ = kOneAnswerWithin;
  if (known) return;
  // It has no id, or a shell of its own kind: its home is the user's.
  const Answer home = Call(kLstat, SftpOut().Text("."));
  if (home.type != kAttrs) FailNoSftp();
  const FileFacts facts = SftpIn(home.body).Attributes();
  uid_ = facts.uid;
  gids_ = {facts.gid};
}

SftpClient::~SftpClient() = default;

bool SftpClient::IsOwn(uid_t uid) const { return uid_ == 0 || uid == uid_; }
bool SftpClient::IsOwnGroup(gid_t gid) const {
  return uid_ == 0 || gids_.contains(gid);
}

template <typename F>
void SftpClient::Finish(Clock::time_point deadline, F&& call) {
  int status;
  while ((status = call()) == SSH_AGAIN) Wait(deadline);
  if (status == SSH_OK) return;
  if (ssh_is_connected(session_.get()) == 0) FailLost("it hung up");
  throw Error(EOPNOTSUPP,
              fmt::format("Cannot reach the files of the guest at "
                          "'127.0.0.1:{}': its sshd has no sftp server; "
                          "install openssh-sftp-server there",
                          target_.port));
}

void SftpClient::Begin(Clock::time_point deadline) {
  channel_.reset(ssh_channel_new(session_.get()));
  if (!channel_) throw std::bad_alloc();
  const ssh_channel channel = channel_.get();
  Finish(deadline, [&] { return ssh_channel_open_session(channel); });
  Finish(deadline,
         [&] { return ssh_channel_request_subsystem(channel, "sftp"); });
  const SftpOut hello = std::move(SftpOut().Byte(kInit).U32(kSftpVersion));
  out_ = SftpOut().Text(hello.Bytes()).Bytes();
  // What comes back has no number: it is taken apart as it stands.
  while (in_.size() < 5 || in_.size() < 4 + size_t{SftpIn(in_).U32()}) {
    if (in_.size() >= 4 && SftpIn(in_).U32() > kMostPacket) FailNoSftp();
    if (!Pump() || Clock::now() > deadline) Wait(deadline);
  }
  SftpIn in(std::string_view(in_).substr(0, 4 + SftpIn(in_).U32()));
  in.U32();
  if (in.Byte() != kVersion || in.U32() < kSftpVersion) FailNoSftp();
  while (!in.Empty()) {
    extensions_.emplace(in.Text());
    in.Text();
  }
  in_.erase(0, 4 + SftpIn(in_).U32());
}

void SftpClient::FailLost(std::string_view why) {
  Abort();
  throw Error(EHOSTUNREACH,
              fmt::format("Cannot reach the files of the guest at "
                          "'127.0.0.1:{}': {}; see console.log whether it "
                          "runs",
                          target_.port, why));
}

void SftpClient::Wait(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
  if (lost_) FailLost("the connection was closed");
  if (left.count() <= 0) {
    Abort();
    throw Error(ETIMEDOUT,
                fmt::format("Cannot reach the files of the guest at "
                            "'127.0.0.1:{}': it did not answer in time; try "
                            "again, and see console.log",
                            target_.port));
  }
  pollfd entry{.fd = socket_.Get(), .events = POLLIN, .revents = 0};
  if ((ssh_get_poll_flags(session_.get()) & SSH_WRITE_PENDING) != 0) {
    entry.events |= POLLOUT;
  }
  // The limit is a net for bytes that libssh has read and not looked at.
  poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 200)));
}

bool SftpClient::Receive() {
  std::array<char, 65536> buffer;
  const auto take = [&](int is_stderr) {
    return ssh_channel_read_nonblocking(channel_.get(), buffer.data(),
                                        buffer.size(), is_stderr);
  };
  bool any = false;
  for (int i = 0, got; i < kMostPieces && (got = take(0)) > 0; ++i) {
    in_.append(buffer.data(), got);
    any = true;
  }
  // What it complains of would fill the window, and nobody reads it.
  for (int i = 0; i < kMostPieces && take(1) > 0; ++i) {
  }
  return any;
}

bool SftpClient::Pump() {
  bool any = Receive();
  while (!out_.empty()) {
    const size_t room = ssh_channel_window_size(channel_.get());
    if (room == 0) break;
    const int put = ssh_channel_write(
        channel_.get(), out_.data(),
        static_cast<uint32_t>(std::min({out_.size(), room, size_t{32768}})));
    if (put <= 0) break;
    out_.erase(0, static_cast<size_t>(put));
    any = true;
  }
  if (!any && (lost_ || ssh_is_connected(session_.get()) == 0 ||
               ssh_channel_is_closed(channel_.get()) != 0 ||
               ssh_channel_is_eof(channel_.get()) != 0)) {
    FailLost("it hung up");
  }
  return any;
}

void SftpClient::TakePackets() {
  size_t at = 0;
  while (in_.size() - at >= 4) {
    SftpIn in(std::string_view(in_).substr(at));
    const size_t size = in.U32();
    if (size < 5 || size > kMostPacket) {
      Abort();
      FailNoSftp();
    }
    if (in_.size() - at - 4 < size) break;
    Answer answer;
    answer.type = in.Byte();
    const uint32_t number = in.U32();
    if (expected_.contains(number)) {
      answer.body = in_.substr(at + 9, size - 5);
      answers_[number] = std::move(answer);
    }
    at += 4 + size;
  }
  in_.erase(0, at);
}

uint32_t SftpClient::Send(Type type, const SftpOut& fields) {
  const uint32_t number = ++last_;
  expected_.insert(number);
  SftpOut head;
  head.U32(static_cast<uint32_t>(fields.Bytes().size() + 5))
      .Byte(type)
      .U32(number);
  out_ += head.Bytes() + fields.Bytes();
  const auto deadline = Clock::now() + limit_;
  while (!out_.empty()) {
    if (!Pump() || Clock::now() > deadline) Wait(deadline);
    TakePackets();
  }
  return number;
}

SftpClient::Answer SftpClient::Await(uint32_t number) {
  const auto deadline = Clock::now() + limit_;
  while (!answers_.contains(number)) {
    const bool any = Pump();
    TakePackets();
    if (answers_.contains(number)) break;
    // One that says much, and never that, is not waited for either.
    if (!any || Clock::now() > deadline) Wait(deadline);
  }
  expected_.erase(number);
  return std::move(answers_.extract(number).mapped());
}

void SftpClient::Drop(uint32_t number) {
  answers_.erase(number);
  expected_.erase(number);
}

bool SftpClient::Lives() {
  if (lost_) return false;
  try {
    (void)Pump();
    TakePackets();
    return true;
  } catch (const Error&) {
    return false;
  }
}

void SftpClient::Abort() {
  lost_ = true;
  shutdown(socket_.Get(), SHUT_RDWR);
}

}  // namespace sbxfs
