#ifndef SBXFS_BACKEND_DISK_EXT_DEVICE_H_
#define SBXFS_BACKEND_DISK_EXT_DEVICE_H_

// libext2fs has macros and types without a prefix: for ext_*.cc alone.
#include <ext2fs/ext2fs.h>

#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "backend/image/image_file.h"

namespace sbxfs {

// Where a block is to be read instead: in the journal.
struct ExtDetour {
  uint64_t block = 0;
  bool escaped = false;  // its first four bytes are the journal's magic
};
using ExtDetours = std::map<uint64_t, ExtDetour>;
inline constexpr uint32_t kJournalMagic = 0xc03b3998;

// A file system of ext2, 3 or 4, opened by libext2fs to be read. Not
// thread-safe.
class ExtDevice {
 public:
  // `read` has `size` bytes. Throws Error(EIO) for what is no such file system,
  // or one that this library does not know, and what `read` throws.
  ExtDevice(ReadAt read, uint64_t size);
  ~ExtDevice();
  ExtDevice(const ExtDevice&) = delete;
  ExtDevice& operator=(const ExtDevice&) = delete;

  [[nodiscard]] ext2_filsys Get() const { return fs_; }
  [[nodiscard]] uint64_t BlockSize() const { return fs_->blocksize; }
  // Opens it anew with those blocks in place of what is there.
  void Reopen(ExtDetours detours);

  // Throws what `read` threw below `code`, or Error(EIO), `what` first.
  void Check(errcode_t code, const std::string& what);

  // Up to `length` bytes from `offset`, by the detours.
  [[nodiscard]] std::string Read(uint64_t offset, size_t length);
  // What went wrong below a function of the library, which can only be told by
  // a number.
  void NoteFailure() { failure_ = std::current_exception(); }

 private:
  void Open();
  void CheckSuperblock();

  const ReadAt read_;
  const uint64_t size_;
  ExtDetours detours_;
  uint64_t detour_size_ = 0;  // of a block
  ext2_filsys fs_ = nullptr;
  std::exception_ptr failure_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_EXT_DEVICE_H_
