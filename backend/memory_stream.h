#ifndef SBXFS_BACKEND_MEMORY_STREAM_H_
#define SBXFS_BACKEND_MEMORY_STREAM_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// QEMU's migration stream, which a save image of libvirt's ends with, in two:
// the pages of the machine's main memory, and all the rest, which is small. A
// QEMU that has that memory from a file takes the rest for the whole. Source:
// migration/savevm.c and migration/ram.c of QEMU 7.2. Pure functions, which
// throw Error(EIO) for what they do not know.

namespace sbxfs {

// The main memory's id in the rest: that of the object it is to come from.
inline constexpr char kWarmMemory[] = "warm.ram";
inline constexpr uint64_t kGuestPage = 4096;

struct SplitMemory {
  uint64_t size = 0;  // of the main memory, bytes
  // Where in the stream each page of it begins; 0: it is all zeros.
  std::vector<uint64_t> pages;
  std::string rest;  // a migration stream
};
// Of a PC's stream, of which nothing was compressed.
[[nodiscard]] SplitMemory SplitStream(std::string_view stream);

// The rest, with another MAC address wherever it has that one: in the NIC's
// state and in what the user-mode network has leased.
[[nodiscard]] std::string WithMac(std::string rest, std::string_view mac,
                                  std::string_view other);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_MEMORY_STREAM_H_
