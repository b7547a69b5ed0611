// Additional disks: .host/disks, and sandboxes that have them.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/qemu/disk_guests.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class DisksTest : public DiskGuests {
 protected:
  void MkdirWith(const std::string& name, const std::string& disks) {
    Mkdir(name);
    ASSERT_EQ(NameDisks(name, disks), Verdict{});
  }
  [[nodiscard]] std::string Line(const std::string& disk) const {
    const std::string list = ReadText(Host() / "disk_list");
    const auto at = list.find("\n" + disk + " ");
    if (at == std::string::npos) return "";
    return list.substr(at + 1, list.find('\n', at + 1) - at - 1);
  }
  [[nodiscard]] std::string VolumeOf(const std::string& disk) const {
    return Virsh({"vol-path", "--pool", "sbxfs", "disk." + disk});
  }
};

TEST_F(DisksTest, MadeGrownAndRemoved) {
  EXPECT_EQ(SetDisk("data", "64M"), Verdict{});
  EXPECT_EQ(ReadText(Disk("data")), "64MiB\n");
  struct stat info {};
  ASSERT_EQ(stat(Disk("data").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode, S_IFREG | 0644);
  EXPECT_EQ(info.st_size, 6);
  EXPECT_LT(info.st_blocks * 512, 1 << 20);
  EXPECT_EQ(SetDisk("data", "64MiB"), Verdict{});
  EXPECT_EQ(SetDisk("data", "134217728"), Verdict{});
  EXPECT_EQ(ReadText(Disk("data")), "128MiB\n");
  EXPECT_NE(Virsh({"vol-info", "--pool", "sbxfs", "--bytes", "disk.data"})
                .find("134217728 bytes"),
            std::string::npos);
  EXPECT_EQ(SetDisk("data", "64MiB"),
            (Verdict{EINVAL,
                     "Cannot set disk 'data' to '64MiB': it has 128MiB, and a "
                     "disk only grows"}));
  for (const char* size : {"much", "4MiB", "65TiB", "-1"}) {
    EXPECT_EQ(SetDisk("other", size),
              (Verdict{EINVAL, fmt::format("Cannot set disk 'other' to '{}': "
                                           "it is no size from 8MiB to 64TiB; "
                                           "write one, as in 10GiB",
                                           size)}));
    EXPECT_FALSE(stdfs::exists(Disk("other")));
  }
  EXPECT_EQ(Line("data").substr(0, 12), "data  128MiB");
  EXPECT_TRUE(Line("data").ends_with(" -")) << Line("data");
  // As tools do it that replace files.
  std::ofstream(Host() / "disks/.tool.tmp") << "16MiB\n";
  EXPECT_EQ(Call([this] {
              return rename((Host() / "disks/.tool.tmp").c_str(),
                            Disk("tool").c_str());
            }),
            Verdict{});
  EXPECT_EQ(ReadText(Disk("tool")), "16MiB\n");
  EXPECT_EQ(Call([this] {
              return rename(Disk("tool").c_str(), Disk("tools").c_str());
            }).error,
            EPERM);
  // Another mount sees it without being told.
  GuestMount other(kOptions);
  EXPECT_EQ(ReadText(other.Dir() / ".host/disks/tool"), "16MiB\n");
  EXPECT_EQ(unlink(Disk("tool").c_str()), 0);
  EXPECT_TRUE(Eventually(
      [&] { return !stdfs::exists(other.Dir() / ".host/disks/tool"); }));
}

TEST_F(DisksTest, OneSandboxRunsWithItAtATime) {
  ASSERT_EQ(SetDisk("data", "64MiB"), Verdict{});
  MkdirWith("a", "data");
  MkdirWith("b", "{name: data, format: false}");
  Boot("a");
  const std::string domain = ReadText(Dir() / "a/domain.xml");
  EXPECT_NE(domain.find("volume='disk.data'"), std::string::npos) << domain;
  EXPECT_NE(domain.find("<serial>data</serial>"), std::string::npos) << domain;
  const Verdict taken{
      EBUSY,
      "Cannot start 'b': its disk 'data' is in use by 'a'; stop that "
      "first"};
  EXPECT_EQ(Write("b", "start"), taken);
  EXPECT_TRUE(Line("data").ends_with(" a(running),b")) << Line("data");
  EXPECT_EQ(Call([this] { return unlink(Disk("data").c_str()); }).error, EBUSY);
  EXPECT_EQ(Write("a", "pause"), Verdict{});
  EXPECT_EQ(Write("b", "start"), taken);
  EXPECT_EQ(Write("a", "save"), Verdict{});
  EXPECT_EQ(Write("b", "start"), taken);
  EXPECT_EQ(SetDisk("data", "80MiB"),
            (Verdict{EBUSY,
                     "Cannot set disk 'data' to '80MiB': it is in the saved "
                     "memory of 'a'; start that first"}));
  EXPECT_EQ(Write("a", "kill"), Verdict{});
  Boot("b");
  // Under a running guest it grows, too.
  EXPECT_EQ(SetDisk("data", "96MiB"), Verdict{});
  EXPECT_EQ(ReadText(Disk("data")), "96MiB\n");
  EXPECT_NE(Virsh({"domblkinfo", "b", "vdc"}).find("100663296"),
            std::string::npos);
  // And QEMU holds it against those who do not ask us.
  const Ended virsh = RunProgram({"virsh", "-q", "start", "a"});
  EXPECT_NE(virsh.status, 0);
  EXPECT_NE(virsh.err.find("lock"), std::string::npos) << virsh.err;
  EXPECT_EQ(Write("b", "kill"), Verdict{});
  ASSERT_EQ(NameDisks("b", ""), Verdict{});
  ASSERT_EQ(rmdir((Dir() / "a").c_str()), 0);
  EXPECT_EQ(Call([this] { return unlink(Disk("data").c_str()); }).error, EBUSY);
  const std::string error = ReadText(Host() / "error");
  EXPECT_NE(error.find("Cannot remove disk 'data': 'a' in .host/trash has it; "
                       "take it out of additionalDisks in its config.yaml "
                       "first\n"),
            std::string::npos)
      << error;
}

TEST_F(DisksTest, AChangeWaitsForTheNextStart) {
  ASSERT_EQ(SetDisk("data", "64MiB"), Verdict{});
  Mkdir("box");
  Boot("box");
  ASSERT_EQ(NameDisks("box", "data"), Verdict{});
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "additionalDisks\n");
  EXPECT_EQ(Virsh({"domblklist", "box"}).find("disk.data"), std::string::npos);
  EXPECT_EQ(Write("box", "kill"), Verdict{});
  Boot("box");
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
  EXPECT_NE(Virsh({"domblklist", "box"}).find("disk.data"), std::string::npos);
}

