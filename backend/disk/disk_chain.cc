#include "backend/disk/disk_chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

// Most is read in clusters of this size, which QEMU makes by default.
constexpr size_t kChainPiece = 64 * 1024;
constexpr size_t kFilePieces = 128;  // kept of all files: tables, mostly
constexpr size_t kLeastPieces = 4;   // of each
constexpr size_t kDiskPieces = 128;  // kept of what they show
constexpr size_t kLongestChain = 256;

}  // namespace

DiskChain::DiskChain(std::vector<ChainFile> files, ReadFileAt read) {
  if (files.empty() || files.size() > kLongestChain) {
    throw Error(
        EINVAL,
        fmt::format("Cannot read the disk: it is a chain of {} files, "
                    "where {} are the most; start the sandbox to read it",
                    files.size(), kLongestChain));
  }
  layers_.resize(files.size());
  for (size_t i = files.size(); i-- > 0;) {
    Layer& layer = layers_[i];
    layer.cache = std::make_unique<CachedRead>(
        [read, i](uint64_t offset, size_t size) {
          return read(i, offset, size);
        },
        files[i].size, kChainPiece,
        std::max(kFilePieces / files.size(), kLeastPieces));
    layer.file = {files[i].name, files[i].size,
                  [cache = layer.cache.get()](uint64_t offset, size_t size) {
                    return cache->Read(offset, size);
                  }};
    const bool last = i + 1 == files.size();
    if (files[i].format == "raw" && last) {
      layer.size = files[i].size;
      continue;
    }
    if (files[i].format != "qcow2" || !Qcow2::Is(layer.file.UpTo(0, 4))) {
      layer.file.Refuse(
          fmt::format("it is no qcow2 file, where the chain has one of {}",
                      files[i].format));
    }
    layer.image = std::make_unique<Qcow2>(
        layer.file, last ? ReadAt() : [this, i](uint64_t offset, size_t size) {
          return ReadLayer(i + 1, offset, size);
        });
    layer.size = layer.image->VirtualSize();
  }
  size_ = layers_.front().size;
  cache_ = std::make_unique<CachedRead>(
      [this](uint64_t offset, size_t size) {
        return ReadLayer(0, offset, size);
      },
      size_, kChainPiece, kDiskPieces);
}

std::string DiskChain::Read(uint64_t offset, size_t length) {
  return cache_->Read(offset, length);
}

std::string DiskChain::ReadLayer(size_t number, uint64_t offset,
                                 size_t length) {
  const Layer& layer = layers_[number];
  std::string bytes;
  if (offset < layer.size) {
    const size_t there = std::min<uint64_t>(length, layer.size - offset);
    bytes = layer.image ? layer.image->Read(offset, there)
                        : layer.file.At(offset, there);
  }
  bytes.resize(length, '\0');
  return bytes;
}

}  // namespace sbxfs
