#include "backend/disk/ext_files.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "backend/disk/ext_device.h"
#include "backend/disk/ext_journal.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

constexpr size_t kLongestPath = 4096;
constexpr size_t kLongestTarget = 4096;
// A directory is listed at once, in memory.
constexpr size_t kMostNames = 1 << 18;
constexpr size_t kMostKnown = 1024;

struct Closer {
  void operator()(ext2_file_t file) const { ext2fs_file_close(file); }
};
using ExtFile = std::unique_ptr<std::remove_pointer_t<ext2_file_t>, Closer>;

std::string CannotDo(std::string_view verb, const std::string& path) {
  return fmt::format("Cannot {} '/{}'", verb, path);
}

[[noreturn]] void ThrowNumber(int number, const std::string& what,
                              std::string_view why) {
  throw Error(number, fmt::format("{}: {}", what, why));
}

// `extra` has two more bits of the seconds, and the nanoseconds.
std::chrono::system_clock::time_point TimeOf(uint32_t low, uint32_t extra) {
  int64_t seconds = static_cast<int32_t>(low);
  seconds += int64_t{extra & EXT4_EPOCH_MASK} << 32;
  // Later than 2262 is more than a clock here tells.
  constexpr int64_t kLast = INT64_MAX / 1'000'000'000 - 1;
  const auto rest = std::min<int64_t>(extra >> EXT4_EPOCH_BITS, 999'999'999);
  return std::chrono::system_clock::time_point(
      std::chrono::seconds(std::min(seconds, kLast)) +
      std::chrono::nanoseconds(rest));
}

bool IsKnownType(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      return true;
    default:
      return false;
  }
}

void RefuseEncrypted(const ext2_inode_large& inode, const std::string& what) {
  if ((inode.i_flags & EXT4_ENCRYPT_FL) == 0) return;
  ThrowNumber(EACCES, what,
              "it is encrypted by a key that its guest alone has; start the "
              "sandbox to read it");
}

}  // namespace

ExtFiles::ExtFiles(ReadAt read, uint64_t size)
    : device_(std::make_unique<ExtDevice>(std::move(read), size)) {
  ExtDetours detours = ReplayJournal(*device_);
  replayed_ = detours.size();
  if (!detours.empty()) device_->Reopen(std::move(detours));
}

ExtFiles::~ExtFiles() = default;

ext2_inode_large ExtFiles::Inode(uint32_t number, const std::string& what) {
  ext2_inode_large inode;
  std::memset(&inode, 0, sizeof inode);
  device_->Check(ext2fs_read_inode_full(device_->Get(), number,
                                        reinterpret_cast<ext2_inode*>(&inode),
                                        sizeof inode),
                 what);
  return inode;
}

std::vector<ExtFiles::Name> ExtFiles::Names(uint32_t directory, size_t most,
                                            const std::string& what,
                                            std::string_view only) {
  struct Search {
    std::vector<Name> names;
    size_t most;
    std::string_view only;
    ExtDevice* device;
    bool full = false;
  } search{{}, most, only, device_.get()};
  const auto add = [](ext2_ino_t, int, ext2_dir_entry* entry, int, int, char*,
                      void* data) {
    auto& found = *static_cast<Search*>(data);
    try {
      const std::string_view name(entry->name, ext2fs_dirent_name_len(entry));
      // What no file can be called is damage, and would mislead whoever opens
      // it.
      if (name.empty() || name == "." || name == ".." ||
          name.find('/') != name.npos || name.find('\0') != name.npos ||
          (!found.only.empty() && name != found.only)) {
        return 0;
      }
      found.full = found.names.size() == found.most;
      if (found.full) return DIRENT_ABORT;
      found.names.push_back({std::string(name), entry->inode});
      return found.only.empty() ? 0 : DIRENT_ABORT;
    } catch (...) {
      found.device->NoteFailure();
      return DIRENT_ABORT;
    }
  };
  device_->Check(
      ext2fs_dir_iterate2(device_->Get(), directory, 0, nullptr, +add, &search),
      what);
  if (search.full) {
    ThrowNumber(EOVERFLOW, what,
                fmt::format("it has more than {} names; start the sandbox to "
                            "list it",
                            most));
  }
  return std::move(search.names);
}

