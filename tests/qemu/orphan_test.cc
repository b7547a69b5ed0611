// What a kill -9 in the middle of something leaves in the pool, and who takes
// it away.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "backend/libvirt_backend.h"
#include "backend/util/mutex.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class Listener : public Observer {
 public:
  void SandboxChanged(const std::string&) override {}
  void HostChanged() override {}
  void Happened(const Event& event) override {
    MutexLock lock(mutex_);
    if (event.what == "abandoned") removed_ += event.detail + '\n';
  }
  void ActionEnded(const std::string&, const Error*) override {}
  std::string Removed() {
    MutexLock lock(mutex_);
    return removed_;
  }

 private:
  Mutex mutex_;
  std::string removed_ GUARDED_BY(mutex_);
};

// Another mount of the same hypervisor, in this process, which waits for
// `orphan_age` and no longer.
class Sweeper {
 public:
  explicit Sweeper(std::chrono::seconds orphan_age) {
    BackendOptions options;
    options.uri = "qemu:///system";
    options.orphan_age = orphan_age;
    backend_ = OpenLibvirt(options);
    backend_->SetObserver(&listener_);
  }
  ~Sweeper() { backend_->SetObserver(nullptr); }
  Sweeper(const Sweeper&) = delete;
  Sweeper& operator=(const Sweeper&) = delete;
  std::string Removed() { return listener_.Removed(); }

 private:
  Listener listener_;
  std::unique_ptr<Backend> backend_;
};

class OrphanTest : public BlankGuests {
 protected:
  static void MakeVolume(const std::string& name) {
    Virsh({"vol-create-as", "sbxfs", name, "1M", "--format", "raw"});
  }
  static bool HasVolume(const std::string& name) {
    return World::Now().volumes.find(name + '\n') != std::string::npos;
  }
  // kill -9 of the daemon `delay` after `work` began.
  void KilledWithin(std::chrono::microseconds delay,
                    const std::function<void()>& work) {
    std::thread killer([this, delay] {
      std::this_thread::sleep_for(delay);
      kill(mount_->Pid(), SIGKILL);
    });
    work();
    killer.join();
    mount_->Crash();
    mount_->Start();
  }
};

constexpr char kNobody[] = "0f0e0d0c-0b0a-4908-8706-050403020100";

TEST_F(OrphanTest, VolumesWithoutADomainAreRemovedWhenTheyAreOldEnough) {
  Mkdir("box");
  const std::string uuid = Virsh({"domuuid", "box"});
  const std::string nobody(kNobody);
  const std::vector<std::string> ours = {nobody + ".disk", nobody + ".seed",
                                         nobody + ".console",
                                         "doc.defaults.yaml.999"};
  const std::vector<std::string> others = {
      "notes.disk", "0f0e0d0c.disk", "doc.notes", "box.console",
      "0F0E0D0C-0B0A-4908-8706-050403020100.disk"};
  for (const auto& name : ours) MakeVolume(name);
  for (const auto& name : others) MakeVolume(name);
  const std::string defaults = ReadText(Host() / "defaults.yaml");
  {
    Sweeper young(600s);
    std::this_thread::sleep_for(1s);
    EXPECT_EQ(young.Removed(), "");
  }
  for (const auto& name : ours) EXPECT_TRUE(HasVolume(name)) << name;
  {
    // Of another hypervisor that has the pool, too.
    const std::string mark = "hypervisor." + nobody;
    MakeVolume(mark);
    Sweeper theirs(0s);
    std::this_thread::sleep_for(1s);
    EXPECT_EQ(theirs.Removed().find(nobody), std::string::npos);
    for (const auto& name : ours) {
      if (!HasVolume(name)) MakeVolume(name);  // half a document is anybody's
    }
    Virsh({"vol-delete", "--pool", "sbxfs", mark});
  }
  Sweeper sweeper(0s);
  for (const auto& name : ours) {
    EXPECT_TRUE(Eventually([&] { return !HasVolume(name); })) << name;
    EXPECT_NE(sweeper.Removed().find(name + '\n'), std::string::npos) << name;
  }
  for (const auto& name : others) {
    EXPECT_TRUE(HasVolume(name)) << name;
    Virsh({"vol-delete", name, "sbxfs"});
  }
  for (const char* part : {".disk", ".seed", ".console"}) {
    EXPECT_TRUE(HasVolume(uuid + part)) << part;
  }
  EXPECT_EQ(ReadText(Host() / "defaults.yaml"), defaults);
}

