#ifndef SBXFS_TESTS_FUZZ_FUZZ_H_
#define SBXFS_TESTS_FUZZ_FUZZ_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/util/error.h"

// What the fuzz targets have in common. A target gives bytes to the parsers
// that the daemon itself uses, and ends the process by abort where one throws
// anything but an Error, or a thing does not hold that always should.

namespace sbxfs::fuzz {

// Says what does not hold, and aborts.
[[noreturn]] void Fail(std::string_view what, std::string_view text);
inline void Check(bool holds, std::string_view what,
                  std::string_view text = {}) {
  if (!holds) Fail(what, text);
}
inline void CheckSame(std::string_view a, std::string_view b,
                      std::string_view what) {
  if (a != b)
    Fail(what, std::string(a) + "\n--- is not ---\n" + std::string(b));
}

// Aborts for what could not be told to a program by its errno and to a person
// by its sentence.
void CheckError(const Error& error);

// Runs `work`; false when it refuses. `refused` is told why.
template <typename F>
bool Try(F&& work, const std::function<void(const Error&)>& refused = {}) {
  try {
    std::forward<F>(work)();
    return true;
  } catch (const Error& error) {
    CheckError(error);
    if (refused) refused(error);
    return false;
  }
}

inline std::string_view Text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Takes an input apart: choices from its bytes, one after the other; zeros when
// there are no more.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : left_(Text(data, size)) {}

  [[nodiscard]] bool Empty() const { return left_.empty(); }
  uint8_t Byte() {
    if (left_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(left_[0]);
    left_.remove_prefix(1);
    return byte;
  }
  bool Flag() { return (Byte() & 1) != 0; }
  uint64_t Number(size_t bytes) {
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; ++i) number = number << 8 | Byte();
    return number;
  }
  std::string Raw(size_t size) {
    std::string raw(left_.substr(0, size));
    left_.remove_prefix(raw.size());
    raw.resize(size, '\0');
    return raw;
  }
  // Up to the next newline, or the end.
  std::string Line() {
    const size_t end = std::min(left_.find('\n'), left_.size());
    std::string line(left_.substr(0, end));
    left_.remove_prefix(std::min(end + 1, left_.size()));
    return line;
  }
  std::string Rest() {
    std::string rest(left_);
    left_ = {};
    return rest;
  }

 private:
  std::string_view left_;
};

// --- Inputs that keep their form ---

// A number that is the same for the same seed, below `bound`.
class Dice {
 public:
  explicit Dice(unsigned seed) : state_(seed * 2654435761U + 1) {}
  size_t Roll(size_t bound);

 private:
  uint64_t state_;
};

// The parts of a text that blank lines are between.
[[nodiscard]] std::vector<std::string_view> Paragraphs(std::string_view text);

// For LLVMFuzzerCustomMutator: changes one thing in a text of lines, as an
// editor of YAML might: lines of `vocabulary` come, lines go, are put elsewhere
// or further in, and values are replaced by those of `values`. Returns the new
// size, 0 when it would be more than `most`.
size_t MutateLines(uint8_t* data, size_t size, size_t most, unsigned seed,
                   const std::vector<std::string_view>& vocabulary,
                   const std::vector<std::string_view>& values);

// The same for XML: elements of `vocabulary` come, elements go or are copied
// elsewhere, texts and attributes change. What is no XML is left to libFuzzer.
size_t MutateXml(uint8_t* data, size_t size, size_t most, unsigned seed,
                 const std::vector<std::string_view>& vocabulary,
                 const std::vector<std::string_view>& values);

// --- libvirt's schemas ---

// One of libvirt's own schemas; always content where it is not installed.
class Schema {
 public:
  // "domain", "network", …
  explicit Schema(const std::string& name);
  // Empty where `xml` passes, else why it does not.
  [[nodiscard]] std::string Refusal(std::string_view xml) const;
  [[nodiscard]] bool Passes(std::string_view xml) const {
    return Refusal(xml).empty();
  }
  void MustPass(std::string_view xml) const;

 private:
  void* schema_ = nullptr;  // never freed: it is of the whole process
};

}  // namespace sbxfs::fuzz

extern "C" {
int LLVMFuzzerInitialize(int* argc, char*** argv);
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most,
                               unsigned seed);
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);
}

#endif  // SBXFS_TESTS_FUZZ_FUZZ_H_