uint32_t ExtFiles::Search(uint32_t directory, std::string_view name,
                          const std::string& what) {
  const ext2_inode_large inode = Inode(directory, what);
  if (!S_ISDIR(inode.i_mode)) {
    ThrowNumber(ENOTDIR, what, "a part of its path is no directory");
  }
  RefuseEncrypted(inode, what);
  const std::vector<Name> found = Names(directory, 1, what, name);
  if (found.empty()) {
    ThrowNumber(ENOENT, what, "there is no such file on the disk");
  }
  return found.front().number;
}

uint32_t ExtFiles::Resolve(const std::string& path) {
  const std::string what = CannotDo("find", path);
  if (path.size() >= kLongestPath) {
    ThrowNumber(ENAMETOOLONG, what, "its path is too long");
  }
  uint32_t number = EXT2_ROOT_INO;
  size_t begin = 0;
  if (const size_t last = path.rfind('/'); last != path.npos) {
    const auto known = known_.find(path.substr(0, last));
    if (known != known_.end()) {
      number = known->second;
      begin = last + 1;
    }
  }
  while (begin < path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (end > begin) {
      number = Search(number, std::string_view(path).substr(begin, end - begin),
                      what);
      if (end < path.size()) {
        if (known_.size() == kMostKnown) known_.clear();
        known_[path.substr(0, end)] = number;
      }
    }
    begin = end + 1;
  }
  return number;
}

FileFacts ExtFiles::Facts(uint32_t number, const ext2_inode_large& inode) {
  ext2_inode_large copy = inode;
  auto* const plain = reinterpret_cast<ext2_inode*>(&copy);
  FileFacts facts;
  facts.number = number;
  facts.mode = inode.i_mode;
  facts.links = inode.i_links_count;
  facts.uid = inode_uid(copy);
  facts.gid = inode_gid(copy);
  facts.size = EXT2_I_SIZE(plain);
  facts.blocks = ext2fs_get_stat_i_blocks(device_->Get(), plain);
  const size_t there =
      EXT2_INODE_SIZE(device_->Get()->super) > EXT2_GOOD_OLD_INODE_SIZE
          ? EXT2_GOOD_OLD_INODE_SIZE + inode.i_extra_isize
          : EXT2_GOOD_OLD_INODE_SIZE;
  const bool extra = inode_includes(there, i_atime_extra);
  facts.read = TimeOf(inode.i_atime, extra ? inode.i_atime_extra : 0);
  facts.modified = TimeOf(inode.i_mtime, extra ? inode.i_mtime_extra : 0);
  if (!IsKnownType(facts.mode)) {
    // It is listed, and whoever opens it is told.
    facts.mode = S_IFREG;
    facts.size = 0;
  }
  return facts;
}

FileFacts ExtFiles::Look(const std::string& path) {
  const uint32_t number = Resolve(path);
  return Facts(number, Inode(number, CannotDo("look at", path)));
}

std::vector<FileTree::Entry> ExtFiles::List(const std::string& path) {
  const std::string what = CannotDo("list", path);
  const uint32_t number = Resolve(path);
  const ext2_inode_large inode = Inode(number, what);
  if (!S_ISDIR(inode.i_mode)) ThrowNumber(ENOTDIR, what, "it is no directory");
  RefuseEncrypted(inode, what);
  std::vector<FileTree::Entry> list;
  for (auto& [name, file] : Names(number, kMostNames, what)) {
    FileFacts facts;
    facts.number = file;
    facts.mode = S_IFREG;
    try {
      facts = Facts(file, Inode(file, what));
    } catch (const Error& error) {
      // The others can be listed, and this one says so when it is opened; but
      // not where the disk itself cannot be read.
      if (error.Errno() != EIO) throw;
    }
    list.push_back({std::move(name), facts});
  }
  return list;
}

