// Two hypervisors behind one mount.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "backend/util/text.h"
#include "tests/support/far.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using testing::HasSubstr;

class FleetTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    far_ = std::make_unique<FarLibvirtd>(IsApart());
    Arrange();
    file_ = far_->Dir() / "hosts";
    std::ofstream(file_) << "# two\nnear qemu:///system\nfar "
                         << far_->Uri(IsApart() ? "ssh" : "unix") << '\n';
    Mount();
  }
  // With the blank image in the first one.
  void MountHosts() {
    mount_ = std::make_unique<GuestMount>(
        "stop_timeout=2,start_timeout=4,hosts=" + file_.string(),
        file_.string());
    MakeBlank(Host());
  }
  void Mount() {
    MountHosts();
    const stdfs::path image = Hypervisor("far") / "images/blank";
    if (!stdfs::exists(image)) std::ofstream(image) << BlankDisk();
    ASSERT_TRUE(stdfs::exists(image)) << ReadText(Host() / "error");
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    Clear(Dir());
    mount_->Stop();
    EXPECT_EQ(far_->Virsh("list --all --name"), "");
    EXPECT_EQ(Virsh({"list", "--all", "--name"}), "");
  }

  // In a network of its own, by ssh.
  [[nodiscard]] virtual bool IsApart() const { return false; }
  // What the far one is given before the mount.
  virtual void Arrange() {}
  [[nodiscard]] stdfs::path Dir() const { return mount_->Dir(); }
  [[nodiscard]] stdfs::path Host() const { return Dir() / ".host"; }
  [[nodiscard]] stdfs::path Hypervisor(const std::string& name) const {
    return Host() / "hosts" / name;
  }
  [[nodiscard]] Verdict Mkdir(const std::string& name) const {
    return Call([&] { return mkdir((Dir() / name).c_str(), 0700); });
  }
  [[nodiscard]] Verdict MkdirOn(const std::string& host,
                                const std::string& name) const {
    return WriteText(Dir() / (name + ".yaml"), "host: " + host + "\n", O_CREAT);
  }
  [[nodiscard]] std::string HostOf(const std::string& name) const {
    return ReadLine(Dir() / name / "host");
  }
  [[nodiscard]] Verdict Move(const std::string& name,
                             const std::string& to) const {
    return WriteText(Dir() / name / "host", to + "\n");
  }
  void Boot(const std::string& name) const {
    ASSERT_EQ(WriteText(Dir() / name / "status", "start\n", O_NONBLOCK),
              Verdict{});
    ASSERT_TRUE(Becomes(name, "running")) << ReadText(Dir() / name / "error");
  }
  [[nodiscard]] bool Becomes(const std::string& name,
                             const std::string& state) const {
    return Eventually(
        [&] { return ReadLine(Dir() / name / "status") == state; });
  }

  std::unique_ptr<FarLibvirtd> far_;
  stdfs::path file_;
  std::unique_ptr<GuestMount> mount_;
};

TEST_F(FleetTest, ASandboxIsWhereItIsToBe) {
  ASSERT_EQ(MkdirOn("far", "a"), Verdict{});
  ASSERT_EQ(MkdirOn("near", "b"), Verdict{});
  EXPECT_EQ(HostOf("a"), "far");
  EXPECT_EQ(HostOf("b"), "near");
  EXPECT_EQ(far_->Virsh("list --all --name"), "a");
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "b");
  EXPECT_THAT(ReadText(Host() / "list"), HasSubstr("a     far   stopped"));
  EXPECT_EQ(MkdirOn("mars", "c").error, EINVAL);
  EXPECT_THAT(ReadText(Host() / "error"),
              HasSubstr("config.yaml names the host 'mars'; there are near, "
                        "far"));
  // A name is one sandbox's on all of them.
  EXPECT_EQ(Call([&] {
              return rename((Dir() / "b").c_str(), (Dir() / "A").c_str());
            }).error,
            EEXIST);
  EXPECT_THAT(ReadText(Dir() / "b/error"),
              HasSubstr("the hypervisor 'far' has a 'a'"));

  // Before its first start it goes where it is told to, with what it has.
  ASSERT_EQ(WriteText(Dir() / "a/description", "mine\n"), Verdict{});
  ASSERT_EQ(chmod((Dir() / "a/status").c_str(), 0640), 0);
  EXPECT_EQ(Move("a", "mars").error, EINVAL);
  EXPECT_EQ(Move("a", "near"), Verdict{});
  EXPECT_EQ(HostOf("a"), "near");
  EXPECT_EQ(ReadText(Dir() / "a/description"), "mine\n");
  struct stat info {};
  ASSERT_EQ(stat((Dir() / "a/status").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640U);
  EXPECT_EQ(far_->Virsh("list --all --name"), "");
  EXPECT_EQ(Move("a", "near"), Verdict{});
}

