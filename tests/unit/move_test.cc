// What a disk stands on, under another name.
#include "backend/move.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class WithBackingTest : public testing::Test {
 protected:
  void SetUp() override {
    if (system("command -v qemu-img qemu-io >/dev/null") != 0) {
      GTEST_SKIP() << "qemu-img is missing";
    }
    std::string name = testing::TempDir() + "/sbxfs-move.XXXXXX";
    dir_ = mkdtemp(name.data());
    ASSERT_TRUE(
        Shell("qemu-img create -q -f qcow2 base 1M && "
              "qemu-io -c 'write -P 7 0 64k' base && "
              "qemu-img create -q -f qcow2 -b base -F qcow2 over && "
              "qemu-io -c 'write -P 8 64k 64k' over"));
  }
  void TearDown() override {
    if (!dir_.empty()) stdfs::remove_all(dir_);
  }
  [[nodiscard]] bool Shell(const std::string& command) const {
    return system(("cd " + dir_.string() + " && { " + command +
                   "; } >/dev/null 2>&1")
                      .c_str()) == 0;
  }
  // `over`, standing on `backing`.
  void Rebase(const std::string& backing) const {
    std::stringstream bytes;
    bytes << std::ifstream(dir_ / "over", std::ios::binary).rdbuf();
    const std::string text = bytes.str();
    std::ofstream(dir_ / "over", std::ios::binary)
        << WithBacking(text.substr(0, 65536), backing) << text.substr(65536);
  }

  stdfs::path dir_;
};

TEST_F(WithBackingTest, LeavesTheRestAsItWas) {
  for (const std::string& name :
       {std::string("b"), std::string("a/much/longer/name/of/a/directory/base"),
        std::string("./") + std::string(200, 'n')}) {
    stdfs::create_directories((dir_ / name).parent_path());
    stdfs::copy_file(dir_ / "base", dir_ / name);
    Rebase(name);
    EXPECT_TRUE(
        Shell("qemu-img check over && "
              "qemu-io -c 'read -P 7 0 64k' -c 'read -P 8 64k 64k' "
              "over | grep -v failed && "
              "! qemu-io -c 'read -P 7 0 64k' over | grep failed"))
        << name;
    EXPECT_TRUE(
        Shell("qemu-img info over | grep -qx 'backing file: " + name + ".*'"))
        << name;
  }
}

TEST_F(WithBackingTest, RefusesWhatHasNone) {
  EXPECT_THROW((void)WithBacking("", "x"), Error);
  EXPECT_THROW((void)WithBacking(std::string(65536, 'x'), "x"), Error);
  std::stringstream bytes;
  bytes << std::ifstream(dir_ / "base", std::ios::binary).rdbuf();
  EXPECT_THROW((void)WithBacking(bytes.str().substr(0, 65536), "x"), Error);
  bytes.str("");
  bytes << std::ifstream(dir_ / "over", std::ios::binary).rdbuf();
  EXPECT_THROW(
      (void)WithBacking(bytes.str().substr(0, 65536), std::string(1024, 'x')),
      Error);
}

}  // namespace
}  // namespace sbxfs
