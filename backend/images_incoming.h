#ifndef SBXFS_BACKEND_IMAGES_INCOMING_H_
#define SBXFS_BACKEND_IMAGES_INCOMING_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "backend/image/image_file.h"
#include "backend/image/unpack.h"
#include "backend/images.h"

namespace sbxfs {

// The volumes of an image: itself, the mark beside it while it is written, and
// what came in where that has to be converted.
inline constexpr std::string_view kImageVolume = "image.";
inline constexpr std::string_view kMarkVolume = "partial.";
inline constexpr std::string_view kForeignVolume = "foreign.";
[[nodiscard]] std::string ImageVolume(std::string_view name);
[[nodiscard]] std::string MarkVolume(std::string_view name);
[[nodiscard]] std::string ForeignVolume(std::string_view name);

// A volume's bytes in pieces: a header's many small reads come from one.
[[nodiscard]] ReadAt ReaderOf(Storage& storage, const std::string& volume);

// An image on its way into the pool: unpacked while it comes in, then
// converted where QEMU could not use it under a disk. Blocks; one thread at a
// time. Destroyed before Finish succeeded, it leaves nothing behind.
class Images::Incoming {
 public:
  Incoming(Images& images, std::string name);
  ~Incoming();
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  // How many bytes will come, where that is known.
  void Expect(uint64_t bytes) { expected_ = bytes; }
  // Front to back: ESPIPE for what lies behind.
  void Write(uint64_t offset, std::string_view bytes);
  // A sparse source's holes; cp leaves them out and sets the length.
  void Fill(uint64_t offset);
  void Finish();

 private:
  // What was unpacked.
  void Take(std::string_view bytes);
  void Begin();
  void Send(std::string_view bytes);
  [[noreturn]] void ThrowFull();
  void Convert();

  Images& images_;
  Storage& storage_;
  const std::string name_;
  const std::string what_;  // begins sentences
  Unpacker unpacker_;
  uint64_t written_ = 0;   // as it came
  uint64_t unpacked_ = 0;  // bytes of the image in it
  uint64_t room_ = 0;      // bytes that the pool had free
  std::string head_;       // until it is known where it goes
  std::string format_;     // what it is to be converted from; empty: it is not
  std::unique_ptr<VolumeUpload> upload_;
  uint64_t expected_ = 0;
  bool finished_ = false;
  std::optional<Error> full_;  // why nothing more is taken
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGES_INCOMING_H_