TEST_F(FleetTest, AStoppedOneMovesWithItsSnapshots) {
  ASSERT_EQ(MkdirOn("near", "a"), Verdict{});
  const std::string port = ReadText(Dir() / "a/ssh_port");
  Boot("a");
  ASSERT_EQ(mkdir((Dir() / "a/snapshots/s").c_str(), 0700), 0);
  ASSERT_EQ(WriteText(Dir() / "a/status", "pause\n"), Verdict{});
  EXPECT_EQ(Move("a", "far").error, EBUSY);
  EXPECT_THAT(ReadLine(Dir() / "a/error"),
              HasSubstr("Cannot move 'a' to 'far': it is paused"));
  ASSERT_EQ(WriteText(Dir() / "a/status", "kill\n"), Verdict{});
  const std::string uuid = Virsh({"domuuid", "a"});
  const std::string text = ReadText(Dir() / "a/config.yaml");
  struct stat before {};
  ASSERT_EQ(stat((Dir() / "a").c_str(), &before), 0);

  // What a guest wrote.
  const std::string top =
      Virsh({"vol-path", "--pool", "sbxfs", uuid + ".disk.1"});
  ASSERT_EQ(RunProgram({"qemu-io", "-c", "write -P 5 1M 3M", top}).status, 0);

  // What it stands on goes along where it is not there.
  ASSERT_EQ(unlink((Hypervisor("far") / "images/blank").c_str()), 0);
  ASSERT_EQ(Move("a", "far"), Verdict{}) << ReadText(Dir() / "a/error");
  EXPECT_EQ(HostOf("a"), "far");
  EXPECT_EQ(far_->Virsh("domuuid a"), uuid);
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "");
  EXPECT_EQ(Virsh({"vol-list", "sbxfs"}).find(uuid), std::string::npos);
  EXPECT_TRUE(Eventually(
      [this] { return stdfs::exists(Hypervisor("far") / "images/blank"); }));
  EXPECT_EQ(far_->Run("qemu-io -c 'read -P 5 1M 3M' " + top).out.find("failed"),
            std::string::npos);
  EXPECT_EQ(far_->Run("qemu-img check " + top).status, 0);
  struct stat after {};
  ASSERT_EQ(stat((Dir() / "a").c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  EXPECT_EQ(ReadText(Dir() / "a/ssh_port"), port);
  EXPECT_EQ(ReadText(Dir() / "a/config.yaml"), text);
  EXPECT_EQ(ReadText(Dir() / "a/progress"), "");
  EXPECT_THAT(ReadText(Dir() / "a/events"),
              testing::EndsWith(" moved to far\n"));
  EXPECT_EQ(ReadText(Dir() / "a/snapshot"), "s\n");
  Boot("a");
  EXPECT_EQ(far_->Virsh("list --name"), "a");
  EXPECT_EQ(ReadText(Dir() / "a/pending"), "");
  ASSERT_EQ(WriteText(Dir() / "a/status", "kill\n"), Verdict{});
  ASSERT_EQ(WriteText(Dir() / "a/snapshot", "s\n"), Verdict{});
  ASSERT_EQ(mkdir((Dir() / "a/snapshots/s/clones/c").c_str(), 0700), 0);
  EXPECT_EQ(HostOf("c"), "far");

  // And back, beside what a clone still needs; the clone follows.
  ASSERT_EQ(Move("a", "near"), Verdict{}) << ReadText(Dir() / "a/error");
  EXPECT_EQ(Virsh({"domuuid", "a"}), uuid);
  Boot("c");
  ASSERT_EQ(WriteText(Dir() / "c/status", "kill\n"), Verdict{});
  ASSERT_EQ(Move("c", "near"), Verdict{}) << ReadText(Dir() / "c/error");
  Boot("c");
  Boot("a");
  EXPECT_EQ(far_->Virsh("list --all --name"), "");
  EXPECT_TRUE(Eventually([&] {
    return far_->Virsh("vol-list sbxfs").find(uuid) == std::string::npos;
  }));
}

TEST_F(FleetTest, AMoveIsAllOrNothing) {
  ASSERT_EQ(MkdirOn("near", "a"), Verdict{});
  const std::string uuid = Virsh({"domuuid", "a"});
  // Another image of that name, and one of its volumes from nowhere.
  ASSERT_EQ(unlink((Hypervisor("far") / "images/blank").c_str()), 0);
  std::ofstream(Hypervisor("far") / "images/blank")
      << BlankDisk().replace(512, 3, "not");
  EXPECT_EQ(Move("a", "far").error, EEXIST);
  EXPECT_THAT(ReadLine(Dir() / "a/error"),
              HasSubstr("over there is another image 'blank', which differs"));
  EXPECT_EQ(HostOf("a"), "near");
  EXPECT_EQ(far_->Virsh("vol-list sbxfs").find(uuid), std::string::npos);
  EXPECT_EQ(far_->Virsh("list --all --name"), "");
  Boot("a");
  ASSERT_EQ(WriteText(Dir() / "a/status", "kill\n"), Verdict{});
  ASSERT_EQ(unlink((Hypervisor("far") / "images/blank").c_str()), 0);
  far_->Run("virsh -c qemu:///system vol-create-as sbxfs " + uuid +
            ".disk 4096 --format raw");
  ASSERT_EQ(Move("a", "far"), Verdict{}) << ReadText(Dir() / "a/error");
  Boot("a");
}

TEST_F(FleetTest, ANewOneIsMadeWhereMemoryIs) {
  const std::string capacity = ReadText(Hypervisor("near") / "capacity");
  const auto at = capacity.find("memory_bytes ");
  ASSERT_NE(at, capacity.npos) << capacity;
  const auto memory =
      ParseNumber(capacity.substr(at + 13, capacity.find('\n', at) - at - 13));
  ASSERT_TRUE(memory) << capacity;
  ASSERT_EQ(MkdirOn("near", "big"), Verdict{});
  ASSERT_EQ(
      WriteText(Dir() / "big/memory", fmt::format("{}\n", *memory / 4 * 3)),
      Verdict{});
  Boot("big");
  ASSERT_EQ(Mkdir("one"), Verdict{});
  EXPECT_EQ(HostOf("one"), "far");
  // Unless a setting of all says otherwise.
  const std::string defaults = ReadText(Host() / "defaults.yaml");
  ASSERT_EQ(WriteText(Host() / "defaults.yaml", defaults + "host: near\n"),
            Verdict{});
  ASSERT_EQ(Mkdir("two"), Verdict{});
  EXPECT_EQ(HostOf("two"), "near");
}

TEST_F(FleetTest, AnotherOfThatNameHasItsHostsName) {
  ASSERT_EQ(MkdirOn("near", "box"), Verdict{});
  {
    GuestMount other("stop_timeout=2", far_->Uri("unix"));
    ASSERT_EQ(mkdir((other.Dir() / "box").c_str(), 0700), 0);
    ASSERT_EQ(mkdir((other.Dir() / "alone").c_str(), 0700), 0);
    other.Stop();
  }
  ASSERT_TRUE(Eventually([&] { return stdfs::exists(Dir() / "alone"); }));
  ASSERT_TRUE(Eventually([&] { return stdfs::exists(Dir() / "box@far"); }));
  EXPECT_EQ(HostOf("box@far"), "far");
  EXPECT_EQ(HostOf("box"), "near");
  EXPECT_FALSE(stdfs::exists(Dir() / "box@near"));
  EXPECT_FALSE(stdfs::exists(Dir() / "alone@far"));
  Boot("box@far");
  EXPECT_EQ(far_->Virsh("list --name"), "box");
  EXPECT_EQ(ReadLine(Dir() / "box/status"), "stopped");
  ASSERT_EQ(WriteText(Dir() / "box@far/status", "kill\n"), Verdict{});
  ASSERT_EQ(Call([&] {
              return rename((Dir() / "box@far").c_str(),
                            (Dir() / "other").c_str());
            }),
            Verdict{});
  EXPECT_EQ(HostOf("other"), "far");
}

TEST_F(FleetTest, OneThatIsDownLeavesTheOthersUntouched) {
  ASSERT_EQ(MkdirOn("far", "there"), Verdict{});
  ASSERT_EQ(MkdirOn("near", "here"), Verdict{});
  Boot("there");
  mount_->ExpectLoggedErrors();
  far_->KillLibvirtd();
  ASSERT_TRUE(Eventually([&] {
    return ReadText(Hypervisor("far") / "connection")
        .starts_with("disconnected");
  }));
  EXPECT_TRUE(
      ReadText(Hypervisor("near") / "connection").starts_with("connected"));
  EXPECT_TRUE(Becomes("there", "unreachable"));
  EXPECT_EQ(WriteText(Dir() / "there/status", "kill\n").error, EHOSTDOWN);
  Boot("here");
  ASSERT_EQ(Mkdir("new"), Verdict{});
  EXPECT_EQ(HostOf("new"), "near");
  EXPECT_EQ(MkdirOn("far", "no").error, EHOSTDOWN);

  // A mount begins without it, and takes it in when it comes.
  mount_->Stop();
  mount_->Start();
  EXPECT_EQ(ReadLine(Dir() / "here/status"), "running");
  EXPECT_FALSE(stdfs::exists(Dir() / "there"));
  EXPECT_THAT(ReadText(Hypervisor("far") / "connection"),
              HasSubstr("disconnected"));
  EXPECT_THAT(ReadText(Hypervisor("far") / "uri"), HasSubstr("qemu"));
  far_->StartLibvirtd();
  EXPECT_TRUE(Eventually([&] { return stdfs::exists(Dir() / "there"); }));
  EXPECT_TRUE(Becomes("there", "running"));
}

// Each has its own pool, at its own path.
class LiveFleetTest : public FleetTest {
 protected:
  [[nodiscard]] bool IsApart() const override { return true; }
  void Arrange() override {
    stdfs::create_directory(Theirs());
    far_->Virsh("pool-define-as sbxfs dir --target " + Theirs().string());
  }
  [[nodiscard]] stdfs::path Theirs() const { return far_->Dir() / "pool"; }
};

TEST_F(LiveFleetTest, ARunningOneMovesAndGoesOn) {
  ASSERT_EQ(MkdirOn("near", "a"), Verdict{});
  const std::string uuid = Virsh({"domuuid", "a"});
  const std::string disk =
      Virsh({"vol-path", "--pool", "sbxfs", uuid + ".disk"});
  ASSERT_EQ(RunProgram({"qemu-io", "-c", "write -P 5 1M 3M", disk}).status, 0);
  Boot("a");
  // Its definition names its one layer as a volume; snapshots leave paths.
  ASSERT_EQ(Move("a", "far"), Verdict{}) << ReadText(Dir() / "a/error");
  EXPECT_EQ(HostOf("a"), "far");
  EXPECT_EQ(ReadLine(Dir() / "a/status"), "running");
  EXPECT_EQ(ReadText(Dir() / "a/pending"), "");
  EXPECT_EQ(far_->Virsh("list --name"), "a");
  EXPECT_EQ(far_->Virsh("domuuid a"), uuid);
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "");
  EXPECT_EQ(Virsh({"vol-list", "sbxfs"}).find(uuid), std::string::npos);
  EXPECT_TRUE(stdfs::is_empty(Host() / "trash"));
  ASSERT_EQ(mkdir((Dir() / "a/snapshots/s").c_str(), 0700), 0);
  ASSERT_EQ(mkdir((Dir() / "a/snapshots/t").c_str(), 0700), 0);

  // From there only ssh leads to this machine. Where that may not either, all
  // is as before.
  const auto connected = [this] {
    return ReadText(Hypervisor("far") / "connection").starts_with("connected");
  };
  const auto allow = [&](const std::string& what) {
    far_->KillSshd();
    EXPECT_TRUE(Eventually([&] { return !connected(); }));
    std::ofstream(far_->Dir() / "sshd_config", std::ios::app)
        << "Match all\nAllowTcpForwarding " << what << '\n';
    far_->StartSshd(FarLibvirtd::kSshPort);
    EXPECT_TRUE(Eventually(connected));
  };
  allow("local");
  mount_->ExpectLoggedErrors();
  EXPECT_NE(Move("a", "near").error, 0);
  EXPECT_THAT(ReadLine(Dir() / "a/error"),
              HasSubstr("Cannot move 'a' to 'near': "));
  EXPECT_EQ(HostOf("a"), "far");
  EXPECT_EQ(ReadLine(Dir() / "a/status"), "running");
  EXPECT_EQ(far_->Virsh("snapshot-list a --name"), "s\nt");
  EXPECT_EQ(far_->Virsh("dumpxml a").find("<sbxfs:records"), std::string::npos);
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "");
  EXPECT_EQ(Virsh({"vol-list", "sbxfs"}).find(uuid), std::string::npos);
  EXPECT_TRUE(stdfs::is_empty(Host() / "trash"));
  const std::string port = ReadLine(Dir() / "a/ssh_port");
  EXPECT_TRUE(Eventually([&] { return Listens(port); }));

  std::string config = ReadText(far_->Dir() / "sshd_config");
  std::ofstream(far_->Dir() / "sshd_config")
      << config.substr(0, config.find("Match all"));
  allow("yes");
  ASSERT_EQ(Move("a", "near"), Verdict{}) << ReadText(Dir() / "a/error");
  EXPECT_EQ(HostOf("a"), "near");
  EXPECT_EQ(ReadLine(Dir() / "a/status"), "running");
  EXPECT_EQ(Virsh({"domuuid", "a"}), uuid);
  EXPECT_EQ(Virsh({"snapshot-list", "a", "--name"}), "s\nt");
  EXPECT_EQ(ReadText(Dir() / "a/snapshot"), "t\n");
  EXPECT_EQ(ReadText(Dir() / "a/pending"), "");
  EXPECT_TRUE(Listens(port));
  EXPECT_EQ(far_->Virsh("list --all --name"), "");
  EXPECT_EQ(far_->Virsh("vol-list sbxfs").find(uuid), std::string::npos);
  EXPECT_EQ(Virsh({"dumpxml", "a"}).find(Theirs()), std::string::npos);
  ASSERT_EQ(WriteText(Dir() / "a/status", "kill\n"), Verdict{});
  const std::string top = disk + ".2";
  const Ended read = RunProgram({"qemu-io", "-c", "read -P 5 1M 3M", top});
  EXPECT_EQ(read.out.find("failed"), std::string::npos) << read.out;
  EXPECT_EQ(RunProgram({"qemu-img", "check", top}).status, 0);
  Boot("a");
}

