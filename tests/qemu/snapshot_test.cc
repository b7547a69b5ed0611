// Snapshots of blank guests, and going back to them: bytes in the disk, and
// what virsh shows of it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>

#include "tests/support/guest_disk.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class SnapshotTest : public BlankGuests {
 protected:
  [[nodiscard]] stdfs::path Tags(const std::string& box = "box") const {
    return Dir() / box / "snapshots";
  }
  Verdict Take(const std::string& tag, const std::string& box = "box") {
    return Call([&] { return mkdir((Tags(box) / tag).c_str(), 0777); });
  }
  Verdict Drop(const std::string& tag, const std::string& box = "box") {
    return Call([&] { return rmdir((Tags(box) / tag).c_str()); });
  }
  Verdict Revert(const std::string& tag, const std::string& box = "box") {
    return WriteText(Dir() / box / "snapshot", tag + '\n');
  }
  [[nodiscard]] std::string Error(const std::string& box = "box") const {
    return ReadLine(Dir() / box / "error");
  }
  // Brings it to a state in which snapshots can be taken.
  void Enter(const std::string& state, const std::string& box = "box") {
    if (state == "stopped") return;
    Boot(box);
    if (state == "paused") {
      ASSERT_EQ(WriteText(Dir() / box / "status", "pause\n"), Verdict{});
    }
  }
  [[nodiscard]] static std::string Volumes() { return World::Now().volumes; }
};

class SnapshotInState : public SnapshotTest,
                        public testing::WithParamInterface<const char*> {
 protected:
  // Of a new box in that state: with 1 in block 20, and with 2.
  void TakeOneAndTwo() {
    Mkdir("box");
    Fill("box", 20, 1);
    Enter(GetParam());
    ASSERT_EQ(Take("one"), Verdict{}) << Error();
    Fill("box", 20, 2);
    ASSERT_EQ(Take("two"), Verdict{}) << Error();
  }
};

TEST_P(SnapshotInState, KeepsTheDiskAndGoesBackToIt) {
  Mkdir("box");
  Fill("box", 20, 1);
  Enter(GetParam());
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  Fill("box", 20, 2);
  Fill("box", 21, 2);
  ASSERT_EQ(Take("two"), Verdict{}) << Error();
  Fill("box", 20, 3);
  EXPECT_EQ(Status("box"), GetParam());
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "two");
  EXPECT_EQ(Virsh({"snapshot-current", "box", "--name"}), "two");
  EXPECT_EQ(Virsh({"snapshot-parent", "box", "two"}), "one");
  EXPECT_EQ(ReadLine(Tags() / "two/parent"), "one");
  EXPECT_EQ(ReadLine(Tags() / "one/parent"), "");
  EXPECT_EQ(ReadLine(Tags() / "one/kind"), "disk");
  EXPECT_EQ(ReadText(Tags() / "one/config.yaml"),
            ReadText(Dir() / "box/config.yaml"));

  ASSERT_EQ(Revert("one"), Verdict{}) << Error();
  EXPECT_TRUE(Becomes("box", GetParam())) << Status("box");
  EXPECT_TRUE(Holds("box", 20, 1));
  EXPECT_TRUE(Holds("box", 21, 0));
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "one");
  EXPECT_EQ(Virsh({"snapshot-current", "box", "--name"}), "one");
  Fill("box", 22, 4);
  ASSERT_EQ(Revert(".undo"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 3));
  EXPECT_TRUE(Holds("box", 21, 2));
  EXPECT_TRUE(Holds("box", 22, 0));
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "two");
  EXPECT_EQ(ReadLine(Tags() / ".undo/parent"), "one");
  ASSERT_EQ(Revert("one!"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 1));
  EXPECT_TRUE(Holds("box", 22, 0));
  // Nothing would be lost: the undo is still the one from before.
  ASSERT_EQ(Revert("one"), Verdict{}) << Error();
  ASSERT_EQ(Revert(".undo"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 22, 4));
  // From what was written since, back to the one that it stands on.
  ASSERT_EQ(Revert("one!"), Verdict{}) << Error();
  Fill("box", 23, 5);
  ASSERT_EQ(Revert("one"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 23, 0));
  ASSERT_EQ(Revert(".undo"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 23, 5));
  EXPECT_TRUE(Becomes("box", GetParam())) << Status("box");
}

