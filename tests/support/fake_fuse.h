#ifndef SBXFS_TESTS_SUPPORT_FAKE_FUSE_H_
#define SBXFS_TESTS_SUPPORT_FAKE_FUSE_H_

#include <linux/fuse.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "backend/util/mutex.h"
#include "backend/util/unique_fd.h"
#include "fs/session.h"

namespace sbxfs {

// Plays the kernel to a Session over a socket: raw requests of any caller, and
// their exact answers. One request is in flight for each Send, so a test
// decides what waits for what. Errnos are positive, 0 for success.
class FakeFuse {
 public:
  struct Answer {
    Answer() = default;
    Answer(int error, std::string data) : error(error), data(std::move(data)) {}
    int error = 0;
    std::string data;
  };
  struct Opened {
    int error = 0;
    uint64_t node = 0;
    uint64_t handle = 0;
    uint32_t flags = 0;
  };

  explicit FakeFuse(Backend& backend, SessionOptions options = {});
  ~FakeFuse();
  FakeFuse(const FakeFuse&) = delete;
  FakeFuse& operator=(const FakeFuse&) = delete;

  // Of the requests to come.
  Caller caller;

  // The protocol.
  uint64_t Send(uint32_t opcode, uint64_t node, const std::string& payload);
  // Fails the test, with error -1, when none comes.
  Answer Wait(uint64_t unique);
  [[nodiscard]] bool Answered(uint64_t unique, std::chrono::milliseconds limit);
  Answer Call(uint32_t opcode, uint64_t node, const std::string& payload) {
    return Wait(Send(opcode, node, payload));
  }
  void Interrupt(uint64_t unique);
  void Forget(uint64_t node, uint64_t count);
  // Whether a poll wake-up comes for that kernel handle.
  [[nodiscard]] bool Woken(uint64_t kernel_handle,
                           std::chrono::milliseconds limit);
  void StopSession() { session_->Stop(); }
  // Asks the session to hand over; whether it does so.
  [[nodiscard]] bool HandsOver(std::chrono::milliseconds limit);
  // Another session goes on with what the one before handed over.
  void GoOn();
  // The daemon is gone in the middle, and another goes on.
  void Crash();

  // What programs do. Paths are relative to the root.
  Answer Lookup(uint64_t parent, const std::string& name);
  uint64_t Walk(const std::string& path);  // 0: there is none
  std::optional<fuse_attr> Stat(const std::string& path);
  Opened Open(const std::string& path, int flags);
  Opened Create(const std::string& path, int flags);
  std::string Read(const Opened& file, uint64_t offset = 0);
  uint64_t SendWrite(const Opened& file, const std::string& text,
                     uint64_t offset = 0);
  int Write(const Opened& file, const std::string& text, uint64_t offset = 0);
  int Flush(const Opened& file);
  int Fsync(const Opened& file);
  int Truncate(const Opened& file, uint64_t size);
  void Release(const Opened& file);
  int Close(const Opened& file);  // flush and release: flush's errno
  // The events; `kernel_handle` asks for a wake-up.
  uint32_t Poll(const Opened& file, uint64_t kernel_handle = 0);

  std::string Cat(const std::string& path);
  int Echo(const std::string& text, const std::string& path);
  // cp of a new file: create, write, close; the first errno.
  int Copy(const std::string& text, const std::string& path);
  int Mkdir(const std::string& path, mode_t mode = 0755);
  int Rmdir(const std::string& path);
  int Unlink(const std::string& path);
  int Rename(const std::string& from, const std::string& to,
             uint32_t flags = 0);
  int Chmod(const std::string& path, mode_t mode);
  std::vector<std::string> Ls(const std::string& path);

 private:
  void ReadAnswers() EXCLUDES(mutex_);
  void SendPacket(fuse_in_header header, const std::string& payload);
  std::string NameIn(const std::string& path, uint64_t& parent);

  // Serves the other end of a new pair of sockets, or of that.
  void Serve(bool resumed, int fd = -1);
  void End();

  Backend& backend_;
  SessionOptions options_;
  UniqueFd memory_;
  int fd_ = -1;
  int session_fd_ = -1;  // of the test, to outlive a session's
  std::atomic<bool> handed_over_ = false;
  std::atomic<bool> deaf_ = false;  // answers are thrown away
  std::atomic<bool> crashed_ = false;
  std::unique_ptr<Session> session_;
  std::thread serving_;
  std::thread reading_;
  Mutex mutex_;
  CondVar changed_;
  uint64_t last_ GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Answer> answers_ GUARDED_BY(mutex_);
  std::multiset<uint64_t> woken_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_FAKE_FUSE_H_
