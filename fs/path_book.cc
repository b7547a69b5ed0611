#include "fs/path_book.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

namespace sbxfs {
namespace {

// More is not kept: who has a file open that is not in the book is told that
// it is stale, should the daemon end.
constexpr int64_t kMostBook = 8 << 20;

// Before each record: its length without this, and whether it holds.
struct RecordHead {
  uint32_t size = 0;
  uint32_t holds = 0;
};

std::string Packed(const PathRecord& record) {
  std::string bytes(1, record.running ? '1' : '0');
  for (const auto* part :
       {&record.identity, &record.uuid, &record.snapshot, &record.path}) {
    bytes.append(part->c_str(), part->size() + 1);
  }
  return bytes;
}

std::optional<PathRecord> Unpacked(std::string_view bytes) {
  PathRecord record;
  if (bytes.empty()) return std::nullopt;
  record.running = bytes.front() == '1';
  bytes.remove_prefix(1);
  for (auto* part :
       {&record.identity, &record.uuid, &record.snapshot, &record.path}) {
    const auto end = bytes.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    *part = bytes.substr(0, end);
    bytes.remove_prefix(end + 1);
  }
  return record;
}

}  // namespace

PathBook::PathBook(const UniqueFd& memory, int64_t offset)
    : memory_(fcntl(memory.Get(), F_DUPFD_CLOEXEC, 0)),
      begin_(offset),
      end_(offset) {
  MutexLock lock(mutex_);
  // A daemon may have been killed while it wrote: what makes no sense is not
  // believed, nor anything behind it.
  while (end_ < begin_ + kMostBook) {
    RecordHead head;
    if (pread(memory_.Get(), &head, sizeof(head), end_) != sizeof(head) ||
        head.size == 0 || head.size > kMostBook) {
      break;
    }
    std::string bytes(head.size, '\0');
    if (pread(memory_.Get(), bytes.data(), bytes.size(),
              end_ + static_cast<int64_t>(sizeof(head))) !=
        static_cast<ssize_t>(bytes.size())) {
      break;
    }
    const auto record = Unpacked(bytes);
    if (!record) break;
    if (head.holds != 0) entries_[record->identity] = {*record, end_};
    end_ += static_cast<int64_t>(sizeof(head) + head.size);
  }
}

void PathBook::Close() {
  MutexLock lock(mutex_);
  closed_ = true;
}

void PathBook::Append(Entry& entry) {
  const std::string bytes = Packed(entry.record);
  const RecordHead head{static_cast<uint32_t>(bytes.size()), 1};
  std::string whole(sizeof(head), '\0');
  std::memcpy(whole.data(), &head, sizeof(head));
  whole += bytes;
  entry.at = end_;
  if (pwrite(memory_.Get(), whole.data(), whole.size(), end_) ==
      static_cast<ssize_t>(whole.size())) {
    end_ += static_cast<int64_t>(whole.size());
  }
}

void PathBook::Compact() {
  fallocate(memory_.Get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin_,
            kMostBook + (1 << 20));
  end_ = begin_;
  for (auto& [identity, entry] : entries_) {
    if (end_ - begin_ < kMostBook / 2) Append(entry);
  }
}

void PathBook::Strike(const Entry& entry) const {
  const uint32_t no = 0;
  (void)!pwrite(memory_.Get(), &no, sizeof(no),
                entry.at + static_cast<int64_t>(offsetof(RecordHead, holds)));
}

void PathBook::Add(const PathRecord& record) {
  MutexLock lock(mutex_);
  if (closed_) return;
  auto& entry = entries_[record.identity];
  if (entry.record == record) return;
  const auto before = std::exchange(entry, {record});
  Append(entry);
  if (!before.record.identity.empty()) Strike(before);
  if (end_ - begin_ > kMostBook) Compact();
}

void PathBook::Remove(const std::string& identity) {
  MutexLock lock(mutex_);
  const auto found = entries_.find(identity);
  if (found == entries_.end() || closed_) return;
  Strike(found->second);
  entries_.erase(found);
  if (entries_.empty()) Compact();
}

}  // namespace sbxfs
