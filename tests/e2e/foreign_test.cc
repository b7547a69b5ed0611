// A Debian guest that others made with virsh, cloned while it runs.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>

#include "backend/run_dir.h"
#include "backend/util/text.h"
#include "tests/support/debian_guests.h"
#include "tests/support/faults.h"
#include "tests/support/reach.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;
using nlohmann::json;

constexpr char kName[] = "theirs";
constexpr char kDomain[] = R"(<domain type='qemu'>
  <name>theirs</name><memory unit='MiB'>512</memory><vcpu>1</vcpu>
  <os><type machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='{}'/><target dev='vda' bus='virtio'/></disk>
    <serial type='null'/>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
</domain>)";

class ForeignTest : public DebianGuests {
 protected:
  void SetUp() override {
    if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
    if (const auto why = NoBootBecause(); !why.empty()) GTEST_SKIP() << why;
    place_ = stdfs::path(std::getenv("SBXFS_INSIDE")) / "theirs";
    stdfs::create_directory(place_);
    ASSERT_EQ(chmod(place_.c_str(), 0755), 0);
    stdfs::copy_file(GuestImage(), place_ / "disk");
    std::ofstream(place_ / "xml")
        << fmt::format(fmt::runtime(kDomain), (place_ / "disk").string());
    Virsh({"define", (place_ / "xml").string()});
    Virsh({"start", kName});
    const FaultsPreloaded faults;
    mount_ = std::make_unique<GuestMount>(
        "all,cold,start_timeout=600,stop_timeout=90");
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    Virsh({"destroy", kName});
    Virsh({"undefine", kName});
    for (const auto& entry : stdfs::directory_iterator(Dir())) {
      if (entry.path().filename() == ".host") continue;
      Do(entry.path().filename() / "status", "kill");
      EXPECT_EQ(Call([&] { return rmdir(entry.path().c_str()); }), Verdict{});
    }
    for (const auto& entry : stdfs::directory_iterator(Host() / "trash")) {
      EXPECT_EQ(Call([&] { return rmdir(entry.path().c_str()); }), Verdict{});
    }
    mount_->Stop();
    stdfs::remove_all(place_);
  }

  // What their agent answers; null for a failure.
  static json Agent(const json& command) {
    const Ended said = RunProgram(
        {"virsh", "-q", "qemu-agent-command", kName, command.dump()});
    const json reply =
        json::parse(said.out, nullptr, /*allow_exceptions=*/false);
    return reply.is_object() ? reply.value("return", json()) : json();
  }
  static std::string Freezes() {
    const json state = Agent({{"execute", "guest-fsfreeze-status"}});
    return state.is_string() ? state.get<std::string>() : "";
  }
  static void In(const std::string& script) {
    const json begun =
        Agent({{"execute", "guest-exec"},
               {"arguments", {{"path", "/bin/sh"}, {"arg", {"-c", script}}}}});
    ASSERT_TRUE(begun.is_object());
    const json ask = {{"execute", "guest-exec-status"},
                      {"arguments", {{"pid", begun["pid"]}}}};
    EXPECT_TRUE(Eventually([&] {
      const json now = Agent(ask);
      return now.is_object() && now.value("exited", false);
    }));
  }

  // Whether the ext4 of a disk would have to replay its journal, as one that
  // was copied while it was written to does: the fourth byte's bit of its
  // "incompatible" features, 96 bytes into the superblock, that at 1024.
  [[nodiscard]] bool NeedsRecovery(const stdfs::path& disk) const {
    const std::string raw = (place_ / "raw").string();
    const Ended converted = RunProgram(
        {"qemu-img", "convert", "-U", "-O", "raw", disk.string(), raw}, 120s);
    EXPECT_EQ(converted.status, 0) << converted.err;
    uint64_t start = 0, most = 0;
    for (const auto line :
         Split(RunProgram({"partx", "-gbo", "START,SIZE", raw}).out, '\n')) {
      std::istringstream words{std::string(line)};
      uint64_t at = 0, size = 0;
      if (words >> at >> size && size > most) start = at, most = size;
    }
    EXPECT_NE(most, 0u);
    std::ifstream file(raw, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(start * 512 + 1024));
    std::array<unsigned char, 128> block{};
    file.read(reinterpret_cast<char*>(block.data()), block.size());
    EXPECT_EQ(block[56] | block[57] << 8, 0xef53) << "no ext4";
    return (block[96] & 4) != 0;
  }

  stdfs::path place_;
};

