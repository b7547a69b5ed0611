#include "backend/warm_split.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "backend/memory_stream.h"
#include "backend/save_image.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// A file's bytes, mapped.
class Mapped {
 public:
  Mapped(int fd, size_t size)
      : size_(size),
        bytes_(mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0)) {
    if (bytes_ == MAP_FAILED) {
      throw Error(errno, fmt::format("Cannot map a file: {}", strerror(errno)));
    }
  }
  ~Mapped() { munmap(bytes_, size_); }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  [[nodiscard]] std::string_view View() const {
    return {static_cast<const char*>(bytes_), size_};
  }

 private:
  size_t size_;
  void* bytes_;
};

void WriteAll(int fd, std::string_view bytes, const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      throw Error(errno, fmt::format("{}: {}", what, strerror(errno)));
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void UploadMemory(Core& core, const std::string& volume,
                  std::string_view stream, const SplitMemory& split,
                  const std::function<void()>& check) {
  constexpr size_t kChunk = 256 * 1024;
  core.storage.CreateOwned(volume, split.size, core.guest_uid);
  const auto upload = core.storage.Upload(volume);
  std::string chunk;
  for (const uint64_t at : split.pages) {
    if (at == 0) {
      chunk.append(kGuestPage, '\0');
    } else {
      chunk += stream.substr(at, kGuestPage);
    }
    if (chunk.size() < kChunk) continue;
    check();
    upload->Send(chunk);
    chunk.clear();
  }
  upload->Send(chunk);
  upload->Finish();
}

}  // namespace

std::string StampOf(Core& core, const std::string& volume) {
  const Volume found = core.storage.Get(volume);
  return fmt::format("{} {}", found.size,
                     std::chrono::duration_cast<std::chrono::milliseconds>(
                         found.modified.time_since_epoch())
                         .count());
}

void SplitSaved(Core& core, const std::string& saved, const std::string& memory,
                const std::string& state, WarmNote note,
                const std::function<void()>& check, const std::string& what) {
  const UniqueFd file(
      open(core.data_dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file.Get() < 0) {
    throw Error(
        errno, fmt::format("{}: {}: {}", what, core.data_dir, strerror(errno)));
  }
  size_t size = 0;
  core.storage.Download(saved, [&](std::string_view bytes) {
    check();
    WriteAll(file.Get(), bytes, what);
    size += bytes.size();
  });
  if (size < kSaveHeader) throw Error(EIO, what + ": it was saved empty");
  const Mapped mapped(file.Get(), size);
  const std::string_view image = mapped.View();
  if (IsCompressed(image)) {
    throw Error(EOPNOTSUPP,
                what +
                    ": libvirt compresses what it saves; set save_image_format "
                    "and snapshot_image_format to raw in its qemu.conf");
  }
  const std::string_view stream = image.substr(SaveHeadSize(image));
  const SplitMemory split = SplitStream(stream);
  UploadMemory(core, memory, stream, split, check);
  note.memory = memory;
  note.memory_stamp = StampOf(core, memory);
  core.storage.Write(
      state, MakeSaveHead(WithWarmNote(SavedXml(image), note)) + split.rest);
}

}  // namespace sbxfs
