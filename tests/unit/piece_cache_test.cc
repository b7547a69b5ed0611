#include "backend/disk/piece_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

constexpr uint64_t kPieceSize = 256 * 1024;

// A file of pieces, the bytes of each being its number, and who fetched what.
class PieceCacheTest : public testing::Test {
 protected:
  static std::string Bytes(uint64_t offset, uint64_t size) {
    std::string bytes;
    for (uint64_t i = offset; i < offset + size; ++i) {
      bytes += static_cast<char>(i / kPieceSize);
    }
    return bytes;
  }
  PiecedFile File(const std::shared_ptr<PieceCache>& cache,
                  const std::string& name, uint64_t pieces) {
    return {cache, name, pieces * kPieceSize - 100,
            [this](uint64_t offset, uint64_t size) {
              fetched_.emplace_back(offset / kPieceSize,
                                    (size + kPieceSize - 1) / kPieceSize);
              if (size > most_) throw Error(EIO, "Cannot read");
              return Bytes(offset, size);
            }};
  }
  using Fetched = std::vector<std::pair<uint64_t, uint64_t>>;
  Fetched fetched_;
  uint64_t most_ = UINT64_MAX;
};

TEST_F(PieceCacheTest, FetchesMoreTheLongerItIsReadFrontToBack) {
  const auto cache = std::make_shared<PieceCache>(1 << 30);
  PiecedFile file = File(cache, "a", 18);
  for (uint64_t at = 0; at < 18 * kPieceSize; at += 100'000) {
    const std::string got = file.Read(at, 100'000);
    EXPECT_EQ(got, Bytes(at, std::min<uint64_t>(100'000,
                                                18 * kPieceSize - 100 - at)));
  }
  // The first two are of somebody who begins at the begin.
  EXPECT_EQ(fetched_, (Fetched{{0, 2}, {2, 4}, {6, 4}, {10, 4}, {14, 4}}));
  EXPECT_EQ(file.Read(18 * kPieceSize, 1), "");
  EXPECT_EQ(fetched_.size(), 5U);
  // Another who reads the same file; and another file.
  PiecedFile same = File(cache, "a", 18);
  (void)same.Read(12 * kPieceSize, 3 * kPieceSize);
  EXPECT_EQ(fetched_.size(), 5U);
  PiecedFile other = File(cache, "b", 40);
  (void)other.Read(20 * kPieceSize, 10);
  EXPECT_EQ(fetched_.back(), (std::pair<uint64_t, uint64_t>{20, 1}));
}

TEST_F(PieceCacheTest, FetchesLittleHereAndThere) {
  const auto cache = std::make_shared<PieceCache>(1 << 30);
  PiecedFile file = File(cache, "a", 40);
  for (const uint64_t piece : {7, 3, 30, 12}) {
    EXPECT_EQ(file.Read(piece * kPieceSize + 5, 1),
              Bytes(piece * kPieceSize, 1));
  }
  EXPECT_EQ(fetched_, (Fetched{{7, 1}, {3, 1}, {30, 1}, {12, 1}}));
}

TEST_F(PieceCacheTest, ForgetsWhatWasUsedLongest) {
  const auto cache = std::make_shared<PieceCache>(3 * kPieceSize);
  PiecedFile file = File(cache, "a", 40);
  for (const uint64_t piece : {9, 5, 3}) (void)file.Read(piece * kPieceSize, 1);
  (void)file.Read(9 * kPieceSize, 1);
  (void)file.Read(20 * kPieceSize, 1);
  EXPECT_EQ(fetched_.size(), 4U);
  (void)file.Read(9 * kPieceSize, 1);
  EXPECT_EQ(fetched_.size(), 4U);
  (void)file.Read(5 * kPieceSize, 1);
  EXPECT_EQ(fetched_.size(), 5U);
}

TEST_F(PieceCacheTest, KeepsNothingOfAFailure) {
  const auto cache = std::make_shared<PieceCache>(1 << 30);
  PiecedFile file = File(cache, "a", 40);
  most_ = 0;
  EXPECT_THROW((void)file.Read(7 * kPieceSize, 1), Error);
  most_ = UINT64_MAX;
  EXPECT_EQ(file.Read(7 * kPieceSize, 1), Bytes(7 * kPieceSize, 1));
}

}  // namespace
}  // namespace sbxfs
