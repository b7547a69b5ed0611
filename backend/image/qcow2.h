#ifndef SBXFS_BACKEND_IMAGE_QCOW2_H_
#define SBXFS_BACKEND_IMAGE_QCOW2_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "backend/image/byte_source.h"

namespace sbxfs {

// A qcow2 image, by docs/interop/qcow2.txt of QEMU. Reads metadata and what is
// asked for; trusts nothing. Not thread-safe; `file` must outlive it.
class Qcow2 {
 public:
  [[nodiscard]] static bool Is(std::string_view head);

  // Reads the header and the L1 table of an image that stands alone. Throws
  // Error(EINVAL) for what cannot be a base image: see InspectImage.
  explicit Qcow2(const ByteSource& file) : Qcow2(file, nullptr, false) {}
  // The same of a layer on what `below` reads, all of which there is: a disk is
  // infinite here, and zeros beyond its end. Without it, of one that stands
  // alone. It may be marked as in use or as corrupt: that is of the counts of
  // references, which nobody needs who only reads.
  Qcow2(const ByteSource& file, ReadAt below)
      : Qcow2(file, std::move(below), true) {}

  // Looks at every table. Throws Error(EINVAL) when one, or a cluster it
  // points to, is not in the file.
  void CheckTables() const;

  [[nodiscard]] uint64_t VirtualSize() const { return size_; }
  // Up to `length` bytes of the disk; zeros where nothing was written. Throws
  // Error(EINVAL) for a cluster that cannot be read.
  [[nodiscard]] std::string Read(uint64_t offset, size_t length) const;

 private:
  // What one entry of an L2 table says.
  struct Cluster {
    enum class Kind { kZero, kPlain, kCompressed } kind = Kind::kZero;
    uint64_t offset = 0;       // in the file
    uint64_t length = 0;       // in the file, of kCompressed
    uint32_t subclusters = 0;  // of kPlain: a bit for each part with data
    // A bit for each part that what is below shows through.
    uint32_t through = 0;
  };

  Qcow2(const ByteSource& file, ReadAt below, bool layer);
  void ReadHeader();
  void CheckFeatures(std::string_view header);
  void ReadL1(std::string_view header);
  void CheckRefcounts() const;
  void CheckLast(const Cluster& last) const;
  // The L2 tables' offsets in the file and their numbers, by offset.
  [[nodiscard]] std::vector<std::pair<uint64_t, uint64_t>> L2Tables() const;
  [[nodiscard]] Cluster Decode(std::string_view l2, uint64_t index) const;
  // How much of a plain cluster at `guest_offset` has to be in the file.
  [[nodiscard]] uint64_t Needed(const Cluster& cluster,
                                uint64_t guest_offset) const;
  // Of a cluster, what lies at that offset of the disk.
  [[nodiscard]] std::string ReadPart(const Cluster& cluster, uint64_t offset,
                                     size_t length) const;
  // All of a compressed one; good until the next call.
  [[nodiscard]] const std::string& Unpacked(const Cluster& cluster) const;
  // The whole cluster; empty when it is damaged.
  [[nodiscard]] std::string Decompress(std::string_view bytes) const;
  [[noreturn]] void RefuseCut(std::string_view what) const;

  const ByteSource& file_;
  const ReadAt below_;
  const bool layer_;
  uint32_t version_ = 0;
  uint64_t cluster_size_ = 0;
  unsigned cluster_bits_ = 0;
  uint64_t size_ = 0;
  uint64_t refcount_offset_ = 0;
  uint64_t refcount_clusters_ = 0;
  bool extended_l2_ = false;
  bool zstd_ = false;
  uint64_t l2_entries_ = 0;
  mutable std::string unpacked_;
  mutable uint64_t unpacked_from_ = 0;
  std::vector<uint64_t> l1_;  // offsets, 0 for none; as many as size_ needs
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGE_QCOW2_H_
