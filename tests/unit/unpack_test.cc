#include "backend/image/unpack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPackers[] = {"gzip", "xz", "zstd", "bzip2"};

// Words that none of them packs to nothing, then zeros.
std::string Content() {
  std::mt19937 random(7);
  std::string bytes;
  while (bytes.size() < 600'000) {
    bytes += static_cast<char>('a' + random() % 16);
  }
  return bytes + std::string(300'000, '\0');
}

// In pieces of `piece` bytes.
std::string Unpack(const std::string& bytes, size_t piece) {
  std::string out;
  Unpacker unpacker("x.img", [&](std::string_view more) { out += more; });
  for (size_t at = 0; at < bytes.size(); at += piece) {
    unpacker.Add(std::string_view(bytes).substr(at, piece));
  }
  unpacker.Finish();
  return out;
}
int ErrnoOf(const std::string& bytes) {
  try {
    (void)Unpack(bytes, 4096);
    return 0;
  } catch (const Error& error) {
    EXPECT_THAT(error.Sentence(),
                testing::StartsWith("Cannot use 'x.img': it is compressed"));
    return error.Errno();
  }
}

class UnpackTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (system((std::string("command -v ") + GetParam() + " >/dev/null")
                   .c_str()) != 0) {
      GTEST_SKIP() << GetParam() << " is missing";
    }
    std::string name = testing::TempDir() + "/sbxfs-unpack.XXXXXX";
    dir_ = mkdtemp(name.data());
  }
  void TearDown() override {
    if (!dir_.empty()) fs::remove_all(dir_);
  }
  [[nodiscard]] std::string Pack(const std::string& bytes) const {
    std::ofstream(dir_ / "in", std::ios::binary) << bytes;
    const std::string dir = dir_.string();
    EXPECT_EQ(system((std::string(GetParam()) + " -c <" + dir + "/in >" + dir +
                      "/out")
                         .c_str()),
              0);
    std::stringstream out;
    out << std::ifstream(dir_ / "out", std::ios::binary).rdbuf();
    return out.str();
  }
  fs::path dir_;
};

TEST_P(UnpackTest, HoweverItComesIn) {
  const std::string content = Content();
  const std::string packed = Pack(content);
  EXPECT_LT(packed.size(), content.size() * 9 / 10);
  for (const size_t piece : {size_t{7}, size_t{4096}, packed.size()}) {
    EXPECT_TRUE(Unpack(packed, piece) == content) << piece;
  }
  EXPECT_TRUE(Unpack(packed + packed, 100'000) == content + content);
  EXPECT_EQ(Unpack(Pack(""), 4096), "");
  // Of whole buffers.
  const std::string zeros(4 << 20, '\0');
  EXPECT_TRUE(Unpack(Pack(zeros), 1000) == zeros);
}

TEST_P(UnpackTest, CutShortOrDamagedIsRefused) {
  const std::string packed = Pack(Content());
  for (const size_t missing : {size_t{1}, size_t{3}, packed.size() / 2}) {
    EXPECT_EQ(ErrnoOf(packed.substr(0, packed.size() - missing)), EINVAL)
        << missing;
  }
  for (const size_t at : {packed.size() / 3, packed.size() / 2}) {
    std::string damaged = packed;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    EXPECT_EQ(ErrnoOf(damaged), EINVAL) << at;
  }
  EXPECT_EQ(ErrnoOf(packed + "something else follows"), EINVAL);
}

// A few bytes that unpack to very many are stopped by whoever takes them.
TEST_P(UnpackTest, TheSinkEndsIt) {
  const std::string packed = Pack(std::string(50 << 20, '\0'));
  uint64_t taken = 0;
  Unpacker unpacker("x.img", [&](std::string_view more) {
    taken += more.size();
    if (taken > 1 << 20) throw std::out_of_range("enough");
  });
  EXPECT_THROW(
      {
        unpacker.Add(packed);
        unpacker.Finish();
      },
      std::out_of_range);
  EXPECT_LT(taken, 2 << 20);
}

INSTANTIATE_TEST_SUITE_P(All, UnpackTest, testing::ValuesIn(kPackers),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

TEST(Unpack, OtherBytesPass) {
  for (const std::string& bytes :
       {std::string(), std::string("\x1f"), std::string("BZhello, boot code"),
        std::string("QFI\xfb\0\0\0\3 and more", 17), Content()}) {
    EXPECT_TRUE(Unpack(bytes, 3) == bytes);
  }
}

}  // namespace
}  // namespace sbxfs
