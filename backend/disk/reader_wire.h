#ifndef SBXFS_BACKEND_DISK_READER_WIRE_H_
#define SBXFS_BACKEND_DISK_READER_WIRE_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/disk/disk_chain.h"
#include "backend/file_tree.h"

// What the daemon and the process that reads a disk for it say to each other,
// over a socket. Neither believes the other: all is bounded, and what is not
// understood throws Error(EIO).

namespace sbxfs {

enum class Say : uint8_t {
  // The daemon asks; the other answers each with kAnswer or kError.
  kOpen,    // the files of the chain
  kLook,    // a path
  kList,    // a path
  kTarget,  // a path
  kSpace,
  kFind,    // a path
  kRead,    // number, offset, size
  kAnswer,  // what the question's function returns
  kError,   // errno, sentence
  // Meanwhile that one asks for bytes: file, offset, size.
  kWant,
  kBytes,    // all that there are of them
  kNoBytes,  // they cannot be read
};

// The most that a file is read of at once.
inline constexpr size_t kMostRead = 1 << 20;

class WireWriter {
 public:
  WireWriter& Number(uint64_t number);
  WireWriter& Text(std::string_view text);
  WireWriter& Facts(const FileFacts& facts);
  WireWriter& Space(const FileSpace& space);
  WireWriter& Files(const std::vector<ChainFile>& files);
  [[nodiscard]] const std::string& Bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : left_(bytes) {}
  [[nodiscard]] uint64_t Number();
  [[nodiscard]] std::string Text();
  // With a mode that has a type, and times that a clock has.
  [[nodiscard]] FileFacts Facts();
  [[nodiscard]] FileSpace Space();
  [[nodiscard]] std::vector<ChainFile> Files();
  [[nodiscard]] bool Empty() const { return left_.empty(); }

 private:
  std::string_view left_;
};

struct WireMessage {
  Say say = Say::kError;
  std::string bytes;
};

using WireDeadline = std::chrono::steady_clock::time_point;
// Throws Error(EIO) when the other end is gone.
void SendMessage(int fd, Say say, std::string_view bytes);
// The same, and Error(ETIMEDOUT) when `deadline` has passed.
[[nodiscard]] WireMessage ReceiveMessage(int fd, WireDeadline deadline);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_READER_WIRE_H_
