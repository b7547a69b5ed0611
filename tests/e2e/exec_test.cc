// Commands in a Debian guest, booted once and shared by the tests.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kBoot = 240s;

constexpr char kConfig[] = R"(
memory: 512MiB
disk: 4GiB
user:
  name: joe
env:
  FROM_CONFIG: two words
)";

class ExecTest : public testing::Test {
 protected:
  static std::string Because() {
    if (const auto why = NoGuestsBecause(); !why.empty()) return why;
    const char* image = std::getenv("SBXFS_TEST_IMAGE");
    if (image == nullptr || *image == '\0') {
      return "needs a guest image: set SBXFS_TEST_IMAGE to its path";
    }
    return "";
  }
  static void SetUpTestSuite() {
    if (!Because().empty()) return;
    mount_ = std::make_unique<GuestMount>("start_timeout=240,stop_timeout=90");
    const stdfs::path image = mount_->Dir() / ".host/images/debian-12";
    if (!stdfs::exists(image)) {
      const Ended cp = RunProgram(
          {"cp", std::getenv("SBXFS_TEST_IMAGE"), image.string()}, 120s);
      ASSERT_EQ(cp.status, 0) << cp.err;
    }
    ASSERT_EQ(Call([] { return mkdir(Box().c_str(), 0700); }), Verdict{});
    std::ofstream(Box() / "config.yaml") << kConfig;
    ASSERT_EQ(ReadText(Box() / "error"), "");
    // Nothing runs yet.
    ASSERT_EQ(Call([] { return mkdir((Exec() / "early").c_str(), 0700); }),
              Verdict{});
    EXPECT_EQ(WriteText(Exec() / "early/command", "true\n"),
              (Verdict{EHOSTDOWN,
                       "Cannot run job 'early': the sandbox is "
                       "stopped; echo start > status first"}));
    Writer start(Box() / "status", "start\n");
    const auto verdict = start.Ended(kBoot);
    ASSERT_TRUE(verdict.has_value()) << ReadText(Box() / "progress");
    ASSERT_EQ(*verdict, Verdict{}) << ReadText(Box() / "console.log");
    up_ = true;
  }
  static void TearDownTestSuite() {
    if (mount_ == nullptr) return;
    if (stdfs::exists(Box())) Clear(mount_->Dir());
    (void)unlink((mount_->Dir() / ".host/images/debian-12").c_str());
    mount_->Stop();
    mount_.reset();
  }
  void SetUp() override {
    if (const auto why = Because(); !why.empty()) GTEST_SKIP() << why;
    if (!up_) GTEST_SKIP() << "the guest did not boot";
  }

  static stdfs::path Box() { return mount_->Dir() / "xbox"; }
  static stdfs::path Exec() { return Box() / "exec"; }
  static stdfs::path Make(const std::string& name) {
    const stdfs::path job = Exec() / name;
    EXPECT_EQ(Call([&] { return mkdir(job.c_str(), 0700); }), Verdict{});
    return job;
  }
  static Verdict Remove(const stdfs::path& job) {
    return Call([&] { return rmdir(job.c_str()); });
  }
  // A whole job: what it said, its exit status; and it is gone again.
  static Ended Run(const std::string& name, const std::string& command,
                   std::chrono::seconds limit = 60s) {
    const stdfs::path job = Make(name);
    Writer writer(job / "command", command);
    const auto verdict = writer.Ended(limit);
    EXPECT_TRUE(verdict.has_value()) << command;
    EXPECT_EQ(verdict.value_or(Verdict{}), Verdict{}) << command;
    Ended ended{0, ReadText(job / "stdout"), ReadText(job / "stderr")};
    const std::string code = ReadLine(job / "exit_code");
    ended.status = code.empty() ? -1 : std::stoi(code);
    EXPECT_EQ(ReadLine(job / "state"), "ended") << command;
    EXPECT_EQ(Remove(job), Verdict{});
    return ended;
  }

  static std::unique_ptr<GuestMount> mount_;
  static bool up_;
};

std::unique_ptr<GuestMount> ExecTest::mount_;
bool ExecTest::up_ = false;

TEST_F(ExecTest, OutputErrorsAndExitCode) {
  const Ended said = Run("1", "echo out; echo err >&2; exit 7");
  EXPECT_EQ(said.out, "out\n");
  EXPECT_EQ(said.err, "err\n");
  EXPECT_EQ(said.status, 7);
  EXPECT_EQ(Run("1", "true\n").status, 0);
  EXPECT_EQ(Run("1", "kill -9 $$").status, 137);
  EXPECT_EQ(Run("1", "no-such-program").status, 127);
  // Several lines are a script.
  EXPECT_EQ(Run("1", "for i in 1 2\ndo echo $i\ndone\n").out, "1\n2\n");
}

TEST_F(ExecTest, QuickEnough) {
  Run("q", "true");
  std::vector<double> took;
  for (int i = 0; i < 9; ++i) {
    const auto begin = Clock::now();
    Run("q", "true");
    took.push_back(
        std::chrono::duration<double, std::milli>(Clock::now() - begin)
            .count());
  }
  std::sort(took.begin(), took.end());
  fmt::print("one command {:.0f} ms, median of {}\n", took[4], took.size());
  EXPECT_LT(took[4], 1000);
}

}  // namespace
}  // namespace sbxfs
