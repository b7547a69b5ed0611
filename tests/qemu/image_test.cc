// Base images: what is taken, what is refused, and what is left of it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class ImageTest : public BlankGuests {
 protected:
  void SetUp() override {
    BlankGuests::SetUp();
    if (mount_ == nullptr) return;
    files_ = Dir().string() + ".files";
    stdfs::create_directory(files_);
  }
  [[nodiscard]] stdfs::path File(const std::string& name,
                                 const std::string& bytes) const {
    std::ofstream(files_ / name, std::ios::binary) << bytes;
    return files_ / name;
  }
  [[nodiscard]] Ended Copy(const stdfs::path& source,
                           const std::string& name) const {
    return RunProgram(
        {"cp", source.string(), (Host() / "images" / name).string()});
  }
  [[nodiscard]] Verdict Start(const std::string& name) const {
    return WriteText(Dir() / name / "status", "start\n");
  }
  stdfs::path files_;
};

TEST_F(ImageTest, CopiedInAndOutAndRemoved) {
  const stdfs::path disk = File("disk", BlankDisk() + std::string(512, 'x'));
  const Ended in = Copy(disk, "mine");
  ASSERT_EQ(in.status, 0) << in.err;
  const stdfs::path image = Host() / "images/mine";
  EXPECT_EQ(stdfs::file_size(image), stdfs::file_size(disk));
  EXPECT_EQ(RunProgram({"cmp", disk.string(), image.string()}).status, 0);
  EXPECT_EQ(ReadText(image), ReadText(disk));
  const Ended again = Copy(disk, "mine");
  EXPECT_NE(again.status, 0);
  EXPECT_EQ(Call([&] { return unlink(image.c_str()); }), Verdict{});
  EXPECT_FALSE(stdfs::exists(image));
  EXPECT_EQ(World::Now(), before_);
}

TEST_F(ImageTest, WhatIsNoImageIsRefusedAndNothingIsKept) {
  const stdfs::path qcow2 = files_ / "whole.qcow2";
  const stdfs::path raw = File("raw", BlankDisk());
  ASSERT_EQ(RunProgram({"qemu-img", "convert", "-O", "qcow2", raw.string(),
                        qcow2.string()})
                .status,
            0);
  const std::string whole = ReadText(qcow2);
  const std::vector<std::pair<std::string, std::string>> kNone = {
      {"text", "just some words\n"},
      {"zeros", std::string(4096, '\0')},
      {"page", "<!DOCTYPE html><html>404</html>"},
      {"cut", whole.substr(0, whole.size() / 2)},
      {"header", whole.substr(0, 100)},
      {"gzip", std::string("\x1f\x8b\x08\0", 4) + std::string(2000, 'z')},
  };
  for (const auto& none : kNone) {
    const std::string& name = none.first;
    const std::string& bytes = none.second;
    const Ended cp = Copy(File(name, bytes), name);
    EXPECT_NE(cp.status, 0) << name;
    EXPECT_NE(cp.err.find("Invalid argument"), std::string::npos)
        << name << ": " << cp.err;
    EXPECT_TRUE(Eventually([&] {
      return !stdfs::exists(Host() / "images" / name);
    })) << name;
    const std::string error = ReadText(Host() / "error");
    EXPECT_NE(error.substr(0, error.find('\n')).find("'" + name + "'"),
              std::string::npos)
        << error;
  }
  EXPECT_TRUE(Eventually([this] { return World::Now() == before_; }));
  EXPECT_EQ(World::Now(), before_);
  const Ended good = Copy(qcow2, "good");
  EXPECT_EQ(good.status, 0) << good.err;
  EXPECT_EQ(unlink((Host() / "images/good").c_str()), 0);
}