TEST_F(DisksTest, OneThatIsNotThereAndOneThatIsAnothers) {
  MkdirWith("box", "absent");
  EXPECT_EQ(Write("box", "start"),
            (Verdict{ENOENT,
                     "Cannot start 'box': there is no disk 'absent'; echo "
                     "10GiB > .host/disks/absent makes one"}));
  EXPECT_EQ(Status("box"), "stopped");
  ASSERT_EQ(NameDisks("box", ""), Verdict{});
  ASSERT_EQ(chown((Dir() / "box").c_str(), 1000, 1000), 0);
  EXPECT_EQ(NameDisks("box", "absent").error, EPERM);
  const std::string error = ReadText(Dir() / "box/error");
  EXPECT_EQ(error,
            "Cannot change config.yaml of 'box': the disk 'absent' is the "
            "mount owner's; take additionalDisks out of config.yaml\n");
}

// Whatever is done with a sandbox, what is on its disk stays, and is in no
// snapshot or clone.
TEST_F(DisksTest, ItOutlivesTheSandbox) {
  ASSERT_EQ(SetDisk("data", "64MiB"), Verdict{});
  const std::string volume = VolumeOf("data");
  const std::string raw = Dir().string() + ".raw";
  const Ended made = RunProgram(
      {"sh", "-c",
       fmt::format("truncate -s 64M {0} && mkfs.ext4 -q -L lima-data {0} && "
                   "qemu-img convert -n -f raw -O qcow2 {0} {1}",
                   raw, volume)});
  ASSERT_EQ(made.status, 0) << made.err;
  const auto same = [&] {
    return RunProgram({"qemu-img", "compare", "-U", "-f", "raw", "-F", "qcow2",
                       raw, volume})
        .out;
  };
  const std::string kSame = "Images are identical.\n";
  MkdirWith("box", "data");
  Boot("box");
  EXPECT_EQ(mkdir((Dir() / "box/snapshots/one").c_str(), 0777), 0);
  EXPECT_EQ(VolumeOf("data"), volume);
  EXPECT_NE(ReadText(Dir() / "box/domain.xml").find("volume='disk.data'"),
            std::string::npos);
  EXPECT_EQ(WriteText(Dir() / "box/snapshot", "one!\n").error, 0);
  EXPECT_EQ(mkdir((Dir() / "box/clones/twin").c_str(), 0777), 0);
  EXPECT_EQ(ReadText(Dir() / "twin/config.yaml").find("additionalDisks"),
            std::string::npos);
  EXPECT_EQ(Virsh({"domblklist", "twin"}).find("disk.data"), std::string::npos);
  EXPECT_EQ(Write("box", "kill"), Verdict{});
  EXPECT_EQ(Write("box", "factory-reset"), Verdict{});
  EXPECT_NE(Virsh({"domblklist", "box"}).find("disk.data"), std::string::npos);
  EXPECT_EQ(same(), kSame);
  EXPECT_EQ(rmdir((Dir() / "box").c_str()), 0);
  EXPECT_EQ(rmdir((Host() / "trash/box").c_str()), 0);
  EXPECT_EQ(same(), kSame);
  EXPECT_EQ(ReadText(Disk("data")), "64MiB\n");
  unlink(raw.c_str());
}

}  // namespace
}  // namespace sbxfs
