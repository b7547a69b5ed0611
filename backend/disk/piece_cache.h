#ifndef SBXFS_BACKEND_DISK_PIECE_CACHE_H_
#define SBXFS_BACKEND_DISK_PIECE_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "backend/util/mutex.h"

namespace sbxfs {

// Pieces of files that were fetched lately, of all who read disks: snapshots
// of one sandbox have most of their chains in common. Thread-safe; nothing is
// fetched with its lock held, so that two may fetch the same for once.
class PieceCache {
 public:
  using Piece = std::shared_ptr<const std::string>;

  // Keeps about so many bytes.
  explicit PieceCache(size_t most) : most_(most) {}
  ~PieceCache();
  PieceCache(const PieceCache&) = delete;
  PieceCache& operator=(const PieceCache&) = delete;

  // Null when it is not there. `file` names a content that never changes.
  [[nodiscard]] Piece Find(const std::string& file, uint64_t number)
      EXCLUDES(mutex_);
  void Put(const std::string& file, uint64_t number, Piece piece)
      EXCLUDES(mutex_);

 private:
  using Key = std::pair<std::string, uint64_t>;
  using Kept = std::pair<Key, Piece>;

  const size_t most_;
  Mutex mutex_;
  size_t bytes_ GUARDED_BY(mutex_) = 0;
  // The one that was used last first.
  std::list<Kept> pieces_ GUARDED_BY(mutex_);
  std::map<Key, std::list<Kept>::iterator> places_ GUARDED_BY(mutex_);
};

// A file that is read by pieces out of a cache; `fetch` gets what is not there
// and can take its time: the more is read front to back, the more of it is
// fetched at once. One thread at a time.
class PiecedFile {
 public:
  // Exactly `size` bytes from `offset`, which are there; fewer where the file
  // was cut meanwhile.
  using Fetch = std::function<std::string(uint64_t offset, uint64_t size)>;

  PiecedFile(std::shared_ptr<PieceCache> cache, std::string name, uint64_t size,
             Fetch fetch)
      : cache_(std::move(cache)),
        name_(std::move(name)),
        size_(size),
        fetch_(std::move(fetch)) {}

  // Up to `length` bytes, fewer at the end alone.
  [[nodiscard]] std::string Read(uint64_t offset, size_t length);

 private:
  [[nodiscard]] PieceCache::Piece Get(uint64_t number);

  std::shared_ptr<PieceCache> cache_;
  std::string name_;
  uint64_t size_;
  Fetch fetch_;
  uint64_t next_ = 0;     // the piece behind what was fetched last
  uint64_t at_once_ = 1;  // pieces to be fetched next
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_PIECE_CACHE_H_