// What it wrote so far would pass for an image.
TEST_F(ImageTest, AWriterThatIsKilledLeavesNothing) {
  const stdfs::path image = Host() / "images/half";
  const pid_t pid = fork();
  if (pid == 0) {
    const int fd = open(image.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
    const std::string bytes = BlankDisk();
    if (write(fd, bytes.data(), bytes.size()) < 0) _exit(1);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(Eventually([&] { return !stdfs::exists(image); }));
  EXPECT_TRUE(Eventually([this] { return World::Now() == before_; }));
}

TEST_F(ImageTest, WithoutItsImageASandboxWaitsForIt) {
  Mkdir("box");
  ASSERT_EQ(
      WriteText(Dir() / "box/config.yaml", "images:\n- location: absent\n"),
      Verdict{});
  EXPECT_EQ(Status("box"), "stopped");
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "image\n");
  EXPECT_EQ(Start("box"),
            (Verdict{ENOENT,
                     "Cannot find the image 'absent': copy one to "
                     ".host/images/absent, or name another in config.yaml"}));
  EXPECT_EQ(Status("box"), "stopped");
  ASSERT_EQ(Copy(File("disk", BlankDisk()), "absent").status, 0);
  Boot("box");
  EXPECT_EQ(
      Call([this] { return unlink((Host() / "images/absent").c_str()); }).error,
      EBUSY);
  Clear(Dir());
  EXPECT_EQ(unlink((Host() / "images/absent").c_str()), 0);
}

TEST_F(ImageTest, ADigestIsCheckedAndABadOneKeepsNothing) {
  const stdfs::path disk = File("disk.img", BlankDisk());
  const std::string sum =
      RunProgram({"sha256sum", disk.string()}).out.substr(0, 64);
  auto config = [&](const std::string& digest) {
    return WriteText(
        Dir() / "box/config.yaml",
        fmt::format("images:\n- location: {}\n  digest: sha256:{}\n",
                    disk.string(), digest));
  };
  Mkdir("box");
  const World stopped = World::Now();
  const std::string wrong(64, '0');
  ASSERT_EQ(config(wrong), Verdict{});
  EXPECT_EQ(Start("box"),
            (Verdict{EBADMSG,
                     fmt::format("Cannot use '{}': its digest is sha256:{} and "
                                 "not sha256:{}; it was changed on its way, or "
                                 "the digest is of another version",
                                 disk.string(), sum, wrong)}));
  EXPECT_EQ(Status("box"), "stopped");
  const std::string volumes = World::Now().volumes;
  EXPECT_EQ(volumes.find("disk-"), std::string::npos) << volumes;
  ASSERT_EQ(config(sum), Verdict{});
  Boot("box");
  Clear(Dir());
  // What was fetched stays for the next one, as an image like any other.
  for (const auto& entry : stdfs::directory_iterator(Host() / "images")) {
    if (entry.path().filename() == "blank") continue;
    EXPECT_TRUE(entry.path().filename().string().starts_with("disk-"));
    EXPECT_EQ(unlink(entry.path().c_str()), 0);
  }
}

TEST_F(ImageTest, AMissingPathAndADiskTooSmall) {
  Mkdir("box");
  ASSERT_EQ(WriteText(Dir() / "box/config.yaml",
                      "images:\n- location: /nonexistent/disk.img\n"),
            Verdict{});
  EXPECT_EQ(Start("box"),
            (Verdict{ENOENT,
                     "Cannot read the image '/nonexistent/disk.img': No such "
                     "file or directory; correct images: in config.yaml"}));
  std::string large = BlankDisk();
  large.resize(8 << 20);
  ASSERT_EQ(Copy(File("large", large), "large").status, 0);
  EXPECT_EQ(WriteText(Dir() / "box/config.yaml",
                      "images:\n- location: large\ndisk: 4MiB\n")
                .error,
            EINVAL);
  const std::string error = ReadText(Dir() / "box/error");
  EXPECT_NE(error.find("is smaller than the image 'large', which has 8MiB"),
            std::string::npos)
      << error;
  Clear(Dir());
  EXPECT_EQ(unlink((Host() / "images/large").c_str()), 0);
}

}  // namespace
}  // namespace sbxfs
