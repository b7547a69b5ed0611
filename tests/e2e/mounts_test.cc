// Host directories in a booted guest, of a sandbox that is an ordinary user's
// on root's mount. The tests go on from each other in their order.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

constexpr uid_t kUser = 4242;
constexpr auto kLive = 30s;  // for a change to reach the guest

// Speaks SFTP as no sshfs would, over the channel that sshfs is given. What
// the server answered goes to /tmp/answers, a word for each path.
constexpr char kHostile[] = R"py(#!/usr/bin/python3
import os, struct
def read(n):
    data = b''
    while len(data) < n:
        part = os.read(0, n - len(data))
        if not part: raise EOFError
        data += part
    return data
def ask(packet):
    os.write(1, struct.pack('>I', len(packet)) + packet)
    return read(struct.unpack('>I', read(4))[0])
def string(text):
    return struct.pack('>I', len(text)) + text.encode()
log = open('/tmp/answers', 'w')
ask(struct.pack('>BI', 1, 3))
for path in open('/tmp/paths').read().split():
    for kind, rest in (('open', string(path) + struct.pack('>II', 1, 0)),
                       ('mode', string(path) + struct.pack('>III', 4, 0o777, 0))):
        reply = ask(struct.pack('>BI', 3 if kind == 'open' else 9, 7) + rest)
        word = 'yes'
        if reply[0] == 101:
            word = str(struct.unpack('>I', reply[5:9])[0])
        log.write('%s %s %s\n' % (kind, path, word))
log.close()
)py";

class MountsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!NoBootBecause().empty()) return;
    const bool warm = BringTemplate();
    mount_ = std::make_unique<GuestMount>(
        std::string(warm ? "" : "cold,") +
        "allow_other,start_timeout=600,stop_timeout=90");
    before_ = World::Now();
    if (warm) {  // it goes with its image
      std::istringstream volumes(std::exchange(before_.volumes, ""));
      for (std::string name; std::getline(volumes, name);) {
        if (name.starts_with("hypervisor.")) before_.volumes += name + '\n';
      }
    }
    const stdfs::path top = mount_->Dir().string() + ".host";
    stdfs::create_directories(top);
    src_ = top / "src";
    lib_ = top / "lib";
    stdfs::create_directories(src_);
    stdfs::create_directories(lib_);
    stdfs::create_directories(top / "roots");
    std::ofstream(src_ / "from-host") << "host\n";
    std::ofstream(lib_ / "lib.h") << "lib\n";
    std::ofstream(top / "secret") << "secret\n";
    for (const auto& path : {src_, src_ / "from-host", top / "secret"}) {
      EXPECT_EQ(chown(path.c_str(), kUser, kUser), 0);
    }
    EXPECT_EQ(chmod((top / "secret").c_str(), 0600), 0);
    EXPECT_EQ(chmod((top / "roots").c_str(), 0700), 0);
  }
  static void TearDownTestSuite() {
    if (mount_ == nullptr) return;
    if (stdfs::exists(Box())) Clear(mount_->Dir());
    (void)unlink((Host() / "images/debian-12").c_str());
    EXPECT_TRUE(Eventually([] { return World::Now() == before_; }))
        << testing::PrintToString(World::Now());
    mount_->Stop();
    stdfs::remove_all(mount_->Dir().string() + ".host");
    mount_.reset();
  }
  void SetUp() override {
    if (const auto why = NoBootBecause(); !why.empty()) GTEST_SKIP() << why;
    if (broken_) GTEST_SKIP() << "an earlier step failed";
  }
  // Without the earlier steps the later ones only waste time.
  void TearDown() override { broken_ = broken_ || HasFatalFailure(); }

  static stdfs::path Host() { return mount_->Dir() / ".host"; }
  static stdfs::path Box() { return mount_->Dir() / "box"; }
  static std::string Errors() {
    return ReadText(Box() / "error") + ReadText(Host() / "error") +
           ReadText(Box() / "ready");
  }
  // A command of the user's on this machine.
  static Ended AsUser(const std::string& script) {
    const std::string id = fmt::to_string(kUser);
    return RunProgram({"setpriv", "--reuid=" + id, "--regid=" + id,
                       "--clear-groups", "sh", "-c", script},
                      60s);
  }
  // What a script of the guest's user comes to: its output, its status last.
  static std::string Guest(const std::string& script) {
    const Ended ended = RunProgram({"ssh", "-F", Host() / "ssh_config", "-o",
                                    "BatchMode=yes", "sbx-box", script},
                                   60s);
    return fmt::format("{}{}", ended.out, ended.status);
  }
  static void Status(const std::string& verb, std::chrono::seconds limit) {
    Writer writer(Box() / "status", verb + "\n");
    const auto verdict = writer.Ended(limit);
    ASSERT_TRUE(verdict.has_value())
        << verb << " goes on and on: " << ReadText(Box() / "progress");
    ASSERT_EQ(*verdict, Verdict{}) << ReadText(Box() / "console.log");
  }
  // The mount points of sshfs.
  static std::string Mounted() {
    return Guest("awk '$3 == \"fuse.sshfs\" {print $2}' /proc/mounts | sort");
  }

  static std::unique_ptr<GuestMount> mount_;
  static World before_;
  static stdfs::path src_, lib_;
  static bool broken_;
};

