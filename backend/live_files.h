#ifndef SBXFS_BACKEND_LIVE_FILES_H_
#define SBXFS_BACKEND_LIVE_FILES_H_

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "backend/core.h"
#include "backend/guest/sftp_files.h"
#include "backend/guest_files.h"

namespace sbxfs {

// The files of this hypervisor's sandboxes: of those that run by SFTP, with one
// connection each, and of others by their disks, with one process each; both
// are kept while they are used and for a minute more. And with one thread each,
// so that a guest that hangs keeps its own askers waiting alone.
class LiveFiles : public GuestFiles {
 public:
  explicit LiveFiles(Core& core) : core_(core) {}

  void Run(const FilesOf& whose, Job job) override EXCLUDES(mutex_);
  // The sandbox may have stopped, or be another boot: what was had of it is
  // had anew. Returns at once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);
  // Ends all connections, and lets all who wait fail.
  void Stop() EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Asked {
    Job job;
    Clock::time_point since;
    bool told = false;  // that it takes too long
  };
  using AskedPtr = std::shared_ptr<Asked>;
  struct Place {
    std::deque<AskedPtr> waiting;
    AskedPtr running;
    std::shared_ptr<FileTree> tree;   // null until asked for
    std::shared_ptr<SftpFiles> sftp;  // the same, of one that runs
    Clock::time_point used;
  };
  using Places = std::map<FilesOf, Place>;

  // On a worker, until nothing waits there.
  void Work(const FilesOf& whose) EXCLUDES(mutex_);
  // The files of that place, had already or made. Throws Error.
  [[nodiscard]] std::shared_ptr<FileTree> TreeOf(const FilesOf& whose)
      EXCLUDES(mutex_);
  // Who serves them: the one place that tells what runs from disks at rest.
  [[nodiscard]] std::shared_ptr<FileTree> Choose(const FilesOf& whose,
                                                 const Sandbox& sandbox);
  [[nodiscard]] std::shared_ptr<SftpFiles> Running(const Sandbox& sandbox);
  // Now and then while there is a place: tells those who wait for too long, and
  // ends what nobody uses.
  void Tick() EXCLUDES(mutex_);
  void Tend() EXCLUDES(mutex_);

  Core& core_;
  Mutex mutex_;
  bool stopped_ GUARDED_BY(mutex_) = false;
  bool ticking_ GUARDED_BY(mutex_) = false;
  Places places_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIVE_FILES_H_