// libvirt's own ways would write to layers that others stand on.
TEST_P(SnapshotInState, VirshTakesNoneOfThemApart) {
  ASSERT_NO_FATAL_FAILURE(TakeOneAndTwo());
  ASSERT_EQ(
      Call([&] { return mkdir((Tags() / "two/clones/copy").c_str(), 0700); }),
      Verdict{})
      << ReadText(Host() / "error");
  Fill("box", 20, 3);
  ASSERT_EQ(Take("three"), Verdict{}) << Error();
  Fill("box", 20, 4);
  const std::string volumes = Volumes();
  for (const char* verb : {"snapshot-delete", "snapshot-revert"}) {
    for (const char* tag : {"one", "two", "three"}) {
      EXPECT_NE(RunProgram({"virsh", verb, "box", tag}).status, 0)
          << verb << ' ' << tag;
    }
  }
  EXPECT_EQ(Status("box"), GetParam());
  EXPECT_EQ(Volumes(), volumes);
  EXPECT_TRUE(Holds("copy", 20, 2));
  EXPECT_TRUE(Holds("box", 20, 4));

  Virsh({"snapshot-delete", "box", "two", "--metadata"});
  ASSERT_EQ(Revert("three"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 3));
  ASSERT_EQ(Revert("one"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 1));
  EXPECT_TRUE(Holds("copy", 20, 2));
  EXPECT_FALSE(stdfs::exists(Tags() / "two"));
}

TEST_P(SnapshotInState, RmdirGivesBackTheSpaceThatNobodyNeeds) {
  Mkdir("box");
  Enter(GetParam());
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  Fill("box", 20, 1);
  ASSERT_EQ(Take("two"), Verdict{}) << Error();
  ASSERT_EQ(Take("three"), Verdict{}) << Error();
  ASSERT_EQ(Revert("one!"), Verdict{}) << Error();
  const std::string uuid = Virsh({"domuuid", "box"});
  EXPECT_NE(Volumes().find(uuid + ".disk.2\n"), std::string::npos);
  EXPECT_EQ(Drop("three"), Verdict{}) << Error();
  EXPECT_TRUE(Eventually([&] {
    return Volumes().find(uuid + ".disk.2\n") == std::string::npos;
  })) << Volumes();
  EXPECT_NE(Volumes().find(uuid + ".disk.1\n"), std::string::npos);
  // One in the middle goes, and what stands on it keeps what it needs.
  ASSERT_EQ(Revert("two"), Verdict{}) << Error();
  EXPECT_EQ(Drop("one"), Verdict{}) << Error();
  EXPECT_EQ(ReadLine(Tags() / "two/parent"), "");
  EXPECT_TRUE(Holds("box", 20, 1));
  EXPECT_EQ(Drop("two"), Verdict{}) << Error();
  EXPECT_EQ(Drop(".undo"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 1));
  EXPECT_EQ(Virsh({"snapshot-list", "box", "--name"}), "");
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "");
}

TEST_P(SnapshotInState, RmdirOfOneInTheMiddleLeavesTheOthersAsTheyWere) {
  ASSERT_NO_FATAL_FAILURE(TakeOneAndTwo());
  Fill("box", 21, 3);
  ASSERT_EQ(Take("three"), Verdict{}) << Error();
  Fill("box", 20, 4);
  ASSERT_EQ(Revert("one"), Verdict{}) << Error();
  EXPECT_EQ(Drop("two"), Verdict{}) << Error();
  EXPECT_EQ(ReadLine(Tags() / "three/parent"), "one");
  ASSERT_EQ(Revert("three!"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 2));
  EXPECT_TRUE(Holds("box", 21, 3));
  EXPECT_EQ(Drop("three"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 21, 3));
  ASSERT_EQ(Revert(".undo!"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 4));
  EXPECT_TRUE(Holds("box", 21, 3));
  ASSERT_EQ(Revert("one!"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 1));
  EXPECT_TRUE(Holds("box", 21, 0));
}

TEST_P(SnapshotInState, FactoryResetGoesBackToTheImage) {
  Mkdir("box");
  Fill("box", 20, 1);
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  const std::string key = ReadLine(Dir() / "box/known_hosts");
  const std::string port = ReadLine(Dir() / "box/ssh_port");
  Enter(GetParam());
  Fill("box", 20, 2);
  ASSERT_EQ(WriteText(Dir() / "box/status", "factory-reset\n"), Verdict{})
      << Error();
  EXPECT_TRUE(Becomes("box", GetParam())) << Status("box");
  EXPECT_TRUE(Holds("box", 20, 0));
  EXPECT_NE(ReadLine(Dir() / "box/known_hosts"), key);
  EXPECT_EQ(ReadLine(Dir() / "box/ssh_port"), port);
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "");
  ASSERT_EQ(Revert(".undo"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 2));
  // The guest's own key comes back with its disk.
  EXPECT_EQ(ReadLine(Dir() / "box/known_hosts"), key);
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "one");
}

