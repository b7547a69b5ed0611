#include "backend/disk/ext_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "backend/image/byte_source.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

constexpr char kCannotOpen[] = "Cannot read the file system on the disk";
constexpr uint64_t kSuperblockAt = 1024;
constexpr size_t kSuperblockSize = 1024;
// Descriptors of groups are all in memory: more than those of 16 TiB by
// mkfs.ext4 is nobody's.
constexpr uint64_t kMostGroups = 1 << 20;

// An io_manager is named by a string alone.
thread_local ExtDevice* t_opening = nullptr;

errcode_t CloseChannel(io_channel channel) {
  if (--channel->refcount > 0) return 0;
  std::free(channel->name);
  std::free(channel);
  return 0;
}

errcode_t SetBlockSize(io_channel channel, int size) {
  channel->block_size = size;
  return 0;
}

// A count below zero is of bytes.
errcode_t ReadBlocks(io_channel channel, unsigned long long block, int count,
                     void* data) {
  auto& device = *static_cast<ExtDevice*>(channel->private_data);
  const auto width = static_cast<uint64_t>(channel->block_size);
  const uint64_t length = count < 0 ? -int64_t{count} : count * width;
  std::memset(data, 0, length);
  if (block > INT64_MAX / width) return EXT2_ET_SHORT_READ;
  try {
    const std::string bytes = device.Read(block * width, length);
    std::memcpy(data, bytes.data(), bytes.size());
    return bytes.size() == length ? 0 : EXT2_ET_SHORT_READ;
  } catch (...) {
    // No exception finds its way through C.
    device.NoteFailure();
    return EXT2_ET_SHORT_READ;
  }
}

errcode_t ReadBlocks32(io_channel channel, unsigned long block, int count,
                       void* data) {
  return ReadBlocks(channel, block, count, data);
}

errcode_t RefuseWrite(io_channel, unsigned long, int, const void*) {
  return EXT2_ET_RO_FILSYS;
}

errcode_t Flush(io_channel) { return 0; }

errcode_t OpenChannel(const char*, int, io_channel* channel);

io_manager Manager() {
  static struct_io_manager manager = [] {
    struct_io_manager made{};
    made.magic = EXT2_ET_MAGIC_IO_MANAGER;
    made.name = "sbxfs";
    made.open = OpenChannel;
    made.close = CloseChannel;
    made.set_blksize = SetBlockSize;
    made.read_blk = ReadBlocks32;
    made.read_blk64 = ReadBlocks;
    made.write_blk = RefuseWrite;
    made.flush = Flush;
    return made;
  }();
  return &manager;
}

errcode_t OpenChannel(const char* name, int, io_channel* channel) {
  auto* made = static_cast<io_channel>(std::calloc(1, sizeof **channel));
  if (made == nullptr) return EXT2_ET_NO_MEMORY;
  made->magic = EXT2_ET_MAGIC_IO_CHANNEL;
  made->manager = Manager();
  made->name = strdup(name);
  made->block_size = 1024;
  made->refcount = 1;
  made->private_data = t_opening;
  *channel = made;
  return 0;
}

}  // namespace

ExtDevice::ExtDevice(ReadAt read, uint64_t size)
    : read_(std::move(read)), size_(size) {
  Open();
}

ExtDevice::~ExtDevice() {
  if (fs_ != nullptr) ext2fs_free(fs_);
}

void ExtDevice::Reopen(ExtDetours detours) {
  detour_size_ = BlockSize();
  detours_ = std::move(detours);
  ext2fs_free(std::exchange(fs_, nullptr));
  Open();
}

// What the library takes on trust: it makes tables of what these numbers say.
void ExtDevice::CheckSuperblock() {
  const std::string bytes = Read(kSuperblockAt, kSuperblockSize);
  const auto refuse = [](std::string_view what) {
    throw Error(EIO, fmt::format("{}: its superblock is damaged: {}",
                                 kCannotOpen, what));
  };
  if (bytes.size() < kSuperblockSize ||
      LittleEndian<uint16_t>(bytes, 56) != EXT2_SUPER_MAGIC) {
    refuse("it is none of ext2, ext3 or ext4");
  }
  const auto log_size = LittleEndian<uint32_t>(bytes, 24);
  if (log_size > 6) refuse("the size of a block");
  const uint64_t block = uint64_t{1024} << log_size;
  uint64_t blocks = LittleEndian<uint32_t>(bytes, 4);
  const auto incompatible = LittleEndian<uint32_t>(bytes, 96);
  if ((incompatible & EXT4_FEATURE_INCOMPAT_64BIT) != 0) {
    blocks |= uint64_t{LittleEndian<uint32_t>(bytes, 0x150)} << 32;
  }
  if (blocks == 0 || blocks > size_ / block) {
    refuse(
        fmt::format("{} blocks of {} bytes in {} bytes", blocks, block, size_));
  }
  const auto per_group = LittleEndian<uint32_t>(bytes, 32);
  if (per_group < 256 || blocks / per_group >= kMostGroups) {
    refuse(fmt::format("{} blocks in groups of {}", blocks, per_group));
  }
  const auto inodes_per_group = LittleEndian<uint32_t>(bytes, 40);
  if (inodes_per_group == 0 || inodes_per_group > block * 8) {
    refuse(fmt::format("{} inodes in a group", inodes_per_group));
  }
}

void ExtDevice::Open() {
  // The table of its sentences is the process's.
  [[maybe_unused]] static const bool kTold = [] {
    initialize_ext2_error_table();
    return true;
  }();
  CheckSuperblock();
  t_opening = this;
  const errcode_t code =
      ext2fs_open2("disk", nullptr, EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP, 0, 0,
                   Manager(), &fs_);
  t_opening = nullptr;
  if (code != 0) fs_ = nullptr;
  Check(code, kCannotOpen);
}

void ExtDevice::Check(errcode_t code, const std::string& what) {
  if (const auto failure = std::exchange(failure_, nullptr); failure) {
    std::rethrow_exception(failure);
  }
  if (code == 0) return;
  if (code == EXT2_ET_NO_MEMORY) throw std::bad_alloc();
  const int number = code == EXT2_ET_FILE_NOT_FOUND ? ENOENT
                     : code == EXT2_ET_NO_DIRECTORY ? ENOTDIR
                                                    : EIO;
  throw Error(number, fmt::format("{}: the file system on the disk is damaged, "
                                  "or of a kind that is not known here: {}",
                                  what, error_message(code)));
}

std::string ExtDevice::Read(uint64_t offset, size_t length) {
  if (offset >= size_) return "";
  length = std::min<uint64_t>(length, size_ - offset);
  std::string bytes = read_(offset, length);
  if (detours_.empty()) return bytes;
  const uint64_t end = offset + bytes.size();
  for (auto at = detours_.lower_bound(offset / detour_size_);
       at != detours_.end() && at->first * detour_size_ < end; ++at) {
    std::string block = read_(at->second.block * detour_size_, detour_size_);
    if (block.size() < detour_size_) return "";
    if (at->second.escaped) {
      constexpr std::string_view kMagic("\xc0\x3b\x39\x98", 4);
      block.replace(0, kMagic.size(), kMagic);
    }
    const uint64_t start = at->first * detour_size_;
    const uint64_t from = std::max(offset, start);
    const uint64_t to = std::min(end, start + detour_size_);
    bytes.replace(from - offset, to - from, block, from - start, to - from);
  }
  return bytes;
}

}  // namespace sbxfs
