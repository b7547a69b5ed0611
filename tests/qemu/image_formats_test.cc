// Images as they are found on servers: compressed, and of other formats.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class ImageFormatsTest : public BlankGuests {
 protected:
  void SetUp() override {
    BlankGuests::SetUp();
    if (mount_ == nullptr) return;
    files_ = Dir().string() + ".files";
    stdfs::create_directory(files_);
    // A disk that differs from zeros all over.
    std::string disk = BlankDisk();
    std::mt19937 random(3);
    for (size_t at = 4096; at < disk.size(); ++at) {
      disk[at] = static_cast<char>('a' + random() % 8);
    }
    disk.resize(8 << 20);
    std::ofstream(File("disk.raw"), std::ios::binary) << disk;
  }
  void TearDown() override {
    if (mount_ != nullptr) {
      for (const auto& entry : stdfs::directory_iterator(Host() / "images")) {
        if (entry.path().filename() == "blank") continue;
        unlink(entry.path().c_str());
      }
    }
    BlankGuests::TearDown();
    stdfs::remove_all(files_);
  }
  [[nodiscard]] stdfs::path File(const std::string& name) const {
    return files_ / name;
  }
  [[nodiscard]] stdfs::path Image(const std::string& name) const {
    return Host() / "images" / name;
  }
  static void Run(const std::string& command) {
    const Ended ended = RunProgram({"sh", "-c", command});
    ASSERT_EQ(ended.status, 0) << command << ": " << ended.err;
  }
  // As qemu-img sees them, format and all.
  [[nodiscard]] std::string Difference(const std::string& name,
                                       const std::string& format) const {
    const std::string copy = File(name + ".out").string();
    const Ended cp = RunProgram({"cp", Image(name).string(), copy});
    if (cp.status != 0) return cp.err;
    return RunProgram({"qemu-img", "compare", "-f", format, "-F", "raw", copy,
                       File("disk.raw").string()})
        .out;
  }
  [[nodiscard]] std::string LastError() const {
    const std::string error = ReadText(Host() / "error");
    return error.substr(0, error.find('\n'));
  }
  [[nodiscard]] std::string SumOf(const std::string& file) const {
    return RunProgram({"sha256sum", File(file).string()}).out.substr(0, 64);
  }
  stdfs::path files_;
};

TEST_F(ImageFormatsTest, CompressedOnesAreUnpackedOnTheWayIn) {
  const std::string dir = files_.string();
  Run("cd " + dir + " && qemu-img convert -O qcow2 disk.raw disk.qcow2");
  for (const char* packer : {"gzip", "xz", "zstd", "bzip2"}) {
    for (const char* format : {"qcow2", "raw"}) {
      const std::string name = fmt::format("{}-{}", packer, format);
      Run(fmt::format("cd {} && {} -c disk.{} >{}", dir, packer, format, name));
      const Ended cp =
          RunProgram({"cp", File(name).string(), Image(name).string()});
      EXPECT_EQ(cp.status, 0) << name << ": " << cp.err;
      EXPECT_EQ(
          RunProgram({"cmp", File(fmt::format("disk.{}", format)).string(),
                      Image(name).string()})
              .status,
          0)
          << name;
      // Seven of its eight MiB are zeros, which take no space.
      struct stat info {};
      const std::string path =
          Virsh({"vol-path", "--pool", "sbxfs", "image." + name});
      EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
      EXPECT_LT(info.st_blocks * 512, 3 << 20) << name;
      EXPECT_EQ(unlink(Image(name).c_str()), 0);
    }
  }
  EXPECT_EQ(World::Now(), before_);
}

TEST_F(ImageFormatsTest, OtherFormatsAreConverted) {
  const std::string dir = files_.string();
  for (const char* format : {"vmdk", "vmdk -o subformat=streamOptimized", "vdi",
                             "vpc", "qed", "qcow"}) {
    const std::string name = std::string(format).substr(0, 4);
    Run(fmt::format("cd {} && qemu-img convert -O {} disk.raw {}", dir, format,
                    name));
    const Ended cp =
        RunProgram({"cp", File(name).string(), Image(name).string()});
    EXPECT_EQ(cp.status, 0) << format << ": " << cp.err << LastError();
    // VHD counts in cylinders: there may be zeros behind the disk.
    EXPECT_NE(Difference(name, "qcow2").find("Images are identical."),
              std::string::npos)
        << format << ": " << Difference(name, "qcow2");
    EXPECT_EQ(unlink(Image(name).c_str()), 0);
  }
  // Compressed, too, and a guest boots from it.
  Run("cd " + dir + " && qemu-img convert -O vmdk disk.raw x && gzip x");
  Mkdir("box");
  ASSERT_EQ(WriteText(Dir() / "box/config.yaml",
                      fmt::format("images:\n- location: {}/x.gz\n  digest: "
                                  "sha256:{}\n",
                                  dir, SumOf("x.gz"))),
            Verdict{});
  Boot("box");
  EXPECT_EQ(Virsh({"vol-list", "sbxfs"}).find("foreign."), std::string::npos);
  Clear(Dir());
}

