#include "backend/disk/ext_journal.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/image/byte_source.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

// Kinds of the journal's own blocks.
constexpr uint32_t kDescriptor = 1, kCommit = 2, kSuper2 = 4, kRevoke = 5;
// Incompatible features.
constexpr uint32_t kRevokes = 1, k64Bit = 2, kAsync = 4, kSums2 = 8,
                   kSums3 = 16, kFastCommits = 32;
// Flags of a tag.
constexpr uint32_t kEscaped = 1, kSameUuid = 2, kLastTag = 8;
constexpr size_t kHeaderSize = 12;
constexpr uint64_t kDefaultFastBlocks = 256;

uint32_t Sum(uint32_t seed, std::string_view bytes) {
  return ext2fs_crc32c_le(
      seed, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

class ExtJournal {
 public:
  explicit ExtJournal(ExtDevice& device) : device_(device) {}

  ExtDetours Replay();

 private:
  struct Tag {
    uint64_t block = 0;  // of the file system
    uint64_t where = 0;  // the block of the journal's inode that holds it
    uint32_t sum = 0;
    bool escaped = false;
  };
  struct Transaction {
    uint32_t sequence = 0;
    std::vector<Tag> tags;
  };

  // Whether there is anything to be done.
  bool ReadSuper();
  void Scan();
  // The block of the file system that a block of the journal is; 0 for none.
  uint64_t Place(uint64_t block);
  std::string Block(uint64_t block);
  uint64_t Next(uint64_t block) const {
    return block + 1 >= last_ ? first_ : block + 1;
  }
  // Whether the sum in a block's last bytes is right.
  bool TailIsRight(std::string block) const;
  bool CommitIsRight(std::string block) const;
  bool TagIsRight(const Tag& tag, uint32_t sequence, std::string_view bytes);
  // Notes the blocks behind a descriptor; `at` is moved to the last of them.
  void ReadTags(std::string_view block, uint64_t& at, Transaction& into);
  void ReadRevokes(std::string_view block);

  ExtDevice& device_;
  ext2_inode inode_{};
  uint64_t first_ = 0, last_ = 0, start_ = 0;
  uint32_t sequence_ = 0;
  bool wide_ = false;
  unsigned sums_ = 0;  // the version of its tags' sums; 0: none
  uint32_t seed_ = 0;
  std::vector<Transaction> committed_;
  // The last transaction from which on an older block is not to be replayed.
  std::unordered_map<uint64_t, uint32_t> revoked_;
  // Of the transaction that is being read.
  std::vector<uint64_t> revoking_;
};

uint64_t ExtJournal::Place(uint64_t block) {
  blk64_t place = 0;
  device_.Check(
      ext2fs_bmap2(device_.Get(), device_.Get()->super->s_journal_inum, &inode_,
                   nullptr, 0, block, nullptr, &place),
      "Cannot read the journal");
  return place;
}

std::string ExtJournal::Block(uint64_t block) {
  const uint64_t place = Place(block);
  std::string bytes;
  if (place != 0 && place < ext2fs_blocks_count(device_.Get()->super)) {
    bytes = device_.Read(place * device_.BlockSize(), device_.BlockSize());
  }
  bytes.resize(device_.BlockSize(), '\0');
  return bytes;
}

bool ExtJournal::ReadSuper() {
  const ext2_super_block& super = *device_.Get()->super;
  if ((super.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER) == 0 ||
      super.s_journal_inum == 0) {
    return false;
  }
  device_.Check(ext2fs_read_inode(device_.Get(), super.s_journal_inum, &inode_),
                "Cannot read the journal");
  const std::string head = Block(0);
  if (BigEndian<uint32_t>(head, 0) != kJournalMagic ||
      BigEndian<uint32_t>(head, 4) != kSuper2 ||
      BigEndian<uint32_t>(head, 12) != device_.BlockSize()) {
    return false;
  }
  last_ = BigEndian<uint32_t>(head, 16);
  first_ = BigEndian<uint32_t>(head, 20);
  sequence_ = BigEndian<uint32_t>(head, 24);
  start_ = BigEndian<uint32_t>(head, 28);
  const auto features = BigEndian<uint32_t>(head, 40);
  if ((features &
       ~(kRevokes | k64Bit | kAsync | kSums2 | kSums3 | kFastCommits)) != 0) {
    return false;
  }
  wide_ = (features & k64Bit) != 0;
  sums_ = (features & kSums3) != 0 ? 3 : (features & kSums2) != 0 ? 2 : 0;
  seed_ = Sum(~0U, std::string_view(head).substr(48, 16));
  if (sums_ != 0) {
    std::string zeroed = head.substr(0, 1024);
    zeroed.replace(252, 4, 4, '\0');
    if (Sum(~0U, zeroed) != BigEndian<uint32_t>(head, 252)) return false;
  }
  last_ = std::min<uint64_t>(last_, EXT2_I_SIZE(&inode_) / device_.BlockSize());
  if ((features & kFastCommits) != 0) {
    const uint64_t fast = BigEndian<uint32_t>(head, 84);
    last_ -= std::min(last_, fast == 0 ? kDefaultFastBlocks : fast);
  }
  return start_ != 0 && first_ != 0 && first_ < last_ && start_ >= first_ &&
         start_ < last_;
}

bool ExtJournal::TailIsRight(std::string block) const {
  if (sums_ == 0) return true;
  const size_t tail = block.size() - 4;
  const auto sum = BigEndian<uint32_t>(block, tail);
  block.replace(tail, 4, 4, '\0');
  return Sum(seed_, block) == sum;
}

bool ExtJournal::CommitIsRight(std::string block) const {
  if (sums_ == 0) return true;
  constexpr size_t kSumAt = 16;
  const auto sum = BigEndian<uint32_t>(block, kSumAt);
  block.replace(kSumAt, 4, 4, '\0');
  return Sum(seed_, block) == sum;
}

bool ExtJournal::TagIsRight(const Tag& tag, uint32_t sequence,
                            std::string_view bytes) {
  if (sums_ == 0) return true;
  std::string number(4, '\0');
  for (int i = 0; i < 4; ++i) {
    number[i] = static_cast<char>(sequence >> (24 - 8 * i));
  }
  const uint32_t sum = Sum(Sum(seed_, number), bytes);
  return sums_ == 3 ? sum == tag.sum : (sum & 0xffff) == tag.sum;
}

void ExtJournal::ReadTags(std::string_view block, uint64_t& at,
                          Transaction& into) {
  const size_t end = block.size() - (sums_ != 0 ? 4 : 0);
  const size_t width =
      sums_ == 3 ? 16 : 8 + (sums_ == 2 ? 2 : 0) + (wide_ ? 4 : 0);
  size_t offset = kHeaderSize;
  while (offset + width <= end) {
    Tag tag;
    tag.block = BigEndian<uint32_t>(block, offset);
    uint32_t flags = 0;
    if (sums_ == 3) {
      flags = BigEndian<uint32_t>(block, offset + 4);
      tag.sum = BigEndian<uint32_t>(block, offset + 12);
    } else {
      flags = BigEndian<uint16_t>(block, offset + 6);
      tag.sum = BigEndian<uint16_t>(block, offset + 4);
    }
    if (wide_) {
      tag.block |= uint64_t{BigEndian<uint32_t>(block, offset + 8)} << 32;
    }
    at = Next(at);
    tag.where = at;
    tag.escaped = (flags & kEscaped) != 0;
    into.tags.push_back(tag);
    offset += width + ((flags & kSameUuid) != 0 ? 0 : 16);
    if ((flags & kLastTag) != 0) break;
  }
}

void ExtJournal::ReadRevokes(std::string_view block) {
  const size_t width = wide_ ? 8 : 4;
  const size_t end = std::min<size_t>(BigEndian<uint32_t>(block, 12),
                                      block.size() - (sums_ != 0 ? 4 : 0));
  for (size_t at = kHeaderSize + 4; at + width <= end; at += width) {
    revoking_.push_back(wide_ ? BigEndian<uint64_t>(block, at)
                              : BigEndian<uint32_t>(block, at));
  }
}

// Up to the last transaction that has its commit.
void ExtJournal::Scan() {
  Transaction now{sequence_, {}};
  uint64_t at = start_;
  // Once around: what is longer is a circle that somebody made.
  for (uint64_t steps = 0; steps + now.tags.size() < last_; ++steps) {
    const std::string block = Block(at);
    if (BigEndian<uint32_t>(block, 0) != kJournalMagic ||
        BigEndian<uint32_t>(block, 8) != now.sequence) {
      return;
    }
    const auto kind = BigEndian<uint32_t>(block, 4);
    if (kind == kDescriptor) {
      if (!TailIsRight(block)) return;
      ReadTags(block, at, now);
    } else if (kind == kRevoke) {
      if (!TailIsRight(block)) return;
      ReadRevokes(block);
    } else if (kind == kCommit) {
      if (!CommitIsRight(block)) return;
      for (const uint64_t revoked : revoking_) {
        revoked_[revoked] = now.sequence;
      }
      revoking_.clear();
      steps += now.tags.size();
      const uint32_t next = now.sequence + 1;
      committed_.push_back(std::move(now));
      now = {next, {}};
    } else {
      return;
    }
    at = Next(at);
  }
}

ExtDetours ExtJournal::Replay() {
  ExtDetours detours;
  if (!ReadSuper()) return detours;
  Scan();
  const uint64_t blocks = ext2fs_blocks_count(device_.Get()->super);
  for (const Transaction& transaction : committed_) {
    for (const Tag& tag : transaction.tags) {
      const auto revoked = revoked_.find(tag.block);
      // Sequences go on from their greatest to 0.
      if (revoked != revoked_.end() &&
          static_cast<int32_t>(revoked->second - transaction.sequence) >= 0) {
        continue;
      }
      const uint64_t place = Place(tag.where);
      if (tag.block >= blocks || place == 0 || place >= blocks ||
          !TagIsRight(tag, transaction.sequence, Block(tag.where))) {
        continue;
      }
      detours[tag.block] = {place, tag.escaped};
    }
  }
  return detours;
}

}  // namespace

ExtDetours ReplayJournal(ExtDevice& device) {
  try {
    return ExtJournal(device).Replay();
  } catch (const Error& error) {
    // A journal that is damaged is no reason to show nothing.
    if (error.Errno() != EIO) throw;
    return {};
  }
}

}  // namespace sbxfs
