#include "backend/disk/piece_cache.h"

#include <malloc.h>

#include <algorithm>

namespace sbxfs {
namespace {

// Measured with libvirt 9 on one machine: a call costs a millisecond, and four
// more for each MiB up to one of them; of more at once each costs ten to
// twenty. On another machine a call costs some of its round trips.
constexpr uint64_t kPiece = 256 * 1024;
constexpr uint64_t kMostAtOnce = 4;

}  // namespace

PieceCache::~PieceCache() {
  pieces_.clear();
  // They were too small for malloc to map each, and it keeps what it freed.
  malloc_trim(0);
}

PieceCache::Piece PieceCache::Find(const std::string& file, uint64_t number) {
  MutexLock lock(mutex_);
  const auto found = places_.find({file, number});
  if (found == places_.end()) return nullptr;
  pieces_.splice(pieces_.begin(), pieces_, found->second);
  return found->second->second;
}

void PieceCache::Put(const std::string& file, uint64_t number, Piece piece) {
  MutexLock lock(mutex_);
  Key key(file, number);
  if (places_.contains(key)) return;
  bytes_ += piece->size();
  pieces_.emplace_front(key, std::move(piece));
  places_.emplace(std::move(key), pieces_.begin());
  while (bytes_ > most_ && pieces_.size() > 1) {
    bytes_ -= pieces_.back().second->size();
    places_.erase(pieces_.back().first);
    pieces_.pop_back();
  }
}

std::string PiecedFile::Read(uint64_t offset, size_t length) {
  std::string bytes;
  if (offset >= size_) return bytes;
  length = std::min<uint64_t>(length, size_ - offset);
  while (bytes.size() < length) {
    const PieceCache::Piece piece = Get(offset / kPiece);
    const size_t skip = offset % kPiece;
    if (skip >= piece->size()) break;
    const size_t before = bytes.size();
    bytes.append(*piece, skip, length - before);
    offset += bytes.size() - before;
  }
  return bytes;
}

PieceCache::Piece PiecedFile::Get(uint64_t number) {
  if (auto piece = cache_->Find(name_, number)) return piece;
  // Twice as many each time that the ones before were all read.
  at_once_ = number == next_ ? std::min(at_once_ * 2, kMostAtOnce) : 1;
  const uint64_t offset = number * kPiece;
  const std::string bytes =
      fetch_(offset, std::min(at_once_ * kPiece, size_ - offset));
  next_ = number + at_once_;
  PieceCache::Piece first = std::make_shared<std::string>();
  for (uint64_t at = 0; at < bytes.size(); at += kPiece) {
    auto piece = std::make_shared<const std::string>(bytes.substr(at, kPiece));
    if (at == 0) first = piece;
    cache_->Put(name_, number + at / kPiece, std::move(piece));
  }
  return first;
}

}  // namespace sbxfs
