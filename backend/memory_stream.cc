#include "backend/memory_stream.h"

#include <cerrno>
#include <charconv>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

// The main memory of a guest that booted, or that went on from such a split.
bool IsMain(std::string_view block) {
  return block == "pc.ram" || block == kWarmMemory;
}
constexpr std::string_view kPageBits = "configuration/target-page-bits";
// Kinds of sections.
constexpr uint8_t kStart = 1, kPart = 2, kEnd = 3, kSubsection = 5,
                  kConfiguration = 7, kFooter = 0x7e;
// Flags of a page, in the low bits of its address.
constexpr uint64_t kFlags = kGuestPage - 1;
constexpr uint64_t kZero = 0x02, kMemSize = 0x04, kPage = 0x08, kLast = 0x10,
                   kSameBlock = 0x20;

[[noreturn]] void Refuse(const char* why) {
  throw Error(EIO, std::string("Cannot split a guest's memory: ") + why);
}

// Big-endian, as the stream has all its numbers.
class Cursor {
 public:
  explicit Cursor(std::string_view bytes) : bytes_(bytes) {}

  [[nodiscard]] size_t At() const { return at_; }
  [[nodiscard]] uint8_t Peek() const {
    if (at_ >= bytes_.size()) Refuse("it is cut short");
    return static_cast<uint8_t>(bytes_[at_]);
  }
  std::string_view Take(uint64_t size) {
    if (size > bytes_.size() - at_) Refuse("it is cut short");
    const std::string_view taken = bytes_.substr(at_, size);
    at_ += size;
    return taken;
  }
  uint64_t Number(int size) {
    uint64_t number = 0;
    for (const char c : Take(size)) number = number << 8 | (c & 0xff);
    return number;
  }
  // A length of one byte, and so many.
  std::string_view Name() { return Take(Number(1)); }

 private:
  std::string_view bytes_;
  size_t at_ = 0;
};

void PutNumber(std::string& out, uint64_t number, int size) {
  for (int i = size - 1; i >= 0; --i) {
    out += static_cast<char>(number >> (8 * i) & 0xff);
  }
}

void PutName(std::string& out, std::string_view name) {
  PutNumber(out, name.size(), 1);
  out += name;
}

class Splitter {
 public:
  explicit Splitter(std::string_view stream) : stream_(stream), in_(stream) {}

  SplitMemory Split() {
    Configuration();
    Blocks();
    while (Pages()) {
    }
    split_.rest += stream_.substr(in_.At());
    return std::move(split_);
  }

 private:
  void Configuration() {
    if (in_.Take(4) != "QEVM") Refuse("it is no migration stream");
    split_.rest = "QEVM";
    const uint64_t version = in_.Number(4);
    if (version != 3) Refuse("its version is not 3");
    PutNumber(split_.rest, version, 4);
    if (in_.Number(1) != kConfiguration) Refuse("it has no configuration");
    PutNumber(split_.rest, kConfiguration, 1);
    const uint64_t length = in_.Number(4);
    PutNumber(split_.rest, length, 4);
    split_.rest += in_.Take(length);
    while (in_.Peek() == kSubsection) {
      const size_t begin = in_.At();
      in_.Take(1);
      if (in_.Name() != kPageBits) Refuse("its configuration is not known");
      in_.Take(4 + 4);  // version, bits
      split_.rest += stream_.substr(begin, in_.At() - begin);
    }
  }

  // The section that tells the blocks of memory.
  void Blocks() {
    const size_t begin = in_.At();
    if (in_.Number(1) != kStart) Refuse("it does not begin with the memory");
    section_ = in_.Take(4);
    if (in_.Name() != "ram") Refuse("it does not begin with the memory");
    in_.Take(4 + 4);  // instance, version
    const uint64_t head = in_.Number(8);
    if ((head & kFlags) != kMemSize) Refuse("it tells no size");
    split_.rest += stream_.substr(begin, in_.At() - begin);
    for (uint64_t left = head & ~kFlags; left > 0;) {
      const std::string_view name = in_.Name();
      const uint64_t size = in_.Number(8);
      if (size == 0 || size > left) Refuse("its sizes are wrong");
      if (IsMain(name)) split_.size = size;
      PutName(split_.rest, IsMain(name) ? kWarmMemory : name);
      PutNumber(split_.rest, size, 8);
      left -= size;
    }
    if (split_.size == 0 || split_.size % kGuestPage != 0) {
      Refuse("it has no main memory");
    }
    // Each page takes some bytes of the stream, if all in it are zeros.
    if (split_.size / kGuestPage > stream_.size())
      Refuse("its sizes are wrong");
    split_.pages.resize(split_.size / kGuestPage);
  }

  // Those up to the next footer; false when they were the last.
  bool Pages() {
    for (;;) {
      const uint64_t head = in_.Number(8);
      uint64_t flags = head & kFlags;
      if (flags == kLast) return Footer();
      if ((flags & kSameBlock) == 0) block_ = in_.Name();
      flags &= ~kSameBlock;
      if (flags != kZero && flags != kPage) Refuse("it has pages of new kinds");
      const size_t at = in_.At();
      const std::string_view data = in_.Take(flags == kPage ? kGuestPage : 1);
      if (IsMain(block_)) {
        const uint64_t page = (head & ~kFlags) / kGuestPage;
        if (page >= split_.pages.size()) Refuse("it has pages beyond its end");
        split_.pages[page] = flags == kPage ? at : 0;
      } else {
        PutNumber(split_.rest, (head & ~kFlags) | flags, 8);
        PutName(split_.rest, block_);
        split_.rest += data;
      }
    }
  }

  bool Footer() {
    PutNumber(split_.rest, kLast, 8);
    const size_t begin = in_.At();
    if (in_.Number(1) != kFooter || in_.Take(4) != section_) {
      Refuse("a section ends too early");
    }
    const bool last = ended_;
    if (!last) {
      const uint64_t kind = in_.Number(1);
      if ((kind != kPart && kind != kEnd) || in_.Take(4) != section_) {
        Refuse("its sections are in another order");
      }
      ended_ = kind == kEnd;
    }
    split_.rest += stream_.substr(begin, in_.At() - begin);
    return !last;
  }

  std::string_view stream_;
  Cursor in_;
  SplitMemory split_;
  std::string_view section_;
  std::string_view block_;  // of the last page
  bool ended_ = false;      // the last part has begun
};

// Empty for what is no address.
std::string MacBytes(std::string_view mac) {
  std::string bytes;
  for (size_t at = 0; at + 2 <= mac.size(); at += 3) {
    unsigned byte = 0;
    std::from_chars(mac.data() + at, mac.data() + at + 2, byte, 16);
    bytes += static_cast<char>(byte);
  }
  return bytes.size() == 6 ? bytes : "";
}

}  // namespace

SplitMemory SplitStream(std::string_view stream) {
  return Splitter(stream).Split();
}

std::string WithMac(std::string rest, std::string_view mac,
                    std::string_view other) {
  const std::string from = MacBytes(mac);
  const std::string to = MacBytes(other);
  if (from.empty() || to.empty()) return rest;
  for (size_t at = rest.find(from); at != std::string::npos;
       at = rest.find(from, at + from.size())) {
    rest.replace(at, from.size(), to);
  }
  return rest;
}

}  // namespace sbxfs
