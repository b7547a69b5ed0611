#include "backend/disk/reader_wire.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "backend/image/byte_source.h"
#include "backend/util/error.h"
#include "backend/util/socket.h"

namespace sbxfs {
namespace {

constexpr size_t kMostMessage = 64 << 20;
constexpr size_t kWireHead = 5;  // its size and what it is

[[noreturn]] void ThrowWire(std::string_view why) {
  throw Error(EIO, fmt::format("Cannot read the disk: {}", why));
}

int64_t Nanoseconds(std::chrono::system_clock::time_point time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}
std::chrono::system_clock::time_point TimeOfNanoseconds(uint64_t number) {
  return std::chrono::system_clock::time_point(
      std::chrono::nanoseconds(static_cast<int64_t>(number)));
}

// Appends `size` bytes, as they come.
void ReceiveInto(int fd, std::string& bytes, size_t size,
                 WireDeadline deadline) {
  char part[64 * 1024];
  while (size > 0) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd poller{fd, POLLIN, 0};
    constexpr int64_t kLongest = 1'000'000;
    const int ready =
        poll(&poller, 1,
             static_cast<int>(std::clamp<int64_t>(left.count(), 0, kLongest)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) {
      if (std::chrono::steady_clock::now() < deadline) continue;
      throw Error(ETIMEDOUT,
                  "Cannot read the disk: it takes too long; its file system "
                  "may be damaged: start the sandbox to have it checked");
    }
    const ssize_t got = recv(fd, part, std::min(size, sizeof part), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      ThrowWire(
          "what read its file system has ended; that may be damaged: start "
          "the sandbox to have it checked");
    }
    bytes.append(part, static_cast<size_t>(got));
    size -= static_cast<size_t>(got);
  }
}

}  // namespace

WireWriter& WireWriter::Number(uint64_t number) {
  for (int i = 0; i < 8; ++i) bytes_ += static_cast<char>(number >> (8 * i));
  return *this;
}

WireWriter& WireWriter::Text(std::string_view text) {
  Number(text.size());
  bytes_ += text;
  return *this;
}

WireWriter& WireWriter::Facts(const FileFacts& facts) {
  return Number(facts.number)
      .Number(facts.mode)
      .Number(facts.links)
      .Number(facts.uid)
      .Number(facts.gid)
      .Number(facts.size)
      .Number(facts.blocks)
      .Number(static_cast<uint64_t>(Nanoseconds(facts.read)))
      .Number(static_cast<uint64_t>(Nanoseconds(facts.modified)));
}

WireWriter& WireWriter::Space(const FileSpace& space) {
  for (const auto field : kSpaceFields) Number(space.*field);
  return *this;
}

WireWriter& WireWriter::Files(const std::vector<ChainFile>& files) {
  Number(files.size());
  for (const ChainFile& file : files) {
    Text(file.name).Number(file.size).Text(file.format);
  }
  return *this;
}

uint64_t WireReader::Number() {
  if (left_.size() < 8) ThrowWire("its reader's words are cut short");
  const auto number = LittleEndian<uint64_t>(left_, 0);
  left_.remove_prefix(8);
  return number;
}

std::string WireReader::Text() {
  const uint64_t size = Number();
  if (size > left_.size()) ThrowWire("its reader's words are cut short");
  std::string text(left_.substr(0, size));
  left_.remove_prefix(size);
  return text;
}

FileSpace WireReader::Space() {
  FileSpace space;
  for (const auto field : kSpaceFields) space.*field = Number();
  return space;
}

FileFacts WireReader::Facts() {
  FileFacts facts;
  facts.number = Number();
  facts.mode = static_cast<mode_t>(Number());
  facts.links = static_cast<nlink_t>(Number());
  facts.uid = static_cast<uid_t>(Number());
  facts.gid = static_cast<gid_t>(Number());
  facts.size = std::min<uint64_t>(Number(), INT64_MAX);
  facts.blocks = std::min<uint64_t>(Number(), INT64_MAX / 512);
  facts.read = TimeOfNanoseconds(Number());
  facts.modified = TimeOfNanoseconds(Number());
  constexpr mode_t kTypes[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR,
                               S_IFBLK, S_IFIFO, S_IFSOCK};
  if (std::find(std::begin(kTypes), std::end(kTypes), facts.mode & S_IFMT) ==
      std::end(kTypes)) {
    ThrowWire("its reader speaks of a file of no kind");
  }
  facts.mode &= S_IFMT | 07777;
  return facts;
}

std::vector<ChainFile> WireReader::Files() {
  std::vector<ChainFile> files;
  for (uint64_t left = Number(); left > 0; --left) {
    ChainFile file;
    file.name = Text();
    file.size = Number();
    file.format = Text();
    files.push_back(std::move(file));
  }
  return files;
}

void SendMessage(int fd, Say say, std::string_view bytes) {
  std::string head;
  for (int i = 0; i < 4; ++i) {
    head += static_cast<char>(bytes.size() >> (8 * i));
  }
  head += static_cast<char>(say);
  if (bytes.size() > kMostMessage) ThrowWire("there is too much to tell");
  // Small ones in one piece: the other end wakes up once.
  const bool small = bytes.size() <= 4096;
  if (small) head += bytes;
  if (!SendAll(fd, head) || (!small && !SendAll(fd, bytes))) {
    ThrowWire("what read its file system has ended");
  }
}

WireMessage ReceiveMessage(int fd, WireDeadline deadline) {
  std::string head;
  ReceiveInto(fd, head, kWireHead, deadline);
  const auto size = LittleEndian<uint32_t>(head, 0);
  const auto say = LittleEndian<uint8_t>(head, 4);
  if (size > kMostMessage || say > static_cast<uint8_t>(Say::kNoBytes)) {
    ThrowWire("its reader's words make no sense");
  }
  WireMessage message{static_cast<Say>(say), {}};
  ReceiveInto(fd, message.bytes, size, deadline);
  return message;
}

}  // namespace sbxfs
