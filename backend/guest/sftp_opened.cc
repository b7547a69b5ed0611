#include "backend/guest/sftp_opened.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sbxfs {
namespace {

// A request's bytes: all servers take so many, and OpenSSH's more.
constexpr size_t kSftpPiece = 64 * 1024;
// What is asked for ahead of a reader that reads on, and for how long it is
// taken for true.
constexpr size_t kMostAhead = 8;
constexpr std::chrono::milliseconds kAheadLasts{500};

}  // namespace

uint32_t SftpFlags(int flags) {
  const int access = flags & O_ACCMODE;
  uint32_t wanted = 0;
  if (access != O_WRONLY) wanted |= sftp::kFlagRead;
  if (access != O_RDONLY) wanted |= sftp::kFlagWrite;
  if ((flags & O_APPEND) != 0 && access != O_RDONLY)
    wanted |= sftp::kFlagAppend;
  if ((flags & O_CREAT) != 0) wanted |= sftp::kFlagCreate;
  if ((flags & O_TRUNC) != 0) wanted |= sftp::kFlagTruncate | sftp::kFlagWrite;
  if ((flags & O_EXCL) != 0 && (flags & O_CREAT) != 0)
    wanted |= sftp::kFlagExclusive;
  return wanted;
}

SftpOpened::SftpOpened(std::shared_ptr<SftpFiles> files, std::string path,
                       int flags, ClientPtr client, std::string handle)
    : files_(std::move(files)),
      path_(std::move(path)),
      flags_(flags & ~(O_CREAT | O_EXCL | O_TRUNC)),
      client_(std::move(client)),
      handle_(std::move(handle)) {
  ++files_->opened_;
}

SftpOpened::~SftpOpened() {
  --files_->opened_;
  try {
    MutexLock lock(files_->mutex_);
    DropAhead();
    if (!client_->Lives()) return;  // the guest closes it with the connection
    client_->Drop(client_->Send(SftpClient::kClose, SftpOut().Text(handle_)));
  } catch (const std::exception&) {
    // The same.
  }
}

// Opens it again if that is another connection than it was opened through.
void SftpOpened::Adopt(const ClientPtr& client) {
  if (client == client_) return;
  ahead_.clear();
  rest_.clear();
  const auto answer =
      client->Call(SftpClient::kOpen, SftpOut()
                                          .Text(SftpFiles::InGuest(path_))
                                          .U32(SftpFlags(flags_))
                                          .Attributes({}));
  if (answer.type != SftpClient::kHandle) {
    SftpFiles::Check(answer, "open", path_, EIO);
  }
  handle_ = SftpIn(answer.body).Text();
  client_ = client;
}

std::string SftpOpened::Read(uint64_t offset, size_t size) {
  return files_->With(true, [&](const ClientPtr& client) {
    Adopt(client);
    return ReadNow(offset, size);
  });
}

void SftpOpened::Write(uint64_t offset, const std::string& bytes) {
  // What goes to the end would go there twice.
  const bool again = (flags_ & O_APPEND) == 0;
  files_->With(again, [&](const ClientPtr& client) {
    Adopt(client);
    ++files_->writes_;
    std::deque<uint32_t> sent;
    for (size_t at = 0; at < bytes.size(); at += kSftpPiece) {
      const auto piece = std::string_view(bytes).substr(at, kSftpPiece);
      sent.push_back(
          client->Send(SftpClient::kWrite,
                       SftpOut().Text(handle_).U64(offset + at).Text(piece)));
    }
    std::optional<SftpClient::Answer> failed;
    for (const uint32_t number : sent) {
      const auto answer = client->Await(number);
      if (answer.Code() != SftpClient::kOk && !failed) failed = answer;
    }
    if (failed) SftpFiles::Check(*failed, "write", path_, WhyNotWritten());
  });
}

void SftpOpened::Sync() {
  files_->With(true, [&](const ClientPtr& client) {
    constexpr char kFsync[] = "fsync@openssh.com";
    if (!client->Has(kFsync)) return;
    Adopt(client);
    SftpFiles::Check(client->Call(SftpClient::kExtended,
                                  SftpOut().Text(kFsync).Text(handle_)),
                     "store", path_, EIO);
  });
}