// Both have one pool.
class SharedFleetTest : public LiveFleetTest {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    pool_ = stdfs::path(std::getenv("SBXFS_INSIDE")) / "pool";
    stdfs::create_directory(pool_);
    far_ = std::make_unique<FarLibvirtd>(/*apart=*/true);
    const std::string define = "pool-define-as sbxfs dir --target ";
    far_->Virsh(define + TheirPool().string());
    ForgetPool();
    const Ended defined = RunProgram(
        {"sh", "-c", "virsh -c qemu:///system " + define + pool_.string()});
    ASSERT_EQ(defined.status, 0) << defined.err;
    file_ = far_->Dir() / "hosts";
    std::ofstream(file_) << "near qemu:///system\nfar " << far_->Uri("ssh")
                         << '\n';
    MountHosts();
    far_->Virsh("pool-refresh sbxfs");
    ASSERT_TRUE(Eventually([this] {
      return stdfs::exists(Hypervisor("far") / "images/blank");
    })) << ReadText(Host() / "error");
  }
  void TearDown() override {
    FleetTest::TearDown();
    ForgetPool();
    far_.reset();
    stdfs::remove_all(pool_);
  }
  // The path over there.
  [[nodiscard]] virtual stdfs::path TheirPool() const { return pool_; }
  // An earlier test's; the next mount makes its own.
  static void ForgetPool() {
    (void)RunProgram(
        {"virsh", "-c", "qemu:///system", "pool-destroy", "sbxfs"});
    (void)RunProgram(
        {"virsh", "-c", "qemu:///system", "pool-undefine", "sbxfs"});
  }
  [[nodiscard]] std::set<std::string> Files() const {
    std::set<std::string> names;
    for (const auto& entry : stdfs::directory_iterator(pool_)) {
      names.insert(entry.path().filename());
    }
    return names;
  }

  stdfs::path pool_;
};

