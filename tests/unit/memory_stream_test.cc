#include "backend/memory_stream.h"

#include <gmock/gmock.h>

#include <cerrno>
#include <initializer_list>
#include <string>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

std::string BigEndian(uint64_t number, int size) {
  std::string out;
  for (int i = size - 1; i >= 0; --i) {
    out += static_cast<char>(number >> (8 * i) & 0xff);
  }
  return out;
}

std::string NameOf(std::string_view name) {
  return BigEndian(name.size(), 1) + std::string(name);
}

std::string BlockOf(std::string_view name, uint64_t size) {
  return NameOf(name) + BigEndian(size, 8);
}

const std::string kSection = BigEndian(2, 4);
const std::string kFooter = BigEndian(0x7e, 1) + kSection;
const std::string kLast = BigEndian(0x10, 8);

std::string StreamHead() {
  return "QEVM" + BigEndian(3, 4) + BigEndian(7, 1) + BigEndian(4, 4) + "q35!";
}

std::string PageOf(uint64_t at, std::string_view block, char fill) {
  const std::string where = block.empty()
                                ? BigEndian(at | 0x08 | 0x20, 8)
                                : BigEndian(at | 0x08, 8) + NameOf(block);
  return where + std::string(kGuestPage, fill);
}

std::string ZeroOf(uint64_t at, std::string_view block) {
  return (block.empty() ? BigEndian(at | 0x02 | 0x20, 8)
                        : BigEndian(at | 0x02, 8) + NameOf(block)) +
         std::string(1, '\0');
}

// As QEMU writes it: the blocks, then their pages, then the devices.
struct Stream {
  std::string memory = "pc.ram";
  std::string pages = PageOf(0, "pc.ram", 'a') + ZeroOf(0x1000, "") +
                      PageOf(0x3000, "", 'b') + PageOf(0, "vga", 'v') +
                      PageOf(0x2000, "pc.ram", 'c');
  std::string devices = "the devices";

  [[nodiscard]] std::string Text() const {
    return StreamHead() + BigEndian(1, 1) + kSection + NameOf("ram") +
           BigEndian(0, 4) + BigEndian(4, 4) + BigEndian(0x5000 | 4, 8) +
           BlockOf(memory, 0x4000) + BlockOf("vga", 0x1000) + kLast + kFooter +
           BigEndian(3, 1) + kSection + pages + kLast + kFooter + devices;
  }
};

TEST(MemoryStream, MainMemoryComesOutAndTheRestStays) {
  const std::string text = Stream().Text();
  const SplitMemory split = SplitStream(text);
  EXPECT_EQ(split.size, 0x4000U);
  ASSERT_EQ(split.pages.size(), 4U);
  EXPECT_EQ(text.substr(split.pages[0], kGuestPage),
            std::string(kGuestPage, 'a'));
  EXPECT_EQ(split.pages[1], 0U);
  EXPECT_EQ(text.substr(split.pages[2], kGuestPage),
            std::string(kGuestPage, 'c'));
  EXPECT_EQ(text.substr(split.pages[3], kGuestPage),
            std::string(kGuestPage, 'b'));
  Stream rest;
  rest.memory = kWarmMemory;
  rest.pages = PageOf(0, "vga", 'v');
  EXPECT_EQ(split.rest, rest.Text());
}

TEST(MemoryStream, ALaterPageCounts) {
  Stream twice;
  twice.pages += PageOf(0, "pc.ram", 'z') + ZeroOf(0x3000, "");
  const std::string text = twice.Text();
  const SplitMemory split = SplitStream(text);
  EXPECT_EQ(text[split.pages[0]], 'z');
  EXPECT_EQ(split.pages[3], 0U);
}

TEST(MemoryStream, WhatIsCutOrUnknownIsRefused) {
  const std::string whole = Stream().Text();
  const size_t devices = Stream().devices.size();
  for (size_t size = 0; size < whole.size() - devices; size += 7) {
    EXPECT_THROW((void)SplitStream(whole.substr(0, size)), Error) << size;
  }
  Stream beyond;
  beyond.pages += PageOf(0x4000, "pc.ram", 'x');
  Stream packed;  // RAM_SAVE_FLAG_COMPRESS_PAGE
  packed.pages = BigEndian(0x100, 8) + NameOf("pc.ram");
  Stream other;
  other.memory = "mach-virt.ram";
  // More memory than there is anywhere, in a stream of a few bytes.
  std::string huge = Stream().Text();
  huge.replace(huge.find(BigEndian(0x5000 | 4, 8)), 8,
               BigEndian((uint64_t{1} << 60) + 0x1000 + 4, 8));
  huge.replace(huge.find(BlockOf("pc.ram", 0x4000)), 15,
               BlockOf("pc.ram", uint64_t{1} << 60));
  for (const std::string& text :
       {beyond.Text(), packed.Text(), other.Text(), huge}) {
    try {
      (void)SplitStream(text);
      ADD_FAILURE() << "it was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EIO);
      EXPECT_THAT(error.Sentence(),
                  testing::StartsWith("Cannot split a guest's memory: "));
    }
  }
}

TEST(MemoryStream, TheMacIsReplacedEverywhere) {
  const std::string from("\x52\x54\x00\x01\x02\x03", 6);
  const std::string to("\x52\x54\x00\x0a\x0b\xcc", 6);
  EXPECT_EQ(WithMac("x" + from + from + "y", "52:54:00:01:02:03",
                    "52:54:00:0a:0b:cc"),
            "x" + to + to + "y");
  EXPECT_EQ(WithMac("x" + from, "", "52:54:00:0a:0b:cc"), "x" + from);
}

}  // namespace
}  // namespace sbxfs
