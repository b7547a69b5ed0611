#ifndef SBXFS_BACKEND_GUEST_SFTP_CLIENT_H_
#define SBXFS_BACKEND_GUEST_SFTP_CLIENT_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/file_tree.h"
#include "backend/guest/ssh_client.h"
#include "backend/guest/ssh_handle.h"
#include "backend/util/sftp_words.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

// The fields of an SFTP packet, put together.
class SftpOut {
 public:
  SftpOut& Byte(uint8_t value);
  SftpOut& U32(uint32_t value);
  SftpOut& U64(uint64_t value);
  SftpOut& Text(std::string_view text);
  // What is set, as attributes; both times or none.
  SftpOut& Attributes(const FileChanges& changes);
  [[nodiscard]] const std::string& Bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// The same taken apart. A guest wrote it: throws Error(EPROTO) for what is not
// what it should be.
class SftpIn {
 public:
  explicit SftpIn(std::string_view bytes) : rest_(bytes) {}
  uint8_t Byte();
  uint32_t U32();
  uint64_t U64();
  std::string_view Text();
  FileFacts Attributes();
  [[nodiscard]] bool Empty() const { return rest_.empty(); }

 private:
  std::string_view Take(size_t size);
  std::string_view rest_;
};

// One connection to the SFTP server of a guest, version 3 as OpenSSH has it,
// over libssh. Requests may be sent ahead and their replies collected later,
// in any order. For one thread at a time, but Abort.
class SftpClient {
 public:
  using Type = sftp::Type;
  using enum sftp::Type;
  using enum sftp::Status;
  struct Answer {
    uint8_t type = 0;
    std::string body;  // behind its number
    // Error(EPROTO) unless it is a kStatus.
    [[nodiscard]] uint32_t Code() const;
  };

  // Blocks. Throws SshRun's errors, and EOPNOTSUPP where there is no such
  // server.
  SftpClient(const SshTarget& target, std::chrono::milliseconds timeout,
             const std::atomic<bool>& given_up);
  ~SftpClient();
  SftpClient(const SftpClient&) = delete;
  SftpClient& operator=(const SftpClient&) = delete;

  // Its number. Blocks until it is on its way.
  uint32_t Send(Type type, const SftpOut& fields);
  // Throws Error: EHOSTUNREACH when the connection is lost, ETIMEDOUT, which
  // ends it.
  [[nodiscard]] Answer Await(uint32_t number);
  [[nodiscard]] Answer Call(Type type, const SftpOut& fields) {
    return Await(Send(type, fields));
  }
  // Nobody waits for that one.
  void Drop(uint32_t number);
  // Whether the connection is there still, as far as can be told at once.
  [[nodiscard]] bool Lives();
  [[nodiscard]] bool Has(const std::string& extension) const {
    return extensions_.contains(extension);
  }

  // The guest's user; without groups when it does not tell.
  [[nodiscard]] bool IsOwn(uid_t uid) const;
  [[nodiscard]] bool IsOwnGroup(gid_t gid) const;

  // Lets whoever waits fail, and all calls to come. From any thread.
  void Abort();

 private:
  using Clock = std::chrono::steady_clock;

  void Begin(Clock::time_point deadline);
  template <typename F>
  void Finish(Clock::time_point deadline, F&& call);
  void Wait(Clock::time_point deadline);
  // Sends and receives what can be at once; whether there was anything.
  bool Pump();
  bool Receive();
  void TakePackets();
  [[noreturn]] void FailLost(std::string_view why);

  const SshTarget target_;
  std::chrono::milliseconds limit_;
  // The channel goes before its session.
  std::shared_ptr<ssh_session_struct> session_;
  SshChannelPtr channel_;
  UniqueFd socket_;  // the session's, for Abort
  std::atomic<bool> lost_ = false;
  std::set<std::string> extensions_;
  uid_t uid_ = 0;
  std::set<gid_t> gids_;
  uint32_t last_ = 0;
  std::string out_, in_;
  std::set<uint32_t> expected_;
  std::map<uint32_t, Answer> answers_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_SFTP_CLIENT_H_
