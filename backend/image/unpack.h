#ifndef SBXFS_BACKEND_IMAGE_UNPACK_H_
#define SBXFS_BACKEND_IMAGE_UNPACK_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace sbxfs {

// Unpacks what gzip, xz, zstd or bzip2 packed, told by its first bytes, while
// it comes in; all else passes as it is. Several packed pieces in a row are one
// file, as to those programs. Not thread-safe.
class Unpacker {
 public:
  using Sink = std::function<void(std::string_view)>;
  // `name` stands in sentences. `sink` gets the bytes in order and may throw.
  Unpacker(std::string name, Sink sink);
  ~Unpacker();
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;

  // Throws Error(EINVAL) for what cannot be unpacked, and what `sink` throws;
  // it is of no use then.
  void Add(std::string_view bytes);
  // There are no more. The same errors.
  void Finish();
  // Whether it is unpacked, as far as is known.
  [[nodiscard]] bool Packed() const { return stage_ != nullptr; }

  class Stage;

 private:
  void Begin();
  void Give(std::string_view bytes);
  [[noreturn]] void RefuseDamaged() const;

  const std::string name_;
  const Sink sink_;
  bool begun_ = false;
  std::string head_;              // until it is known what it is
  std::unique_ptr<Stage> stage_;  // null: none is needed
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGE_UNPACK_H_
