#ifndef SBXFS_FS_PATH_BOOK_H_
#define SBXFS_FS_PATH_BOOK_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "backend/util/mutex.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {

// What a node of a guest's files is found by.
struct PathRecord {
  std::string identity;  // the node's
  std::string uuid, snapshot;
  std::string path;      // in the guest
  bool running = false;  // the guest was, when it was opened
  bool operator==(const PathRecord&) const = default;
};

// Where the files of guests are that the kernel may come back to by a number
// alone, since they are open or somebody's working directory: a tree as large
// as a guest's cannot be searched for it. In the memory that a holder of the
// mount keeps (fs/channel.h), so that another daemon knows. Thread-safe.
class PathBook {
 public:
  // What is there was a daemon's before. `memory` is that of a Channel.
  PathBook(const UniqueFd& memory, int64_t offset);
  // It is the next daemon's: nothing is written to it any more.
  void Close() EXCLUDES(mutex_);

  // Or that it is elsewhere now.
  void Add(const PathRecord& record) EXCLUDES(mutex_);
  void Remove(const std::string& identity) EXCLUDES(mutex_);
  // The first that fits, of all there are.
  template <typename F>
  [[nodiscard]] std::optional<PathRecord> Find(F&& fits) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    for (const auto& [identity, entry] : entries_) {
      if (fits(entry.record)) return entry.record;
    }
    return std::nullopt;
  }

 private:
  struct Entry {
    PathRecord record;
    int64_t at = 0;
  };
  // Anew, when most of what is there is of no use any more.
  void Compact() REQUIRES(mutex_);
  void Append(Entry& entry) REQUIRES(mutex_);
  void Strike(const Entry& entry) const;

  const UniqueFd memory_;
  const int64_t begin_;
  Mutex mutex_;
  bool closed_ GUARDED_BY(mutex_) = false;
  int64_t end_ GUARDED_BY(mutex_);
  std::map<std::string, Entry> entries_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_PATH_BOOK_H_
