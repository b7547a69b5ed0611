#include "backend/disk/cached_read.h"

#include <algorithm>

namespace sbxfs {

std::string CachedRead::Read(uint64_t offset, size_t length) {
  std::string bytes;
  if (offset >= size_) return bytes;
  length = std::min<uint64_t>(length, size_ - offset);
  bytes.reserve(length);
  while (bytes.size() < length) {
    const size_t skip = offset % piece_;
    const std::string& piece = Get(offset / piece_);
    // The source ended before it said that it would.
    if (skip >= piece.size()) break;
    const size_t before = bytes.size();
    bytes.append(piece, skip, length - before);
    offset += bytes.size() - before;
  }
  return bytes;
}

const std::string& CachedRead::Get(uint64_t number) {
  const auto found = places_.find(number);
  if (found != places_.end()) {
    pieces_.splice(pieces_.begin(), pieces_, found->second);
    return found->second->second;
  }
  const uint64_t offset = number * piece_;
  pieces_.emplace_front(
      number, source_(offset, std::min<uint64_t>(piece_, size_ - offset)));
  places_[number] = pieces_.begin();
  if (pieces_.size() > most_) {
    places_.erase(pieces_.back().first);
    pieces_.pop_back();
  }
  return pieces_.front().second;
}

}  // namespace sbxfs