TEST_F(SharedFleetTest, MovesAreOfTheDefinitionAlone) {
  // Who came second sees it.
  EXPECT_THAT(ReadText(Hypervisor("near") / "connection") +
                  ReadText(Hypervisor("far") / "connection"),
              HasSubstr(" in the same place: "));
  ASSERT_EQ(MkdirOn("near", "a"), Verdict{});
  ASSERT_EQ(MkdirOn("far", "b"), Verdict{});
  const std::string uuid = Virsh({"domuuid", "a"});
  Boot("a");
  ASSERT_EQ(mkdir((Dir() / "a/snapshots/s").c_str(), 0700), 0);
  ASSERT_EQ(WriteText(Dir() / "a/status", "kill\n"), Verdict{});
  const auto files = Files();
  EXPECT_EQ(files.count(uuid + ".disk.1"), 1U);
  struct stat before {};
  ASSERT_EQ(stat((pool_ / (uuid + ".disk.1")).c_str(), &before), 0);

  ASSERT_EQ(Move("a", "far"), Verdict{}) << ReadText(Dir() / "a/error");
  EXPECT_EQ(Files(), files);
  EXPECT_EQ(far_->Virsh("snapshot-list a --name"), "s");
  EXPECT_EQ(far_->Virsh("dumpxml a").find("borrowed"), std::string::npos);
  Boot("a");
  ASSERT_EQ(Move("a", "near"), Verdict{}) << ReadText(Dir() / "a/error");
  EXPECT_EQ(ReadLine(Dir() / "a/status"), "running");
  EXPECT_EQ(Files(), files);
  ASSERT_EQ(Move("a", "far"), Verdict{}) << ReadText(Dir() / "a/error");
  EXPECT_EQ(Files(), files);
  struct stat after {};
  ASSERT_EQ(stat((pool_ / (uuid + ".disk.1")).c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  ASSERT_EQ(WriteText(Dir() / "a/status", "kill\n"), Verdict{});
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "");
}

// At two paths, where layers would not find each other.
class TwoPathsFleetTest : public SharedFleetTest {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    link_ = stdfs::path(std::getenv("SBXFS_INSIDE")) / "pool-too";
    stdfs::create_directory_symlink("pool", link_);
    SharedFleetTest::SetUp();
  }
  void TearDown() override {
    SharedFleetTest::TearDown();
    stdfs::remove(link_);
  }
  [[nodiscard]] stdfs::path TheirPool() const override { return link_; }

  stdfs::path link_;
};

TEST_F(TwoPathsFleetTest, AMoveIsRefused) {
  ASSERT_EQ(MkdirOn("near", "a"), Verdict{});
  const auto files = Files();
  EXPECT_EQ(Move("a", "far").error, EXDEV);
  EXPECT_THAT(ReadLine(Dir() / "a/error"),
              HasSubstr("both hypervisors have one pool, which is '"));
  EXPECT_EQ(HostOf("a"), "near");
  EXPECT_EQ(Files(), files);
  EXPECT_EQ(far_->Virsh("list --all --name"), "");
  Boot("a");
  ASSERT_EQ(WriteText(Dir() / "a/status", "kill\n"), Verdict{});
}

}  // namespace
}  // namespace sbxfs