TEST_F(ImageFormatsTest, WhatNamesOtherFilesIsRefused) {
  const std::string dir = files_.string();
  Run("cd " + dir +
      " && qemu-img convert -O vmdk disk.raw base.vmdk"
      " && qemu-img create -f vmdk -F vmdk -b base.vmdk difference >/dev/null"
      " && qemu-img create -f qed -F raw -b disk.raw qed >/dev/null"
      " && qemu-img create -f qcow2 -F raw -b /etc/shadow qcow2 >/dev/null"
      " && qemu-img convert -O vmdk -o subformat=monolithicFlat disk.raw flat"
      " && qemu-img create -f qcow2 -o data_file=data external 4M >/dev/null");
  for (const char* name : {"difference", "qed", "qcow2", "flat", "external"}) {
    ASSERT_TRUE(stdfs::exists(File(name))) << name;
    const Ended cp =
        RunProgram({"cp", File(name).string(), Image(name).string()});
    EXPECT_NE(cp.err.find("Invalid argument"), std::string::npos)
        << name << ": " << cp.err;
    const std::string error = LastError();
    EXPECT_TRUE(error.find("another file") != std::string::npos ||
                error.find("other files") != std::string::npos ||
                error.find("backing file") != std::string::npos)
        << error;
  }
  EXPECT_TRUE(Eventually([this] { return World::Now() == before_; }));
}

// A few bytes can hold any number of them.
TEST_F(ImageFormatsTest, WhatUnpacksToMoreThanThereIsRoomForIsStopped) {
  const std::string small = File("small").string();
  Run("mkdir " + small + " && mount -t tmpfs -o size=32M small " + small);
  Virsh({"pool-create-as", "small", "dir", "--target", small});
  {
    GuestMount mount(std::string(kOptions) + ",pool=small");
    Run("cd " + files_.string() + " && head -c 64M /dev/zero | zstd >bomb");
    const stdfs::path image = mount.Dir() / ".host/images/bomb";
    const Ended cp = RunProgram({"cp", File("bomb").string(), image.string()});
    EXPECT_NE(cp.err.find("No space left on device"), std::string::npos)
        << cp.err;
    const std::string error = ReadText(mount.Dir() / ".host/error");
    EXPECT_NE(error.find("Cannot write image 'bomb': the pool 'small' is full: "
                         "more is needed than the 32MiB that were free in " +
                         small + ";"),
              std::string::npos)
        << error;
    EXPECT_TRUE(Eventually([] {
      std::istringstream lines(Virsh({"vol-list", "small"}));
      std::string name;
      std::string path;
      return lines >> name >> path && name.starts_with("hypervisor.") &&
             !(lines >> name);
    })) << Virsh({"vol-list", "small"});
  }
  Virsh({"pool-destroy", "small"});
  Run("umount " + small);
}

TEST_F(ImageFormatsTest, TheFirstSourceThatCanBeHadIsTaken) {
  Run("cd " + files_.string() + " && xz -c disk.raw >disk.raw.xz");
  Mkdir("box");
  ASSERT_EQ(WriteText(Dir() / "box/config.yaml",
                      fmt::format(
                          "images:\n"
                          "- location: absent\n"
                          "- location: /nonexistent/disk.img\n"
                          "- {{location: {0}/disk.raw, digest: 'sha256:{1}'}}\n"
                          "- {{location: {0}/disk.raw, arch: riscv64}}\n"
                          "- {{location: {0}/disk.raw.xz, digest: "
                          "'sha256:{2}', arch: x86_64}}\n",
                          files_.string(), std::string(64, '0'),
                          SumOf("disk.raw.xz"))),
            Verdict{});
  Boot("box");
  const std::string domain = ReadText(Dir() / "box/domain.xml");
  EXPECT_NE(domain.find("<sbxfs:image>disk-"), std::string::npos) << domain;
  Clear(Dir());
}

}  // namespace
}  // namespace sbxfs
