// Snapshots of blank guests with their memory: what is kept, shown, given back
// and refused. That a guest goes on from them is shown on a booted one.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include "backend/libvirt_handle.h"
#include "backend/snapshot_records.h"
#include "backend/snapshot_xml.h"
#include "tests/support/guest_disk.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class MemorySnapshotTest : public BlankGuests {
 protected:
  void SetUp() override {
    BlankGuests::SetUp();
    if (IsSkipped()) return;
    Mkdir("box");
    ASSERT_EQ(Configure("snapshotMemory: true\n"), Verdict{}) << Error();
  }
  Verdict Configure(const std::string& more) {
    return WriteText(Dir() / "box/config.yaml",
                     ReadText(Dir() / "box/config.yaml") + more);
  }
  [[nodiscard]] stdfs::path Tag(const std::string& tag) const {
    return Dir() / "box/snapshots" / tag;
  }
  Verdict Take(const std::string& tag) {
    return Call([&] { return mkdir(Tag(tag).c_str(), 0777); });
  }
  Verdict Revert(const std::string& tag, const std::string& box = "box") {
    return WriteText(Dir() / box / "snapshot", tag + '\n');
  }
  [[nodiscard]] std::string Error(const std::string& box = "box") const {
    return ReadLine(Dir() / box / "error");
  }
  // The moment is another with each start.
  static std::string Reason(const std::string& box = "box") {
    return Virsh({"domstate", box, "--reason"});
  }
};

// libvirt has one that is being taken in its table and not in its tree.
TEST_F(MemorySnapshotTest, TheOthersAreListedWhileOneIsTaken) {
  Boot("box");
  for (const char* tag : {"one", "two"}) ASSERT_EQ(Take(tag), Verdict{});
  const ConnPtr connection(virConnectOpen("qemu:///system"));
  ASSERT_NE(connection, nullptr);
  const DomainPtr domain(virDomainLookupByName(connection.get(), "box"));
  ASSERT_NE(domain, nullptr);
  auto third = std::async(std::launch::async, [this] { return Take("three"); });
  while (third.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    std::vector<std::string> names;
    for (const auto& text : SnapshotTexts(domain.get())) {
      names.push_back(ParseSnapshot(text).name);
    }
    names.resize(std::min<size_t>(names.size(), 2));
    EXPECT_EQ(names, (std::vector<std::string>{"one", "two"}));
  }
  EXPECT_EQ(third.get(), Verdict{}) << Error();
}

TEST_F(MemorySnapshotTest, GoesOnFromTheMomentAndGivesBackItsSpace) {
  Boot("box");
  Fill("box", 20, 1);
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  EXPECT_TRUE(Eventually([&] {
    return ReadLine(Tag("one") / "kind") == "disk+memory";
  })) << ReadLine(Tag("one") / "kind");
  EXPECT_EQ(Status("box"), "running");
  const std::string uuid = Virsh({"domuuid", "box"});
  EXPECT_NE(World::Now().volumes.find(uuid + ".memory.1\n"), std::string::npos);
  Fill("box", 20, 2);
  ASSERT_EQ(Revert("one"), Verdict{}) << Error();
  EXPECT_EQ(Status("box"), "running");
  EXPECT_EQ(Reason(), "running (restored)");
  EXPECT_TRUE(Holds("box", 20, 1));
  EXPECT_EQ(ReadLine(Dir() / "box/snapshot"), "one");
  // The ports of now, not of then.
  EXPECT_NE(Virsh({"qemu-monitor-command", "box", "--hmp", "info usernet"})
                .find(ReadLine(Dir() / "box/ssh_port")),
            std::string::npos);
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");

  ASSERT_EQ(WriteText(Dir() / "box/status", "pause\n"), Verdict{});
  ASSERT_EQ(Revert("one"), Verdict{}) << Error();
  EXPECT_EQ(Status("box"), "paused");
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  // Without a guest there is nothing to go on with.
  ASSERT_EQ(Revert("one!"), Verdict{}) << Error();
  EXPECT_EQ(Status("box"), "stopped");
  ASSERT_EQ(Call([&] { return rmdir(Tag("one").c_str()); }), Verdict{});
  EXPECT_TRUE(Eventually([&] {
    return World::Now().volumes.find(".memory.") == std::string::npos;
  })) << World::Now().volumes;
}

TEST_F(MemorySnapshotTest, ARenamedSandboxAndTagGoOnToo) {
  Boot("box");
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  EXPECT_TRUE(Eventually(
      [&] { return ReadLine(Tag("one") / "kind") == "disk+memory"; }));
  ASSERT_EQ(rename(Tag("one").c_str(), Tag("first").c_str()), 0) << Error();
  EXPECT_EQ(ReadLine(Tag("first") / "kind"), "disk+memory");
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  const std::string name = "a-much-longer-name-than-the-one-that-it-had-before";
  ASSERT_EQ(rename((Dir() / "box").c_str(), (Dir() / name).c_str()), 0);
  Boot(name);
  ASSERT_EQ(Revert("first", name), Verdict{}) << Error(name);
  EXPECT_EQ(Reason(name), "running (restored)");
  EXPECT_EQ(Status(name), "running");
}

TEST_F(MemorySnapshotTest, ChangesSinceThenArePending) {
  Boot("box");
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  EXPECT_TRUE(Eventually(
      [&] { return ReadLine(Tag("one") / "kind") == "disk+memory"; }));
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "box/memory", "384MiB\n"), Verdict{}) << Error();
  Boot("box");
  EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
  ASSERT_EQ(Revert("one"), Verdict{}) << Error();
  EXPECT_EQ(ReadLine(Dir() / "box/pending"), "memory");
}

TEST_F(MemorySnapshotTest, IsLeftOutWithMountsAndSaysSo) {
  ASSERT_EQ(Configure("mounts: [{location: /usr/share/doc}]\n"), Verdict{})
      << Error();
  Boot("box");
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  EXPECT_EQ(ReadLine(Tag("one") / "kind"), "disk");
  EXPECT_EQ(ReadLine(Tag("one") / "description"),
            "without its memory: it has mounts");
}

TEST_F(MemorySnapshotTest, OfOneThatIsStoppedIsOfTheDisk) {
  ASSERT_EQ(Take("one"), Verdict{}) << Error();
  EXPECT_EQ(ReadLine(Tag("one") / "kind"), "disk");
  EXPECT_EQ(ReadLine(Tag("one") / "description"), "");
}

}  // namespace
}  // namespace sbxfs