INSTANTIATE_TEST_SUITE_P(States, SnapshotInState,
                         testing::Values("stopped", "running", "paused"));

TEST_F(SnapshotTest, MvRenamesItForVirshToo) {
  Mkdir("box");
  for (const char* tag : {"a", "b", "c"}) ASSERT_EQ(Take(tag), Verdict{});
  struct stat before {};
  ASSERT_EQ(stat((Tags() / "b").c_str(), &before), 0);
  stdfs::rename(Tags() / "b", Tags() / "middle");
  struct stat after {};
  ASSERT_EQ(stat((Tags() / "middle").c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  EXPECT_EQ(ReadLine(Tags() / "c/parent"), "middle");
  EXPECT_EQ(ReadLine(Tags() / "middle/parent"), "a");
  EXPECT_EQ(Virsh({"snapshot-list", "box", "--name", "--topological"}),
            "a\nmiddle\nc");
  stdfs::rename(Tags() / "c", Tags() / "last");
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "last");
  EXPECT_EQ(Call([&] {
              return rename((Tags() / "a").c_str(), (Tags() / "last").c_str());
            }).error,
            EEXIST);
  EXPECT_EQ(Call([&] {
              return rename((Tags() / "a").c_str(), (Dir() / "a").c_str());
            }).error,
            EPERM);
  // A sandbox is renamed with all of them.
  stdfs::rename(Dir() / "box", Dir() / "other");
  EXPECT_EQ(ReadLine(Tags("other") / "last/parent"), "middle");
  ASSERT_EQ(Revert("a", "other"), Verdict{}) << Error("other");
  stdfs::rename(Tags("other") / ".undo", Tags("other") / "kept");
  EXPECT_EQ(ReadLine(Tags("other") / "kept/parent"), "last");
}

TEST_F(SnapshotTest, TellsSizeTimeAndDescription) {
  Mkdir("box");
  for (int block = 16; block < 32; ++block) Fill("box", block, 7);
  const auto begun = std::chrono::system_clock::now();
  ASSERT_EQ(Take("big"), Verdict{});
  ASSERT_EQ(Take("small"), Verdict{});
  const auto big = std::stoull(ReadLine(Tags() / "big/size"));
  const auto small = std::stoull(ReadLine(Tags() / "small/size"));
  EXPECT_GT(big, 1u << 20);
  EXPECT_LT(big, 2u << 20);
  EXPECT_LT(small, 1u << 20);
  struct stat dir {};
  ASSERT_EQ(stat((Tags() / "big").c_str(), &dir), 0);
  EXPECT_EQ(static_cast<uint64_t>(dir.st_blocks), big / 512);
  EXPECT_NEAR(static_cast<double>(dir.st_mtim.tv_sec),
              static_cast<double>(std::chrono::system_clock::to_time_t(begun)),
              10);
  EXPECT_EQ(WriteText(Tags() / "big/description", "full of sevens\n"),
            Verdict{});
  EXPECT_EQ(ReadLine(Tags() / "big/description"), "full of sevens");
  EXPECT_NE(Virsh({"snapshot-dumpxml", "box", "big"})
                .find("<description>full of sevens</description>"),
            std::string::npos);
  EXPECT_EQ(Virsh({"snapshot-current", "box", "--name"}), "small");
  EXPECT_EQ(WriteText(Tags() / "big/size", "1\n").error, EACCES);
  EXPECT_EQ(Call([&] { return unlink((Tags() / "big/size").c_str()); }).error,
            EPERM);
  const std::string usage = ReadText(Dir() / "box/usage");
  EXPECT_NE(usage.find(fmt::format("snapshot_bytes {}\n", big + small)),
            std::string::npos)
      << usage;
}

TEST_F(SnapshotTest, RefusesWhatCannotBe) {
  Mkdir("box");
  ASSERT_EQ(Take("one"), Verdict{});
  EXPECT_EQ(Take("one").error, EEXIST);
  EXPECT_EQ(Take("a b").error, EINVAL);
  EXPECT_EQ(Take(".undo").error, EINVAL);
  EXPECT_EQ(Drop("two").error, ENOENT);
  const Verdict none = Revert("two");
  EXPECT_EQ(none.error, ENOENT);
  EXPECT_EQ(none.sentence,
            "Cannot revert 'box' to 'two': there is no snapshot 'two'; there "
            "are one");
  Boot("box");
  ASSERT_EQ(WriteText(Dir() / "box/status", "save\n"), Verdict{}) << Error();
  EXPECT_EQ(Take("saved").error, EBUSY);
  EXPECT_EQ(Error(),
            "Cannot take snapshot 'saved' of 'box': its memory is saved; start "
            "it, or write kill to its status to drop that");
  EXPECT_EQ(Revert("one!").error, EBUSY);
  EXPECT_EQ(WriteText(Dir() / "box/status", "factory-reset\n").error, EBUSY);
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
}

TEST_F(SnapshotTest, ShowsWhatVirshTakes) {
  Mkdir("box");
  Fill("box", 20, 1);
  // virsh makes up no name beside a volume, so it is told one.
  const std::string overlay = stdfs::path(DiskPath("box")).parent_path() /
                              (Virsh({"domuuid", "box"}) + ".theirs");
  Virsh({"snapshot-create-as", "box", "theirs", "--disk-only", "--diskspec",
         "vda,file=" + overlay, "--diskspec", "vdb,snapshot=no"});
  EXPECT_TRUE(Eventually([&] { return stdfs::exists(Tags() / "theirs"); }));
  Fill("box", 20, 2);
  ASSERT_EQ(Take("ours"), Verdict{}) << Error();
  EXPECT_EQ(ReadLine(Tags() / "ours/parent"), "theirs");
  ASSERT_EQ(Revert("theirs"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 1));
  ASSERT_EQ(Revert("ours"), Verdict{}) << Error();
  EXPECT_TRUE(Holds("box", 20, 2));

  Virsh({"snapshot-create-as", "box", "inside"});
  EXPECT_TRUE(Eventually([&] { return stdfs::exists(Tags() / "inside"); }));
  EXPECT_EQ(ReadLine(Tags() / "inside/kind"), "internal");
  EXPECT_EQ(Revert("inside!").error, EOPNOTSUPP);
  EXPECT_EQ(Drop("inside"), Verdict{}) << Error();
  EXPECT_FALSE(stdfs::exists(Tags() / "inside"));
}

// virsh puts the domain back on a layer that others stand on.
TEST_F(SnapshotTest, NeverStartsOnWhatOthersStandOn) {
  Mkdir("box");
  Virsh({"snapshot-create-as", "box", "inside"});
  Fill("box", 20, 1);
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  Virsh({"snapshot-revert", "box", "inside"});
  const Verdict start = WriteText(Dir() / "box/status", "start\n", O_NONBLOCK);
  EXPECT_EQ(start, Verdict{});
  EXPECT_TRUE(Eventually([&] {
    return Error().find("snapshot 'one' stands on that") != std::string::npos;
  })) << Error();
  EXPECT_EQ(Status("box"), "stopped");
  ASSERT_EQ(Revert("one!"), Verdict{}) << Error();
  Boot("box");
}

TEST_F(SnapshotTest, RmdirTakesThemAllAndTheTrashKeepsThem) {
  Mkdir("box");
  Fill("box", 20, 1);
  ASSERT_EQ(Take("one"), Verdict{});
  Fill("box", 20, 2);
  ASSERT_EQ(rmdir((Dir() / "box").c_str()), 0);
  EXPECT_EQ(ReadLine(Host() / "trash/box/snapshots/one/kind"), "disk");
  EXPECT_EQ(Call([&] {
              return mkdir((Host() / "trash/box/snapshots/x").c_str(), 0777);
            }).error,
            EACCES);
  stdfs::rename(Host() / "trash/box", Dir() / "again");
  ASSERT_EQ(Revert("one!", "again"), Verdict{}) << Error("again");
  EXPECT_TRUE(Holds("again", 20, 1));
}

TEST_F(SnapshotTest, AnotherMountTellsTheSame) {
  Mkdir("box");
  ASSERT_EQ(Take("one"), Verdict{});
  ASSERT_EQ(Take("two"), Verdict{});
  mount_->Crash();
  mount_->Start();
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "two");
  EXPECT_EQ(ReadLine(Tags() / "two/parent"), "one");
  EXPECT_NE(ReadLine(Tags() / "one/size"), "0");
}

// A disk that grew since stays grown.
TEST_F(SnapshotTest, KeepsTheSizeOfTheDisk) {
  Mkdir("box");
  ASSERT_EQ(Take("small"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "box/disk", "96MiB\n"), Verdict{}) << Error();
  ASSERT_EQ(Revert("small"), Verdict{}) << Error();
  const Ended info = RunProgram({"qemu-img", "info", "-U", DiskPath("box")});
  EXPECT_NE(info.out.find("(100663296 bytes)"), std::string::npos) << info.out;
  EXPECT_EQ(ReadLine(Dir() / "box/pending"), "");
}

}  // namespace
}  // namespace sbxfs
