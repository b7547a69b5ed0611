#include "backend/packed_text.h"

#include <zstd.h>

#include <memory>
#include <new>

#include "backend/util/mutex.h"

namespace sbxfs {
namespace {

constexpr int kPackedLevel = 1;  // higher ones gain little over a dictionary

struct FreePacker {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// The dictionary of a kind and what works with it. Never destroyed: texts of
// static objects may be looked at later than that.
class Packer {
 public:
  std::string Pack(std::string_view text) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (packing_ == nullptr) Learn(text);
    std::string packed(ZSTD_compressBound(text.size()), '\0');
    const size_t size =
        ZSTD_compress_usingCDict(packer_.get(), packed.data(), packed.size(),
                                 text.data(), text.size(), packing_);
    if (ZSTD_isError(size) != 0) throw std::bad_alloc();
    // Not `resize`, which keeps the room.
    return packed.substr(0, size);
  }

  std::string Unpack(std::string_view packed) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    std::string text(ZSTD_getFrameContentSize(packed.data(), packed.size()),
                     '\0');
    const size_t size =
        ZSTD_decompress_usingDDict(unpacker_.get(), text.data(), text.size(),
                                   packed.data(), packed.size(), unpacking_);
    if (ZSTD_isError(size) != 0) throw std::bad_alloc();
    return text;
  }

 private:
  // The dictionaries have copies of their own.
  void Learn(std::string_view text) REQUIRES(mutex_) {
    packer_.reset(ZSTD_createCCtx());
    unpacker_.reset(ZSTD_createDCtx());
    if (packer_ == nullptr || unpacker_ == nullptr) throw std::bad_alloc();
    unpacking_ = ZSTD_createDDict(text.data(), text.size());
    packing_ = ZSTD_createCDict(text.data(), text.size(), kPackedLevel);
    if (unpacking_ == nullptr || packing_ == nullptr) throw std::bad_alloc();
  }

  Mutex mutex_;
  std::unique_ptr<ZSTD_CCtx, FreePacker> packer_ GUARDED_BY(mutex_);
  std::unique_ptr<ZSTD_DCtx, FreePacker> unpacker_ GUARDED_BY(mutex_);
  ZSTD_CDict* packing_ GUARDED_BY(mutex_) = nullptr;
  ZSTD_DDict* unpacking_ GUARDED_BY(mutex_) = nullptr;
};

template <PackedKind kind>
Packer& PackerOf() {
  static auto* packer = new Packer;
  return *packer;
}

}  // namespace

template <PackedKind kind>
PackedText<kind>::PackedText(std::string_view text)
    : packed_(text.empty() ? "" : PackerOf<kind>().Pack(text)) {}

template <PackedKind kind>
std::string PackedText<kind>::Text() const {
  return packed_.empty() ? "" : PackerOf<kind>().Unpack(packed_);
}

template class PackedText<PackedKind::kDomainXml>;
template class PackedText<PackedKind::kMetadata>;

}  // namespace sbxfs