FileFacts SftpOpened::Look() {
  return files_->With(true, [&](const ClientPtr& client) {
    Adopt(client);
    return SftpFiles::Facts(*client, SftpClient::kFstat, handle_, path_);
  });
}

void SftpOpened::Resize(uint64_t size) {
  files_->With(true, [&](const ClientPtr& client) {
    Adopt(client);
    ++files_->writes_;
    FileChanges changes;
    changes.size = size;
    SftpFiles::Check(client->Call(SftpClient::kFsetstat,
                                  SftpOut().Text(handle_).Attributes(changes)),
                     "cut", path_, EIO);
  });
}

void SftpOpened::DropAhead() {
  for (const Ahead& one : ahead_) client_->Drop(one.number);
  ahead_.clear();
  rest_.clear();
}

// Whether what was asked for ahead may be told: nothing was written through
// here since, and the guest had little time to do so.
bool SftpOpened::IsFresh() const {
  if (rest_.empty() && ahead_.empty()) return true;
  const auto since = rest_.empty() ? ahead_.front().asked : since_;
  return writes_ == files_->writes_ && Clock::now() - since < kAheadLasts;
}

void SftpOpened::Ask(size_t size) {
  const uint32_t number = client_->Send(
      SftpClient::kRead,
      SftpOut().Text(handle_).U64(asked_).U32(static_cast<uint32_t>(size)));
  ahead_.push_back({size, number, Clock::now()});
  asked_ += size;
}

// The bytes of one request; fewer at the end, and at a server's whim.
std::string SftpOpened::Take(uint32_t number) {
  const auto answer = client_->Await(number);
  if (answer.type == SftpClient::kData) {
    return std::string(SftpIn(answer.body).Text());
  }
  if (answer.Code() != SftpClient::kEof) {
    SftpFiles::Check(answer, "read", path_, EIO);
  }
  return {};
}

// Takes the next piece into `rest_`; false at the end.
bool SftpOpened::TakeNext() {
  const Ahead first = ahead_.front();
  ahead_.pop_front();
  if (rest_.empty()) since_ = first.asked;
  const std::string piece = Take(first.number);
  rest_ += piece;
  if (piece.size() >= first.size) return true;
  // The end, or a server that gives less at a time.
  std::string kept = std::move(rest_);
  DropAhead();
  rest_ = std::move(kept);
  asked_ = next_ + rest_.size();
  most_ahead_ = 0;
  return !piece.empty();
}

std::string SftpOpened::ReadNow(uint64_t offset, size_t size) {
  const bool reads_on = offset == next_ && offset > 0;
  if (offset != next_ || !IsFresh()) DropAhead();
  if (ahead_.empty() && rest_.empty()) asked_ = offset;
  next_ = offset;
  writes_ = files_->writes_;
  most_ahead_ =
      reads_on ? std::clamp<size_t>(most_ahead_ * 2, 1, kMostAhead) : 0;
  // All of it is asked for, and then what is likely to be asked for next.
  do {
    while (asked_ < offset + size) {
      Ask(std::min<uint64_t>(kSftpPiece, offset + size - asked_));
    }
    while (ahead_.size() < most_ahead_) Ask(kSftpPiece);
  } while (rest_.size() < size && TakeNext());
  std::string bytes = rest_.substr(0, size);
  rest_.erase(0, size);
  next_ += bytes.size();
  return bytes;
}

// SFTP has one word for all that can go wrong.
int SftpOpened::WhyNotWritten() const {
  constexpr char kStatvfs[] = "fstatvfs@openssh.com";
  if (!client_->Has(kStatvfs)) return EIO;
  const auto answer = client_->Call(SftpClient::kExtended,
                                    SftpOut().Text(kStatvfs).Text(handle_));
  if (answer.type != SftpClient::kExtendedReply) return EIO;
  return SftpFiles::SpaceOf(answer).available == 0 ? ENOSPC : EIO;
}

}  // namespace sbxfs