std::unique_ptr<GuestMount> MountsTest::mount_;
World MountsTest::before_;
stdfs::path MountsTest::src_, MountsTest::lib_;
bool MountsTest::broken_ = false;

TEST_F(MountsTest, T01_LocationsAreCheckedWithTheWritersRights) {
  const stdfs::path image = Host() / "images/debian-12";
  if (!stdfs::exists(image)) {
    ASSERT_EQ(RunProgram({"cp", GuestImage(), image}, 120s).status, 0);
  }
  ASSERT_EQ(AsUser(fmt::format("mkdir '{0}' && printf '%s' '{1}' > "
                               "'{0}/config.yaml'",
                               Box().native(), kWarmConfig))
                .status,
            0)
      << Errors();
  const std::string mounts = Box() / "mounts";
  const std::string roots = src_.parent_path() / "roots";
  auto refused = [&](const std::string& value) {
    const Ended ended =
        AsUser(fmt::format("echo '{}' > '{}/x'", value, mounts));
    EXPECT_NE(ended.status, 0) << value;
    EXPECT_FALSE(stdfs::exists(mounts + "/x"));
    return ended.err + ReadText(Box() / "error");
  };
  EXPECT_NE(refused(roots).find("cannot be read with your rights"),
            std::string::npos);
  EXPECT_NE(refused(lib_.native() + ":w").find("leave ':w' out"),
            std::string::npos);
  EXPECT_NE(refused(lib_ / "lib.h").find("is no directory"), std::string::npos);
  EXPECT_NE(refused(lib_ / "none").find("does not exist"), std::string::npos);
  EXPECT_NE(refused(mount_->Dir()).find("lies inside an sbxfs mount"),
            std::string::npos);
  ASSERT_EQ(AsUser(fmt::format("cd '{}' && echo \"$PWD:w\" > '{}/src' && "
                               "echo '{}' > '{}/lib'",
                               src_.native(), mounts, lib_.native(), mounts))
                .status,
            0)
      << Errors();
  EXPECT_EQ(ReadText(mounts + "/src"), src_.native() + ":w\n");
  EXPECT_EQ(ReadText(mounts + "/lib"), lib_.native() + "\n");
  EXPECT_EQ(ReadText(Box() / "pending"), "");
}

