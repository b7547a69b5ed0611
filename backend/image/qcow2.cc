#include "backend/image/qcow2.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <memory>

namespace sbxfs {
namespace {

constexpr std::string_view kMagic("QFI\xfb", 4);
constexpr size_t kHeader2 = 72;   // bytes of a version 2 header
constexpr size_t kHeader3 = 104;  // at least, of a version 3 header

// Incompatible features.
constexpr uint64_t kDirty = 1, kCorrupt = 2, kDataFile = 4, kCompression = 8,
                   kExtendedL2 = 16;

// QEMU's own limits, in bytes.
constexpr uint64_t kMaxL1 = 32 << 20, kMaxRefcountTable = 8 << 20;

constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;
constexpr uint64_t kCompressedBit = uint64_t{1} << 62;
constexpr uint64_t kZeroBit = 1;

struct ZstdDeleter {
  void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
};

}  // namespace

bool Qcow2::Is(std::string_view head) { return head.starts_with(kMagic); }

Qcow2::Qcow2(const ByteSource& file, ReadAt below, bool layer)
    : file_(file), below_(std::move(below)), layer_(layer) {
  ReadHeader();
}

void Qcow2::RefuseCut(std::string_view what) const {
  file_.Refuse(
      fmt::format("it is cut short: {} lies beyond its end at {} bytes; fetch "
                  "or copy it again",
                  what, file_.size));
}

void Qcow2::ReadHeader() {
  std::string header = file_.UpTo(0, kHeader3 + 8);
  if (header.size() < kHeader2) RefuseCut("its header");
  version_ = BigEndian<uint32_t>(header, 4);
  if (version_ < 2) {
    file_.Refuse(
        "it is a qcow image of the first version; convert it by qemu-img "
        "convert -f qcow -O qcow2 IN OUT");
  }
  if (version_ > 3) {
    file_.Refuse(
        fmt::format("its qcow2 version is {}; known are 2 and 3", version_));
  }
  if (version_ == 3 && header.size() < kHeader3) RefuseCut("its header");
  header.resize(kHeader3 + 8);
  CheckFeatures(header);
  cluster_bits_ = BigEndian<uint32_t>(header, 20);
  if (cluster_bits_ < 9 || cluster_bits_ > 21) {
    file_.Refuse(fmt::format("its header is damaged: clusters of 2^{} bytes",
                             cluster_bits_));
  }
  cluster_size_ = uint64_t{1} << cluster_bits_;
  l2_entries_ = cluster_size_ / (extended_l2_ ? 16 : 8);
  refcount_offset_ = BigEndian<uint64_t>(header, 48);
  refcount_clusters_ = BigEndian<uint32_t>(header, 56);
  ReadL1(header);
}

void Qcow2::CheckFeatures(std::string_view header) {
  if (BigEndian<uint64_t>(header, 8) != 0 && !below_) {
    file_.Refuse(
        "it has a backing file, so it is not the whole disk; flatten it by "
        "qemu-img convert -O qcow2 IN OUT where that file is");
  }
  if (BigEndian<uint32_t>(header, 32) != 0) {
    file_.Refuse(
        "it is encrypted; decrypt it by qemu-img convert --object "
        "secret,id=s,data=PASSWORD --image-opts "
        "driver=qcow2,file.filename=IN,encrypt.key-secret=s -O qcow2 OUT");
  }
  if (version_ < 3) return;
  const uint64_t features = BigEndian<uint64_t>(header, 72);
  if ((features & kDataFile) != 0) {
    file_.Refuse(
        "its data is in another file; join them by qemu-img convert -O qcow2 "
        "IN OUT where that file is");
  }
  if ((features & (kDirty | kCorrupt)) != 0 && !layer_) {
    file_.Refuse(fmt::format(
        "it is marked as {}; repair it by qemu-img check -r all FILE",
        (features & kCorrupt) != 0 ? "corrupt"
                                   : "in use, or left so by a crash"));
  }
  const uint64_t known = kDirty | kCorrupt | kCompression | kExtendedL2;
  if ((features & ~known) != 0) {
    file_.Refuse(fmt::format(
        "it needs qcow2 features that are unknown here (bits {:#x}); write it "
        "anew by qemu-img convert -O qcow2 IN OUT",
        features & ~known));
  }
  extended_l2_ = (features & kExtendedL2) != 0;
  const unsigned type = BigEndian<uint32_t>(header, 100) > kHeader3
                            ? BigEndian<uint8_t>(header, kHeader3)
                            : 0;
  if (type > 1 || (type != 0) != ((features & kCompression) != 0)) {
    file_.Refuse(fmt::format(
        "its compression type {} is unknown; known are zlib and zstd", type));
  }
  zstd_ = type == 1;
}

void Qcow2::ReadL1(std::string_view header) {
  size_ = BigEndian<uint64_t>(header, 24);
  const uint64_t entries = BigEndian<uint32_t>(header, 36);
  const uint64_t offset = BigEndian<uint64_t>(header, 40);
  // One entry covers at most 2^39 bytes: no overflow.
  const uint64_t covered = cluster_size_ * l2_entries_;
  const uint64_t needed = size_ / covered + (size_ % covered != 0 ? 1 : 0);
  if (size_ == 0) file_.Refuse("its disk has no size");
  if (size_ > INT64_MAX || entries * 8 > kMaxL1 || entries < needed ||
      offset % cluster_size_ != 0) {
    file_.Refuse(
        fmt::format("its header is damaged: an L1 table of {} entries at {} "
                    "for a disk of {} bytes",
                    entries, offset, size_));
  }
  if (!file_.Has(offset, entries * 8)) RefuseCut("its L1 table");
  const std::string table = file_.At(offset, needed * 8);
  l1_.reserve(needed);
  for (uint64_t i = 0; i < needed; ++i) {
    l1_.push_back(BigEndian<uint64_t>(table, i * 8) & kOffsetMask);
  }
}

std::vector<std::pair<uint64_t, uint64_t>> Qcow2::L2Tables() const {
  std::vector<std::pair<uint64_t, uint64_t>> tables;
  for (uint64_t i = 0; i < l1_.size(); ++i) {
    if (l1_[i] == 0) continue;
    if (l1_[i] % cluster_size_ != 0) {
      file_.Refuse(fmt::format("its L1 table is damaged at entry {}", i));
    }
    if (!file_.Has(l1_[i], cluster_size_)) RefuseCut("an L2 table");
    tables.emplace_back(l1_[i], i);
  }
  std::sort(tables.begin(), tables.end());
  // Besides being damage, it would let a small image ask for endless reading.
  for (size_t i = 1; i < tables.size(); ++i) {
    if (tables[i].first == tables[i - 1].first) {
      file_.Refuse(
          fmt::format("its L1 table is damaged: entries {} and {} are the same",
                      tables[i - 1].second, tables[i].second));
    }
  }
  return tables;
}

Qcow2::Cluster Qcow2::Decode(std::string_view l2, uint64_t index) const {
  const size_t width = extended_l2_ ? 16 : 8;
  const auto entry = BigEndian<uint64_t>(l2, index * width);
  Cluster cluster;
  if ((entry & kCompressedBit) != 0) {
    // The offset takes the low bits, the number of further sectors the rest.
    const unsigned shift = 62 - (cluster_bits_ - 8);
    cluster.kind = Cluster::Kind::kCompressed;
    cluster.offset = entry & ((uint64_t{1} << shift) - 1);
    const uint64_t sectors = ((entry & (kCompressedBit - 1)) >> shift) + 1;
    cluster.length = sectors * 512 - cluster.offset % 512;
    return cluster;
  }
  cluster.offset = entry & kOffsetMask;
  if (cluster.offset % cluster_size_ != 0) {
    file_.Refuse(
        fmt::format("it is damaged: a cluster at {}, which is no "
                    "multiple of {}",
                    cluster.offset, cluster_size_));
  }
  if (extended_l2_) {
    const auto bits = BigEndian<uint64_t>(l2, index * width + 8);
    cluster.subclusters = static_cast<uint32_t>(bits & ~(bits >> 32));
    cluster.through = static_cast<uint32_t>(~(bits | bits >> 32));
  } else if (version_ < 3 || (entry & kZeroBit) == 0) {
    cluster.subclusters = UINT32_MAX;
    cluster.through = cluster.offset == 0 ? UINT32_MAX : 0;
  }
  if (cluster.offset != 0 && cluster.subclusters != 0) {
    cluster.kind = Cluster::Kind::kPlain;
  }
  return cluster;
}

uint64_t Qcow2::Needed(const Cluster& cluster, uint64_t guest_offset) const {
  const uint64_t parts = 32 - std::countl_zero(cluster.subclusters);
  // QEMU does not write what lies beyond the disk's end in its last cluster.
  return std::min(cluster_size_ / 32 * parts, size_ - guest_offset);
}

void Qcow2::CheckTables() const {
  CheckRefcounts();
  Cluster last;
  for (const auto& [table, number] : L2Tables()) {
    const std::string l2 = file_.At(table, cluster_size_);
    for (uint64_t i = 0; i < l2_entries_; ++i) {
      const uint64_t guest_offset = (number * l2_entries_ + i) * cluster_size_;
      if (guest_offset >= size_) break;
      const Cluster cluster = Decode(l2, i);
      if (cluster.kind == Cluster::Kind::kPlain) {
        if (!file_.Has(cluster.offset, Needed(cluster, guest_offset))) {
          RefuseCut(fmt::format("the cluster of byte {}", guest_offset));
        }
      } else if (cluster.kind == Cluster::Kind::kCompressed &&
                 cluster.offset >= last.offset) {
        last = cluster;
      }
    }
  }
  if (last.kind == Cluster::Kind::kCompressed) CheckLast(last);
}

// The length of a compressed cluster is in sectors, and the file may end
// within the last one: whether it is all there shows when it is unpacked.
void Qcow2::CheckLast(const Cluster& last) const {
  if (file_.Has(last.offset, last.length)) return;
  if (!file_.Has(last.offset,
                 last.length - std::min<uint64_t>(last.length, 511)) ||
      Decompress(file_.UpTo(last.offset, last.length)).empty()) {
    RefuseCut("its last compressed cluster");
  }
}

void Qcow2::CheckRefcounts() const {
  const uint64_t bytes = refcount_clusters_ * cluster_size_;
  if (bytes == 0 || bytes > kMaxRefcountTable ||
      refcount_offset_ % cluster_size_ != 0) {
    file_.Refuse("its header is damaged: no sound refcount table");
  }
  if (!file_.Has(refcount_offset_, bytes)) RefuseCut("its refcount table");
  const std::string table = file_.At(refcount_offset_, bytes);
  for (uint64_t i = 0; i < bytes; i += 8) {
    const uint64_t block = BigEndian<uint64_t>(table, i) & ~uint64_t{511};
    if (block != 0 && !file_.Has(block, cluster_size_)) {
      RefuseCut("a refcount block");
    }
  }
}

std::string Qcow2::Read(uint64_t offset, size_t length) const {
  std::string out;
  while (out.size() < length && offset < size_) {
    const uint64_t index = offset >> cluster_bits_;
    const uint64_t table = l1_[index / l2_entries_];
    Cluster cluster;
    cluster.through = UINT32_MAX;
    if (table != 0) {
      if (!file_.Has(table, cluster_size_)) RefuseCut("an L2 table");
      const size_t width = extended_l2_ ? 16 : 8;
      cluster = Decode(file_.At(table + index % l2_entries_ * width, width), 0);
    }
    const uint64_t skip = offset % cluster_size_;
    const std::string bytes =
        ReadPart(cluster, offset,
                 std::min({uint64_t{length - out.size()}, cluster_size_ - skip,
                           size_ - offset}));
    out += bytes;
    offset += bytes.size();
  }
  return out;
}

std::string Qcow2::ReadPart(const Cluster& cluster, uint64_t offset,
                            size_t length) const {
  const uint64_t skip = offset % cluster_size_;
  if (cluster.kind == Cluster::Kind::kCompressed) {
    return Unpacked(cluster).substr(skip, length);
  }
  if (below_ && cluster.through == UINT32_MAX) return below_(offset, length);
  std::string bytes;
  if (cluster.kind == Cluster::Kind::kPlain) {
    if (!file_.Has(cluster.offset, Needed(cluster, offset - skip))) {
      RefuseCut(fmt::format("the cluster of byte {}", offset - skip));
    }
    bytes = file_.UpTo(cluster.offset + skip, length);
  }
  bytes.resize(length);
  if (cluster.kind == Cluster::Kind::kPlain &&
      cluster.subclusters == UINT32_MAX) {
    return bytes;
  }
  const uint64_t part = cluster_size_ / 32;
  for (unsigned i = 0; i < 32; ++i) {
    const uint64_t begin = std::max(i * part, skip);
    const uint64_t end = std::min((i + 1) * part, skip + length);
    if (begin >= end || (cluster.subclusters >> i & 1) != 0) continue;
    if (below_ && (cluster.through >> i & 1) != 0) {
      bytes.replace(begin - skip, end - begin,
                    below_(offset - skip + begin, end - begin));
    } else {
      bytes.replace(begin - skip, end - begin, end - begin, '\0');
    }
  }
  return bytes;
}

const std::string& Qcow2::Unpacked(const Cluster& cluster) const {
  // Whoever reads on wants the next part of the same one.
  if (unpacked_.empty() || unpacked_from_ != cluster.offset) {
    unpacked_ = Decompress(file_.UpTo(cluster.offset, cluster.length));
    unpacked_from_ = cluster.offset;
  }
  if (unpacked_.empty()) {
    file_.Refuse(fmt::format(
        "it is damaged: the compressed cluster at {} cannot be unpacked",
        cluster.offset));
  }
  return unpacked_;
}

std::string Qcow2::Decompress(std::string_view bytes) const {
  std::string out(cluster_size_, '\0');
  if (zstd_) {
    const std::unique_ptr<ZSTD_DStream, ZstdDeleter> stream(
        ZSTD_createDStream());
    if (!stream) throw std::bad_alloc();
    ZSTD_inBuffer from{bytes.data(), bytes.size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    while (to.pos < to.size) {
      const size_t before = from.pos + to.pos;
      const size_t more = ZSTD_decompressStream(stream.get(), &to, &from);
      if (ZSTD_isError(more) != 0 || from.pos + to.pos == before) return "";
    }
    return out;
  }
  z_stream stream{};
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  inflate(&stream, Z_FINISH);
  const bool whole = stream.avail_out == 0;
  inflateEnd(&stream);
  return whole ? out : "";
}

}  // namespace sbxfs