std::string ExtFiles::ReadBytes(uint32_t number, ext2_inode_large& inode,
                                uint64_t offset, size_t size,
                                const std::string& what) {
  auto* const plain = reinterpret_cast<ext2_inode*>(&inode);
  const uint64_t whole = EXT2_I_SIZE(plain);
  if (offset >= whole) return "";
  std::string bytes(std::min<uint64_t>(size, whole - offset), '\0');
  ext2_file_t raw = nullptr;
  device_->Check(ext2fs_file_open2(device_->Get(), number, plain, 0, &raw),
                 what);
  const ExtFile file(raw);
  device_->Check(ext2fs_file_llseek(raw, offset, EXT2_SEEK_SET, nullptr), what);
  size_t done = 0;
  while (done < bytes.size()) {
    unsigned got = 0;
    device_->Check(
        ext2fs_file_read(raw, bytes.data() + done,
                         static_cast<unsigned>(bytes.size() - done), &got),
        what);
    if (got == 0) break;
    done += got;
  }
  bytes.resize(done);
  return bytes;
}

FileSpace ExtFiles::Space() const {
  ext2_super_block* super = device_->Get()->super;
  FileSpace space;
  space.block = device_->BlockSize();
  space.blocks = ext2fs_blocks_count(super);
  space.free = ext2fs_free_blocks_count(super);
  space.available =
      space.free - std::min<uint64_t>(space.free, ext2fs_r_blocks_count(super));
  space.files = super->s_inodes_count;
  space.free_files = super->s_free_inodes_count;
  return space;
}

std::string ExtFiles::Target(const std::string& path) {
  const std::string what = CannotDo("read the link", path);
  const uint32_t number = Resolve(path);
  ext2_inode_large inode = Inode(number, what);
  if (!S_ISLNK(inode.i_mode)) {
    ThrowNumber(EINVAL, what, "it is no symbolic link");
  }
  RefuseEncrypted(inode, what);
  auto* const plain = reinterpret_cast<ext2_inode*>(&inode);
  const uint64_t size = EXT2_I_SIZE(plain);
  if (size == 0 || size > kLongestTarget) {
    ThrowNumber(EIO, what, "its inode is damaged");
  }
  std::string target;
  if (ext2fs_is_fast_symlink(plain) != 0) {
    if (size > sizeof inode.i_block) {
      ThrowNumber(EIO, what, "its inode is damaged");
    }
    target.assign(reinterpret_cast<const char*>(inode.i_block), size);
  } else {
    target = ReadBytes(number, inode, 0, size, what);
  }
  // As the kernel has it.
  target.resize(std::min(target.find('\0'), target.size()));
  if (target.empty()) ThrowNumber(EIO, what, "its inode is damaged");
  return target;
}

uint64_t ExtFiles::Find(const std::string& path) {
  const std::string what = CannotDo("open", path);
  const uint32_t number = Resolve(path);
  const ext2_inode_large inode = Inode(number, what);
  if (S_ISDIR(inode.i_mode)) ThrowNumber(EISDIR, what, "it is a directory");
  if (S_ISLNK(inode.i_mode)) ThrowNumber(ELOOP, what, "it is a symbolic link");
  if (!IsKnownType(inode.i_mode)) {
    ThrowNumber(EIO, what, "its inode is damaged");
  }
  if (!S_ISREG(inode.i_mode)) {
    ThrowNumber(ENXIO, what, "it is no regular file, and its guest rests");
  }
  RefuseEncrypted(inode, what);
  return number;
}

std::string ExtFiles::Read(uint64_t number, uint64_t offset, size_t size) {
  const std::string what = fmt::format("Cannot read file {}", number);
  if (number > UINT32_MAX) ThrowNumber(EBADF, what, "there is none");
  ext2_inode_large inode = Inode(static_cast<uint32_t>(number), what);
  if (!S_ISREG(inode.i_mode)) {
    ThrowNumber(EBADF, what, "it is no regular file");
  }
  RefuseEncrypted(inode, what);
  return ReadBytes(static_cast<uint32_t>(number), inode, offset, size, what);
}

}  // namespace sbxfs
