#ifndef SBXFS_BACKEND_GUEST_SFTP_OPENED_H_
#define SBXFS_BACKEND_GUEST_SFTP_OPENED_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "backend/guest/sftp_files.h"

namespace sbxfs {

// The flags of open(2), as SFTP has them.
[[nodiscard]] uint32_t SftpFlags(int flags);

// A file of SftpFiles that is open. Its handle is one of a connection, and got
// anew by its name with another. A reader that reads on finds the next bytes on
// their way.
class SftpOpened : public FileTree::Opened {
 public:
  SftpOpened(std::shared_ptr<SftpFiles> files, std::string path, int flags,
             std::shared_ptr<SftpClient> client, std::string handle);
  ~SftpOpened() override;

  std::string Read(uint64_t offset, size_t size) override;
  void Write(uint64_t offset, const std::string& bytes) override;
  void Sync() override;
  FileFacts Look() override;
  void Resize(uint64_t size) override;
  [[nodiscard]] bool IsCurrent() const override { return !files_->HasEnded(); }

 private:
  using Clock = std::chrono::steady_clock;
  using ClientPtr = std::shared_ptr<SftpClient>;
  // A read that was sent.
  struct Ahead {
    size_t size;
    uint32_t number;
    Clock::time_point asked;
  };

  void Adopt(const ClientPtr& client);
  void DropAhead();
  [[nodiscard]] bool IsFresh() const;
  void Ask(size_t size);
  [[nodiscard]] std::string Take(uint32_t number);
  bool TakeNext();
  [[nodiscard]] std::string ReadNow(uint64_t offset, size_t size);
  [[nodiscard]] int WhyNotWritten() const;

  const std::shared_ptr<SftpFiles> files_;
  const std::string path_;
  const int flags_;
  ClientPtr client_;  // that the handle is of
  std::string handle_;
  uint64_t next_ = 0;      // where a reader that reads on comes next
  size_t most_ahead_ = 0;  // requests
  uint64_t asked_ = 0;     // up to where it was asked for
  uint64_t writes_ = 0;    // the tree's, then
  std::string rest_;       // what has come, from `next_` on
  Clock::time_point since_;
  std::deque<Ahead> ahead_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_SFTP_OPENED_H_
