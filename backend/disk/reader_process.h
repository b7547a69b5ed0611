#ifndef SBXFS_BACKEND_DISK_READER_PROCESS_H_
#define SBXFS_BACKEND_DISK_READER_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/disk/disk_chain.h"
#include "backend/disk/reader_wire.h"
#include "backend/file_tree.h"
#include "backend/util/unique_fd.h"
#include "backend/util/worker_pool.h"

namespace sbxfs {

// A process that reads a disk, and what it is asked. It gets its bytes by the
// thread that asks, one of which does so at a time; the others line up, which
// is no lock: it is held for as long as libvirt takes. One that ends, or does
// not answer, is ended and made anew at the next question, a few times.
// Thread-safe.
class ReaderProcess {
 public:
  struct Settings {
    std::string program = "/proc/self/exe";  // whose main() calls RunDiskReader
    // How long it may think until it asks or answers, and a question may take.
    std::chrono::milliseconds thinking{20'000};
    std::chrono::milliseconds asking{120'000};
  };

  // `read` is called by whoever asks; what it throws the question throws.
  ReaderProcess(std::vector<ChainFile> files, ReadFileAt read,
                Settings settings);
  ~ReaderProcess();
  ReaderProcess(const ReaderProcess&) = delete;
  ReaderProcess& operator=(const ReaderProcess&) = delete;

  // The answer to a question, packed. Throws Error.
  [[nodiscard]] std::string Ask(Say say, std::string_view bytes);

 private:
  // With the turn taken.
  void Start();
  void End();
  // Its answer, kAnswer or kError; `failure` is why it got no bytes. Throws
  // when it is of no use any more.
  WireMessage Exchange(Say say, std::string_view bytes, WireDeadline deadline,
                       std::exception_ptr& failure);
  // Sends what it wants.
  void Serve(const WireMessage& wanted, std::exception_ptr& failure);

  const std::vector<ChainFile> files_;
  const ReadFileAt read_;
  const Settings settings_;
  Turns turns_;
  // Of whoever has the turn.
  UniqueFd socket_;
  pid_t pid_ = -1;
  bool open_ = false;
  int ends_ = 0;  // that nobody wanted
};

// The files that such a process finds.
class ProcessTree : public FileTree {
 public:
  explicit ProcessTree(std::shared_ptr<ReaderProcess> process)
      : process_(std::move(process)) {}

  FileFacts Look(const std::string& path) override;
  std::vector<Entry> List(const std::string& path) override;
  std::string Target(const std::string& path) override;
  FileSpace Space(const std::string& path) override;
  std::unique_ptr<Opened> Open(const std::string& path, int flags,
                               mode_t mode) override;

 private:
  const std::shared_ptr<ReaderProcess> process_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_READER_PROCESS_H_