// As of hundreds that were removed by daemons that were killed.
TEST_F(OrphanTest, AThousandAreRemovedInOneGo) {
  const stdfs::path pool = "/var/lib/libvirt/sbxfs";
  Virsh({"vol-create-as", "sbxfs", "one", "8M", "--format", "qcow2"});
  for (int i = 0; i < 250; ++i) {
    const std::string nobody = fmt::format("{:03}{}", i, kNobody + 3);
    for (const char* kind : {".disk", ".disk.1", ".seed", ".console"}) {
      stdfs::copy_file(pool / "one", pool / (nobody + kind));
    }
  }
  Virsh({"vol-delete", "--pool", "sbxfs", "one"});
  Virsh({"pool-refresh", "sbxfs"});
  const auto begin = std::chrono::steady_clock::now();
  Sweeper sweeper(0s);
  EXPECT_TRUE(Eventually(
      [&] {
        return std::none_of(
            stdfs::directory_iterator(pool), {}, [](const auto& entry) {
              return entry.path().filename().string().find(kNobody + 3) !=
                     std::string::npos;
            });
      },
      60s));
  fmt::print("swept in {} ms\n",
             std::chrono::duration_cast<std::chrono::milliseconds>(
                 std::chrono::steady_clock::now() - begin)
                 .count());
}

// A connection that is lost in the middle cannot give the lease back.
TEST_F(OrphanTest, OnesOwnLeaseIsNotWaitedFor) {
  mount_->ExpectLoggedErrors();
  const stdfs::path lease = "/var/lib/libvirt/sbxfs/lease.background";
  const std::string orphan = std::string(kNobody) + ".disk";
  MakeVolume(orphan);
  std::string holder;
  std::thread reader([&] {
    const auto until = std::chrono::steady_clock::now() + 20s;
    // The mark of the process, and the holder's number in it.
    while (std::count(holder.begin(), holder.end(), '\n') != 2 &&
           std::chrono::steady_clock::now() < until) {
      std::ifstream file(lease);
      holder.assign(std::istreambuf_iterator<char>(file), {});
    }
  });
  Sweeper sweeper(0s);
  EXPECT_TRUE(Eventually([&] { return !HasVolume(orphan); }));
  reader.join();
  ASSERT_EQ(std::count(holder.begin(), holder.end(), '\n'), 2) << holder;
  EXPECT_TRUE(Eventually([&] { return !stdfs::exists(lease); }));
  MakeVolume(orphan);
  std::ofstream(lease) << holder;
  KillLibvirtd();
  StartLibvirtd();
  EXPECT_TRUE(Eventually([&] { return !HasVolume(orphan); }, 60s));
  EXPECT_TRUE(Eventually([&] { return !stdfs::exists(lease); }));
  ExpectConnected();
}

TEST_F(OrphanTest, WhatAnotherStandsOnStays) {
  const std::string layer = std::string(kNobody) + ".disk";
  const std::string used = std::string(kNobody) + ".seed";
  MakeVolume(layer);
  MakeVolume(used);
  Virsh({"vol-create-as", "sbxfs", "top", "1M", "--format", "qcow2",
         "--backing-vol", layer, "--backing-vol-format", "raw"});
  const stdfs::path xml = Dir().string() + ".xml";
  std::ofstream(xml)
      << "<domain type='qemu'><name>other</name><memory>32768</memory>"
         "<os><type>hvm</type></os><devices><disk type='volume'>"
         "<source pool='sbxfs' volume='"
      << used << "'/><target dev='vda' bus='virtio'/></disk></devices>"
      << "</domain>";
  Virsh({"define", xml.string()});
  MakeVolume(std::string(kNobody) + ".console");
  {
    Sweeper sweeper(0s);
    EXPECT_TRUE(
        Eventually([&] { return sweeper.Removed().ends_with(".console\n"); }));
    std::this_thread::sleep_for(300ms);
    EXPECT_EQ(sweeper.Removed(), std::string(kNobody) + ".console\n");
  }
  EXPECT_TRUE(HasVolume(layer));
  EXPECT_TRUE(HasVolume(used));
  Virsh({"undefine", "other"});
  for (const std::string& name : {std::string("top"), layer, used}) {
    Virsh({"vol-delete", name, "sbxfs"});
  }
}

// As a daemon leaves it that is killed between the volume and what it says: it
// has the size of that, and nothing in it.
TEST_F(OrphanTest, ALeaseWithoutAWordKeepsNobodyFromSweeping) {
  Virsh(
      {"vol-create-as", "sbxfs", "lease.background", "102", "--format", "raw"});
  const std::string orphan = std::string(kNobody) + ".disk";
  MakeVolume(orphan);
  Sweeper sweeper(0s);
  EXPECT_TRUE(Eventually([&] { return !HasVolume(orphan); }, 60s));
}

