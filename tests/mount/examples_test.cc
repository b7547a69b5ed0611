#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "tests/support/guest_mount.h"

// The templates of mount-helper/examples: sbxfs takes them, and a sandbox made
// by each has what it says.

namespace sbxfs {
namespace {

using testing::HasSubstr;

class Examples : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    mount_ = std::make_unique<GuestMount>("cold");
    Do("cp " SBXFS_SOURCE_DIR
       "/mount-helper/examples/templates/*.yaml .host/templates/");
  }
  void TearDown() override {
    if (mount_ == nullptr) return;
    Clear(mount_->Dir());
    Do("rm .host/templates/*.yaml");
    mount_->Stop();
  }
  // What a script says there; a failure of it is the test's.
  std::string Do(const std::string& script) const {
    const Ended ended =
        RunProgram({"env", "-C", mount_->Dir(), "sh", "-c", script});
    EXPECT_EQ(ended.status, 0)
        << script << '\n'
        << ended.err << ReadText(mount_->Dir() / ".host/error");
    return ended.out;
  }
  // Every setting of a sandbox that is made by it.
  std::string Made(const std::string& name) const {
    Do("echo 'base: template:" + name + "' > " + name + ".yaml");
    EXPECT_EQ(Do("cat " + name + "/error; ls " + name + "/config.yaml*"),
              name + "/config.yaml\n");
    EXPECT_EQ(Do("cat " + name + "/status"), "stopped\n");
    return Do("cat " + name + "/effective.yaml");
  }

  std::unique_ptr<GuestMount> mount_;
};

TEST_F(Examples, Minimal) {
  const std::string effective = Made("minimal");
  for (const char* line :
       {"cpus: 1 ", "memory: 512MiB ", "disk: 4GiB ", "idle: 10m "}) {
    EXPECT_THAT(effective, HasSubstr(line));
  }
}

TEST_F(Examples, Docker) {
  const std::string effective = Made("docker");
  EXPECT_THAT(effective,
              HasSubstr("install --no-install-recommends apparmor docker.io"));
  EXPECT_THAT(effective, HasSubstr("usermod -aG docker \"$LIMA_CIDATA_USER\""));
  EXPECT_THAT(effective, HasSubstr("guestSocket: /run/docker.sock"));
}

TEST_F(Examples, Agent) {
  const std::string effective = Made("agent");
  EXPECT_THAT(effective, HasSubstr("contrib/dockerd-rootless.sh"));
  EXPECT_THAT(effective, HasSubstr("/run/user/{{.UID}}/docker.sock"));
  EXPECT_THAT(effective, HasSubstr("idle: 1h "));
}

}  // namespace
}  // namespace sbxfs