TEST_F(ForeignTest, AClonesDiskIsThatOfAGuestAtRest) {
  EXPECT_TRUE(Eventually(
      [] {
        return Agent({{"execute", "guest-ping"}}).is_object();
      },
      600s));
  In("until systemctl is-system-running | grep -v start; do sleep 1; done; "
     "echo precious >/root/mark");

  ASSERT_EQ(mkdir((Dir() / kName / "clones/copy").c_str(), 0700), 0)
      << ReadText(Dir() / kName / "error");
  EXPECT_TRUE(Eventually(
      [&] { return ReadLine(Dir() / "copy/status") == "stopped"; }, 120s))
      << ReadText(Dir() / "copy/error");
  EXPECT_EQ(Freezes(), "thawed");
  EXPECT_EQ(ReadText(Dir() / kName / "domain.xml").find("sbxfs.org"),
            std::string::npos);
  const std::string uuid = Virsh({"domuuid", "copy"});
  const std::string disk =
      Virsh({"vol-path", "--pool", "sbxfs", uuid + ".disk"});
  EXPECT_FALSE(NeedsRecovery(disk));
  // That of a guest that runs does.
  Virsh({"suspend", kName});
  EXPECT_TRUE(NeedsRecovery(place_ / "disk"));
  Virsh({"resume", kName});

  // Killed while it is frozen: another daemon thaws it.
  {
    const Hangs hangs;
    mount_->Crash();
    const FaultsPreloaded faults;
    mount_->Start();
    hangs.Begin("virDomainBackupBegin");
    std::thread second([dir = Dir() / kName / "clones/second"] {
      (void)mkdir(dir.c_str(), 0700);
    });
    EXPECT_TRUE(Eventually([] { return Freezes() == "frozen"; }));
    mount_->Crash();
    second.join();
    EXPECT_EQ(Freezes(), "frozen");
    hangs.End("virDomainBackupBegin");
  }
  mount_->ExpectLoggedErrors();  // that it was left so
  mount_->Start();
  EXPECT_TRUE(Eventually([] { return Freezes() == "thawed"; }, 60s));
  EXPECT_TRUE(Eventually([&] {
    return Virsh({"dumpxml", kName}).find("sbxfs.org") == std::string::npos;
  }));

  // What they wrote is there, in a sandbox of its own.
  // It reaches whom it may and nobody else, from its first script on.
  const Answering here;
  const stdfs::path config = Dir() / "copy/config.yaml";
  const std::string before = ReadText(config);
  const std::string egress =
      fmt::format("egress: ['host.lima.internal:{}']\n", here.Port());
  ASSERT_EQ(WriteText(config, before + egress +
                                  fmt::format(R"(provision:
- script: |
    #!/bin/bash
    for i in {{1..20}}; do
      said=$(exec 3<>/dev/tcp/127.0.0.1/3128 &&
        printf 'CONNECT host.lima.internal:{} HTTP/1.1\r\n\r\n' >&3 &&
        tail -c 4 <&3)
      [ "$said" != here ] || exec echo "$http_proxy $said" >/told
      sleep 3
    done
)",
                                              here.Port())),
            Verdict{})
      << ReadText(Dir() / "copy/error");
  Do("copy/status", "start");
  const auto in = [this](const std::string& script) {
    return DebianGuests::In("copy", script);
  };
  EXPECT_EQ(in("sudo cat /root/mark; hostname; cat /told"),
            "precious\nlima-copy\nhttp://127.0.0.1:3128 here");
  EXPECT_TRUE(in(here.Probe()).starts_with("reached:\n"));
  EXPECT_EQ(in("echo $https_proxy; cat /etc/apt/apt.conf.d/95sbxfs"),
            "http://127.0.0.1:3128\n"
            "Acquire::http::Proxy \"http://127.0.0.1:3128\";\n"
            "Acquire::https::Proxy \"http://127.0.0.1:3128\";");
  EXPECT_EQ(in(here.Ask("HOST.lima.internal")),
            "200 Connection established | here");
  EXPECT_EQ(in(here.Ask("host.lima.internal", 22)),
            "403 Forbidden | sbxfs: 'host.lima.internal:22' is not in egress "
            "of config.yaml");
  EXPECT_EQ(ReadText(Dir() / "copy/pending"), "");
  // The list changes while it runs.
  ASSERT_EQ(WriteText(config, before + "egress: [127.0.0.1]\n"), Verdict{});
  EXPECT_TRUE(Eventually(
      [&] {
        return in(here.Ask("host.lima.internal") + ":").starts_with("403");
      },
      60s));
  EXPECT_TRUE(Eventually([&] {
    return ReadText(Dir() / "copy/pending") == "provision\n";
  })) << ReadText(Dir() / "copy/pending");
  EXPECT_EQ(in(here.Ask("127.0.0.1", 80)),
            "502 Bad Gateway | sbxfs: cannot reach '127.0.0.1:80': Connection "
            "refused");
  Do("copy/status", "kill");
  EXPECT_TRUE(Eventually([] {
    return RunProgram({"pgrep", "-x", "sbxfs-egress"}).out.empty();
  }));
  EXPECT_TRUE(Eventually([&] { return !stdfs::exists(RunDirectory(uuid)); }));
}

}  // namespace
}  // namespace sbxfs