// Wherever in mkdir the daemon dies: the sandbox is whole, or a sweep leaves
// nothing of it.
TEST_F(OrphanTest, ADaemonKilledInTheMiddleOfMkdirLeavesNothing) {
  const int rounds = LongRun() ? 60 : 12;
  const World empty = World::Now();
  int made = 0;
  int orphans = 0;
  for (int round = 0; round < rounds; ++round) {
    KilledWithin(round * 60ms / rounds, [this] {
      (void)Call([&] { return mkdir((Dir() / "box").c_str(), 0700); });
    });
    if (stdfs::exists(Dir() / "box")) {
      ++made;
      EXPECT_EQ(Status("box"), "stopped");
      EXPECT_EQ(ReadText(Dir() / "box/pending"), "");
      Clear(Dir());
    } else if (World::Now() != empty) {
      ++orphans;
    }
    Sweeper sweeper(0s);
    EXPECT_TRUE(Eventually([&] { return World::Now() == empty; }))
        << "round " << round << ", " << testing::PrintToString(World::Now());
  }
  fmt::print("{} rounds: {} made the sandbox, {} left volumes to sweep\n",
             rounds, made, orphans);
  EXPECT_GT(orphans, 0) << "no kill came in the middle";
}

TEST_F(OrphanTest, ADaemonKilledInTheMiddleOfRmdirLosesNothingHalf) {
  const int rounds = LongRun() ? 30 : 8;
  const World empty = World::Now();
  int gone = 0;
  for (int round = 0; round < rounds; ++round) {
    Mkdir("box");
    ASSERT_EQ(rmdir((Dir() / "box").c_str()), 0);
    KilledWithin(round * 30ms / rounds, [this] {
      (void)Call([&] { return rmdir((Host() / "trash/box").c_str()); });
    });
    if (stdfs::exists(Host() / "trash/box")) {
      // The same call goes on where that one was cut off.
      EXPECT_EQ(Call([&] { return rmdir((Host() / "trash/box").c_str()); }),
                Verdict{});
    } else {
      ++gone;
    }
    EXPECT_TRUE(Eventually([&] { return World::Now() == empty; }))
        << "round " << round << ", " << testing::PrintToString(World::Now());
  }
  fmt::print("{} of {} rounds were finished\n", gone, rounds);
}

// The mark beside it names its writer, so the next mount knows at once.
TEST_F(OrphanTest, AnImageWhoseDaemonWasKilledIsGoneAfterTheNextMount) {
  const World before = World::Now();
  const std::string image = Host() / "images/half";
  const int fd = open(image.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
  ASSERT_GE(fd, 0);
  const std::string bytes = BlankDisk();
  ASSERT_EQ(write(fd, bytes.data(), bytes.size()), ssize_t(bytes.size()));
  ASSERT_TRUE(HasVolume("partial.half"));
  {
    // Another mount leaves it alone: its writer lives.
    Sweeper other(0s);
    std::this_thread::sleep_for(600ms);
    EXPECT_EQ(other.Removed(), "");
  }
  ASSERT_TRUE(HasVolume("image.half"));
  mount_->Crash();
  close(fd);
  mount_->Start();
  EXPECT_FALSE(stdfs::exists(image));
  EXPECT_TRUE(Eventually([&] { return World::Now() == before; }))
      << testing::PrintToString(World::Now());
  EXPECT_NE(ReadText(Host() / "events").find(".host abandoned image.half\n"),
            std::string::npos)
      << ReadText(Host() / "events");
  // Nor does one that is not swept yet bar its name.
  std::ofstream(image) << bytes;
  EXPECT_TRUE(stdfs::exists(image));
  EXPECT_EQ(unlink(image.c_str()), 0);
}

TEST_F(OrphanTest, ADaemonKilledWhileItStoresADocumentKeepsOneOfTheTwo) {
  const std::string text = ReadText(Host() / "defaults.yaml");
  const int rounds = LongRun() ? 40 : 8;
  std::string last = text;
  for (int round = 0; round < rounds; ++round) {
    const std::string next = fmt::format("{}# round {}, {}\n", text, round,
                                         std::string(100000, 'x'));
    KilledWithin(round * 30ms / rounds,
                 [&] { (void)WriteText(Host() / "defaults.yaml", next); });
    const std::string now = ReadText(Host() / "defaults.yaml");
    EXPECT_TRUE(now == last || now == next) << round << ": " << now.size();
    last = now;
  }
  Sweeper sweeper(0s);
  EXPECT_TRUE(Eventually([] {
    const std::string volumes = World::Now().volumes;
    const auto first = volumes.find("doc.defaults.yaml.");
    return volumes.find("doc.defaults.yaml.", first + 1) == std::string::npos;
  })) << World::Now().volumes;
  ASSERT_EQ(WriteText(Host() / "defaults.yaml", text), Verdict{});
  before_ = World::Now();
}

}  // namespace
}  // namespace sbxfs
