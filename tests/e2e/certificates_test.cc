// Guests let in who has a certificate of their own sandbox's, while it lasts.
#include <fmt/format.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "backend/core.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class SshCertificatesTest : public DebianGuests {
 protected:
  SshCertificatesTest() : DebianGuests(Boots::kWarmIfItCan) {}

  void SetUp() override {
    DebianGuests::SetUp();
    if (mount_ == nullptr || HasFatalFailure()) return;
    // One that no guest knows.
    key_ = Dir().string() + ".key";
    ASSERT_EQ(RunProgram({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C",
                          "", "-f", key_})
                  .status,
              0);
  }

  // Whether a certificate, with that key and nothing else, is let in.
  bool LetsIn(const std::string& name, const std::string& certificate) {
    const std::string file = Dir().string() + ".certificate";
    std::ofstream(file) << certificate;
    const Ended ended = RunProgram(
        {"ssh",
         "-F",
         "/dev/null",
         "-o",
         "BatchMode=yes",
         "-o",
         "IdentitiesOnly=yes",
         "-o",
         "IdentityAgent=none",
         "-o",
         "StrictHostKeyChecking=yes",
         "-o",
         "UserKnownHostsFile=" + (Dir() / name / "known_hosts").string(),
         "-i",
         key_,
         "-o",
         "CertificateFile=" + file,
         "-p",
         ReadLine(Dir() / name / "ssh_port"),
         "joe@127.0.0.1",
         "echo in"},
        60s);
    if (ended.status == 0) return ended.out == "in\n";
    EXPECT_NE(ended.err.find("Permission denied (publickey"), std::string::npos)
        << ended.err;
    return false;
  }
  // One for that key.
  std::string Certificate(const std::string& name) {
    return CertificateOf(Dir() / name, key_ + ".pub");
  }
  // One of the mount's authority that the test signs by itself.
  std::string Signed(const std::string& principal, const std::string& valid) {
    const Ended ended =
        RunProgram({"ssh-keygen", "-q", "-s", DataDirectory() + "/ssh_ca", "-I",
                    "test", "-n", principal, "-V", valid, key_ + ".pub"});
    EXPECT_EQ(ended.status, 0) << ended.err;
    std::string text = ReadText(key_ + "-cert.pub");
    stdfs::remove(key_ + "-cert.pub");
    return text;
  }
  [[nodiscard]] static std::string SerialOf(const std::string& certificate) {
    const std::string file = "/tmp/sbxfs-serial-cert.pub";
    std::ofstream(file) << certificate;
    const std::string shown = RunProgram({"ssh-keygen", "-Lf", file}).out;
    stdfs::remove(file);
    const auto at = shown.find("Serial: ");
    return at == std::string::npos
               ? "none"
               : shown.substr(at + 8, shown.find('\n', at) - at - 8);
  }

  std::string key_;
};

TEST_F(SshCertificatesTest, ItsOwnAloneWhileTheyLastAndUntilTheyAreRevoked) {
  Make("box", std::string(kWarmConfig) + "ssh: {ca: true}\n");
  Make("other", kWarmConfig);
  Do("box/status", "start");
  Do("other/status", "start");
  EXPECT_FALSE(LetsIn("box", ""));
  const std::string mine = Certificate("box");
  EXPECT_TRUE(LetsIn("box", mine));
  const std::string told = fmt::format(
      " box certificate serial {} for uid 0, until 2", SerialOf(mine));
  EXPECT_NE(ReadText(Dir() / "box/events").find(told), std::string::npos)
      << told << ReadText(Dir() / "box/events");
  const auto audited = [&](const std::string& words) {
    return ReadText(Host() / "audit").find(words) != std::string::npos;
  };
  EXPECT_TRUE(audited(" write box/ssh_cert ok ssh-ed25519 "));

  // Another guest that trusts nobody yet, and then its own.
  EXPECT_FALSE(LetsIn("other", mine));
  std::ofstream(Dir() / "other/config.yaml")
      << kWarmConfig << "ssh: {ca: true}\n";
  const std::string others = Certificate("other");
  EXPECT_TRUE(Eventually([&] { return LetsIn("other", others); }, 60s))
      << ReadText(Dir() / "other/error");
  EXPECT_EQ(ReadText(Dir() / "other/pending"), "");
  EXPECT_FALSE(LetsIn("other", mine));
  EXPECT_FALSE(LetsIn("box", others));

  // A clone that goes on from its memory is another, too.
  ASSERT_EQ(mkdir((Dir() / "box/clones/fork").c_str(), 0700), 0)
      << ReadText(Dir() / "box/error");
  Do("fork/status", "start");
  EXPECT_TRUE(LetsIn("fork", Certificate("fork")));
  EXPECT_FALSE(LetsIn("fork", mine));
  ASSERT_EQ(WriteText(Dir() / "fork/status", "kill\n"), Verdict{});

  const std::string uuid = Virsh({"domuuid", "box"});
  EXPECT_TRUE(LetsIn("box", Signed(uuid, "-1m:+5m")));
  EXPECT_FALSE(LetsIn("box", Signed(uuid, "-2h:-1m"))) << "it has expired";
  EXPECT_FALSE(LetsIn("box", Signed("joe", "-1m:+5m"))) << "a user's name";
  EXPECT_FALSE(LetsIn("box", Signed("box", "-1m:+5m"))) << "the sandbox's";

  // ssh takes one by itself, before the mount's key.
  const Ended plain = RunProgram({"ssh", "-v", "-F", Dir() / "box/ssh_config",
                                  "-o", "BatchMode=yes", "sbx-box", "true"},
                                 60s);
  EXPECT_EQ(plain.status, 0);
  EXPECT_NE(plain.err.find("Server accepts key: " +
                           (Dir() / "box/ssh_cert").string()),
            std::string::npos)
      << plain.err;
  EXPECT_TRUE(audited(" certify box/ssh_cert ok serial "));

  EXPECT_TRUE(LetsIn("box", mine));
  ASSERT_EQ(WriteText(Dir() / "box/ssh_cert", "revoke\n"), Verdict{});
  EXPECT_FALSE(LetsIn("box", mine));
  EXPECT_FALSE(LetsIn("box", Signed(uuid, "-1m:+5m")));
  EXPECT_TRUE(LetsIn("other", others)) << "they are another sandbox's";
  EXPECT_NE(ReadText(Dir() / "box/events").find(" box certificates revoked\n"),
            std::string::npos);

  // One that is paused or saved meanwhile learns of it as it goes on.
  for (const auto& [off, on] :
       {std::pair{"pause", "resume"}, {"save", "start"}}) {
    const std::string before = Certificate("box");
    EXPECT_TRUE(LetsIn("box", before)) << off;
    Do("box/status", off);
    ASSERT_EQ(WriteText(Dir() / "box/ssh_cert", "revoke\n"), Verdict{});
    Do("box/status", on);
    EXPECT_TRUE(Eventually([&] { return !LetsIn("box", before); }, 60s)) << on;
  }

  const std::string last = Certificate("box");
  EXPECT_TRUE(LetsIn("box", last));
  std::ofstream(Dir() / "box/config.yaml") << kWarmConfig;
  EXPECT_TRUE(Eventually([&] { return !LetsIn("box", last); }, 60s));
  EXPECT_FALSE(stdfs::exists(Dir() / "box/ssh_cert"));
  EXPECT_EQ(In("box", "echo in"), "in") << "the mount's key stays";
}

}  // namespace
}  // namespace sbxfs
