#ifndef SBXFS_TESTS_SUPPORT_FAKE_FILES_H_
#define SBXFS_TESTS_SUPPORT_FAKE_FILES_H_

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "backend/guest_files.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// The files of guests in memory, asked on a thread of its own as real ones are.
// A guest's user has uid and gid 1000; what is not there is ENOENT.
// Thread-safe.
class FakeFiles : public GuestFiles {
 public:
  struct File {
    FileFacts facts;
    std::string bytes;  // a link's: where it leads
  };
  // Keeps a file that was opened when no name leads to it any more.
  using FilePtr = std::shared_ptr<File>;
  using Files = std::map<std::string, FilePtr>;  // by path; the root's is empty

  FakeFiles();
  ~FakeFiles() override;

  // Test's side. `mode` with its type.
  void Put(const FilesOf& whose, const std::string& path, mode_t mode,
           const std::string& bytes = "", uid_t owner = 1000) EXCLUDES(mutex_);
  [[nodiscard]] std::optional<File> Get(const FilesOf& whose,
                                        const std::string& path)
      EXCLUDES(mutex_);
  // From now on nothing can be asked, for that reason; or it can.
  void Refuse(std::optional<Error> error) EXCLUDES(mutex_);
  // From now on jobs wait; those that do go on.
  void Hold() EXCLUDES(mutex_);
  void Release() EXCLUDES(mutex_);
  [[nodiscard]] std::size_t Waiting() EXCLUDES(mutex_);

  void Run(const FilesOf& whose, Job job) override EXCLUDES(mutex_);

 private:
  friend class FakeTree;
  void Loop() EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar changed_;
  bool stop_ GUARDED_BY(mutex_) = false;
  bool held_ GUARDED_BY(mutex_) = false;
  std::optional<Error> refused_ GUARDED_BY(mutex_);
  std::deque<std::pair<FilesOf, Job>> jobs_ GUARDED_BY(mutex_);
  std::map<FilesOf, Files> places_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_FAKE_FILES_H_