TEST_F(MountsTest, T02_BothSidesSeeTheSameFiles) {
  ASSERT_NO_FATAL_FAILURE(Status("start", 600s));
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  const std::string src = src_, lib = lib_;
  EXPECT_EQ(Guest(fmt::format("cat {}/from-host {}/lib.h", src, lib)),
            "host\nlib\n0");
  EXPECT_EQ(Guest(fmt::format("stat -c %U {}/from-host {}/lib.h && id -un", src,
                              lib)),
            "joe\nnobody\njoe\n0");
  EXPECT_EQ(Guest(fmt::format("cd {} && mkdir made && umask 027 && echo guest "
                              "> made/file && mv made/file moved && chmod 4755 "
                              "moved && ln -s moved link && sudo touch root",
                              src)),
            "0");
  EXPECT_EQ(ReadText(src_ / "moved"), "guest\n");
  for (const char* name : {"made", "moved", "root"}) {
    struct stat status {};
    ASSERT_EQ(stat((src_ / name).c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, kUser) << name;
    EXPECT_EQ(status.st_gid, kUser) << name;
  }
  struct stat status {};
  ASSERT_EQ(stat((src_ / "moved").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0755U);  // no setuid on the host
  EXPECT_EQ(Guest(fmt::format("touch {}/x; sudo touch {}/x", lib, lib)).back(),
            '1');
  EXPECT_FALSE(stdfs::exists(lib_ / "x"));
  std::ofstream(src_ / "later") << "later\n";
  EXPECT_TRUE(
      Eventually([&] { return Guest("cat " + src + "/later") == "later\n0"; }));
}

TEST_F(MountsTest, T03_MountsComeAndGoLive) {
  const std::string mounts = Box() / "mounts";
  ASSERT_EQ(AsUser(fmt::format("rm '{}/lib'", mounts)).status, 0) << Errors();
  EXPECT_TRUE(Eventually([] { return ReadText(Box() / "pending").empty(); }));
  EXPECT_EQ(Mounted(), src_.native() + "\n0");
  ASSERT_EQ(AsUser(fmt::format("echo '{}' > '{}/again'", lib_.native(), mounts))
                .status,
            0)
      << Errors();
  EXPECT_EQ(Mounted(), lib_.native() + '\n' + src_.native() + "\n0");
  ASSERT_EQ(AsUser(fmt::format("echo none > '{}/again'", mounts)).status, 0);
  EXPECT_TRUE(Eventually([] { return ReadText(Box() / "pending").empty(); }));
  EXPECT_EQ(Mounted(), src_.native() + "\n0");
  EXPECT_EQ(ReadText(Box() / "config.yaml").find("again"), std::string::npos);
}

TEST_F(MountsTest, T04_AHostileGuestReadsNothingElse) {
  const std::string secret = src_.parent_path() / "secret";
  mount_->ExpectLoggedErrors();
  ASSERT_EQ(Guest(fmt::format(
                "echo {} | base64 -d > hostile && "
                "sudo install hostile /usr/local/sbin/sshfs && cd {} && "
                "ln -s ../secret in && ln -s {} out && ln -s .. up && "
                "echo '{} ../secret in out up/secret /proc/self/environ "
                "from-host' > /tmp/paths",
                Base64Encode(kHostile), src_.native(), secret, secret)),
            "0");
  // Any change has the directory served anew, to what is now its sshfs.
  EXPECT_NE(AsUser(fmt::format("echo '{}' > '{}/mounts/src'", src_.native(),
                               Box().native()))
                .status,
            0);
  std::string answers;
  EXPECT_TRUE(Eventually(
      [&] {
        answers = Guest("cat /tmp/answers");
        return answers.find("mode from-host") != std::string::npos;
      },
      kLive));
  for (const std::string& path :
       {secret, std::string("../secret"), std::string("in"), std::string("out"),
        std::string("up/secret"), std::string("/proc/self/environ")}) {
    for (const char* kind : {"open", "mode"}) {
      EXPECT_EQ(answers.find(fmt::format("{} {} yes", kind, path)),
                std::string::npos)
          << answers;
      EXPECT_EQ(answers.find(fmt::format("{} {} 0", kind, path)),
                std::string::npos)
          << answers;
    }
  }
  EXPECT_NE(answers.find("open from-host yes"), std::string::npos) << answers;
  struct stat status {};
  ASSERT_EQ(stat(secret.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  EXPECT_EQ(ReadText(Box() / "pending"), "mounts\n");
  ASSERT_EQ(Guest("sudo rm /usr/local/sbin/sshfs"), "0");
  ASSERT_EQ(AsUser(fmt::format("echo '{}:w' > '{}/mounts/src'", src_.native(),
                               Box().native()))
                .status,
            0)
      << Errors();
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  EXPECT_EQ(Mounted(), src_.native() + "\n0");
}

TEST_F(MountsTest, T05_TheServerIsTheUsersAndOutlivesTheDaemon) {
  auto servers = [] {
    return RunProgram(
               {"pgrep", "-x", "-u", fmt::to_string(kUser), "sbxfs-mount"})
        .out;
  };
  const std::string server = servers();
  ASSERT_NE(server, "");
  mount_->Crash();
  EXPECT_EQ(servers(), server);
  mount_->Start();
  EXPECT_EQ(Guest(fmt::format("echo on > {}/on", src_.native())), "0");
  EXPECT_EQ(ReadText(src_ / "on"), "on\n");
  EXPECT_EQ(ReadText(Box() / "pending"), "");
  EXPECT_EQ(servers(), server);
  // The new daemon has it in its care as well.
  ASSERT_EQ(RunProgram({"kill", "-9", std::string(Trim(server))}).status, 0);
  EXPECT_TRUE(
      Eventually([&] { return Mounted() == src_.native() + "\n0"; }, kLive));
  EXPECT_NE(servers(), server);
}

TEST_F(MountsTest, T06_ThereAgainAfterARebootOrToldOf) {
  if (!LongRun()) GTEST_SKIP() << "one of tests/run --long";
  const std::string boot = Guest("cat /proc/sys/kernel/random/boot_id");
  ASSERT_EQ(AsUser(fmt::format("echo '{}' > '{}'", lib_.native(),
                               (Box() / "mounts/lib").native()))
                .status,
            0)
      << Errors();
  const stdfs::path away = lib_.native() + ".away";
  (void)Guest("sudo reboot");
  stdfs::rename(lib_, away);
  EXPECT_TRUE(Eventually(
      [&] {
        const std::string now = Guest("cat /proc/sys/kernel/random/boot_id");
        return now.ends_with("\n0") && now != boot &&
               Mounted() == src_.native() + "\n0";
      },
      600s));
  // The other is why it is not ready, though it can be reached.
  EXPECT_TRUE(Eventually(
      [] {
        return ReadText(Box() / "ready").find("failed") != std::string::npos;
      },
      kLive))
      << ReadText(Box() / "ready");
  EXPECT_THAT(
      ReadLine(Box() / "ready"),
      testing::StartsWith("no: a mount failed: Cannot mount 'lib' in 'box': "));
  // It is tried again by itself.
  stdfs::rename(away, lib_);
  EXPECT_TRUE(Eventually(
      [] { return ReadText(Box() / "ready").starts_with("yes "); }, 90s))
      << ReadText(Box() / "ready");
  EXPECT_THAT(Mounted(), testing::HasSubstr(lib_.native()));
  EXPECT_TRUE(
      Eventually([&] { return ReadText(Box() / "pending").empty(); }, kLive));
}

TEST_F(MountsTest, T07_NothingIsLeftInTheEnd) {
  Status("kill", 30s);
  EXPECT_TRUE(Eventually([] {
    return RunProgram({"pgrep", "-x", "sbxfs-mount"}).out.empty();
  }));
  const std::string box = Box();
  ASSERT_EQ(AsUser("rmdir '" + box + "'").status, 0) << Errors();
  EXPECT_EQ(Call([] { return rmdir((Host() / "trash/box").c_str()); }),
            Verdict{});
}

}  // namespace
}  // namespace sbxfs
