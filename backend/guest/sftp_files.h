#ifndef SBXFS_BACKEND_GUEST_SFTP_FILES_H_
#define SBXFS_BACKEND_GUEST_SFTP_FILES_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/file_tree.h"
#include "backend/guest/sftp_client.h"
#include "backend/util/error.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// The files of a running guest, as its user has them, by SFTP. It connects when
// it is asked first, and anew when the connection was lost: what changes
// something is not sent twice then, all else is.
class SftpFiles : public FileTree,
                  public std::enable_shared_from_this<SftpFiles> {
 public:
  // Soon to fail when told that it is given up.
  using Connect = std::function<std::unique_ptr<SftpClient>(
      const std::atomic<bool>& given_up)>;
  explicit SftpFiles(Connect connect) : connect_(std::move(connect)) {}
  ~SftpFiles() override = default;

  FileFacts Look(const std::string& path) override EXCLUDES(mutex_);
  std::vector<Entry> List(const std::string& path) override EXCLUDES(mutex_);
  std::string Target(const std::string& path) override EXCLUDES(mutex_);
  FileSpace Space(const std::string& path) override EXCLUDES(mutex_);
  std::unique_ptr<Opened> Open(const std::string& path, int flags,
                               mode_t mode) override EXCLUDES(mutex_);
  void Set(const std::string& path, const FileChanges& changes) override
      EXCLUDES(mutex_);
  void MakeDir(const std::string& path, mode_t mode) override EXCLUDES(mutex_);
  void MakeLink(const std::string& path, const std::string& target) override
      EXCLUDES(mutex_);
  void MakeName(const std::string& path, const std::string& new_path) override
      EXCLUDES(mutex_);
  void Remove(const std::string& path) override EXCLUDES(mutex_);
  void RemoveDir(const std::string& path) override EXCLUDES(mutex_);
  void Rename(const std::string& path, const std::string& new_path) override
      EXCLUDES(mutex_);

  // Whether nothing is open that would not be found again by its name.
  [[nodiscard]] bool Idle() const { return opened_ == 0; }
  // Ends the connection, and lets whoever waits for it fail. From any thread.
  void HangUp() EXCLUDES(client_mutex_);
  // The same for ever: the guest is gone.
  void End() EXCLUDES(client_mutex_);
  [[nodiscard]] bool HasEnded() const { return ended_; }

 private:
  friend class SftpOpened;
  using ClientPtr = std::shared_ptr<SftpClient>;

  // A connection that lives.
  ClientPtr Need() REQUIRES(mutex_) EXCLUDES(client_mutex_);
  void CheckNotEnded() const;
  // `ask` with a connection; with another when that was lost and `again`.
  template <typename F>
  auto With(bool again, F&& ask) EXCLUDES(mutex_);
  static FileFacts Facts(SftpClient& client, SftpClient::Type type,
                         const std::string& of, const std::string& path);
  static FileFacts FactsOf(const SftpClient& client,
                           const SftpClient::Answer& answer,
                           const std::string& path);
  // What the server says to one of OpenSSH's calls for statvfs.
  [[nodiscard]] static FileSpace SpaceOf(const SftpClient::Answer& answer);
  [[nodiscard]] static bool Exists(SftpClient& client, const std::string& path);
  [[nodiscard]] static std::string InGuest(const std::string& path);
  // Throws what a kStatus says; `failure`: what SFTP's word for all that has
  // none is taken for.
  static void Check(const SftpClient::Answer& answer, const char* verb,
                    const std::string& path, int failure);

  const Connect connect_;
  std::atomic<int> opened_ = 0;
  std::atomic<uint64_t> writes_ = 0;  // changes of contents through here
  Mutex mutex_;  // one asks at a time: held while the guest answers
  Mutex client_mutex_;
  ClientPtr client_ GUARDED_BY(client_mutex_);
  std::atomic<bool> ended_ = false;
  // Why there is no connection, and until when that is taken for true.
  std::optional<Error> refused_ GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point refused_until_ GUARDED_BY(mutex_);
};

template <typename F>
auto SftpFiles::With(bool again, F&& ask) {
  MutexLock lock(mutex_);
  while (true) {
    // One that was there already may be lost without that being known.
    const bool kept = [&] {
      MutexLock client_lock(client_mutex_);
      return client_ != nullptr;
    }();
    const ClientPtr client = Need();
    try {
      return ask(client);
    } catch (const Error& error) {
      if (!again || !kept || error.Errno() != EHOSTUNREACH) throw;
    }
    again = false;
  }
}

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_SFTP_FILES_H_
