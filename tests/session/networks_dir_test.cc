#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// .host/networks, as requests of the kernel.

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;

class NetworksDirTest : public testing::Test {
 protected:
  FakeBackend backend_;
  FakeFuse fuse_{backend_};
};

TEST_F(NetworksDirTest, MkdirMakesEditorsEditRmdirRemoves) {
  EXPECT_EQ(fuse_.Mkdir(".host/networks/lab"), 0);
  EXPECT_EQ(fuse_.Mkdir(".host/networks/lab"), EEXIST);
  EXPECT_EQ(fuse_.Mkdir(".host/networks/a b"), EINVAL);
  EXPECT_EQ(fuse_.Mkdir(".host/networks/lab/more"), EPERM);
  EXPECT_THAT(fuse_.Ls(".host/networks"), ElementsAre("lab"));
  EXPECT_THAT(fuse_.Ls(".host/networks/lab"),
              ElementsAre("config.yaml", "state", "leases", "members"));
  EXPECT_EQ(fuse_.Cat(".host/networks/lab/state"), "inactive\n");
  EXPECT_EQ(fuse_.Cat(".host/networks/lab/config.yaml"), "mode: shared\n");
  EXPECT_EQ(fuse_.Echo("mode: host", ".host/networks/lab/config.yaml"), 0);
  EXPECT_EQ(fuse_.Cat(".host/networks/lab/config.yaml"), "mode: host\n");
  EXPECT_THAT(backend_.Calls(), Contains("network lab mode: host\n"));
  EXPECT_EQ(fuse_.Echo("x", ".host/networks/lab/state"), EACCES);
  backend_.Fail("network", Error(EINVAL, "Cannot accept 'config.yaml': no"));
  EXPECT_EQ(fuse_.Echo("x", ".host/networks/lab/config.yaml"), EINVAL);
  EXPECT_THAT(fuse_.Cat(".host/error"),
              testing::HasSubstr("Cannot accept 'config.yaml': no"));
  EXPECT_EQ(fuse_.Rename(".host/networks/lab", ".host/networks/x"), EPERM);
  EXPECT_EQ(fuse_.Rmdir(".host/networks/lab"), 0);
  EXPECT_EQ(fuse_.Rmdir(".host/networks/lab"), ENOENT);
  EXPECT_THAT(fuse_.Ls(".host/networks"), ElementsAre());
}

TEST_F(NetworksDirTest, TellsOfMembersThatTheReaderMayUse) {
  backend_.Add("box");
  backend_.UpdateHost([](Host& host) {
    host.networks.push_back(
        {"lab", "mode: host\n", true, true, {"box", "other's"}, {}});
    host.networks.back().leases.push_back(
        {"10.0.0.2", "52:54:00:00:00:01", "", Time()});
  });
  EXPECT_EQ(fuse_.Cat(".host/networks/lab/members"), "box\n?\n");
  EXPECT_THAT(fuse_.Cat(".host/networks/lab/leases"),
              testing::StartsWith("10.0.0.2  52:54:00:00:00:01  -  1970-"));
  EXPECT_EQ(fuse_.Cat(".host/networks/lab/state"), "active\n");
}

TEST_F(NetworksDirTest, RmRTakesNone) {
  ASSERT_EQ(fuse_.Mkdir(".host/networks/lab"), 0);
  EXPECT_EQ(fuse_.Unlink(".host/networks/lab/state"), EPERM);
  EXPECT_EQ(fuse_.Rmdir(".host/networks/lab"), EPERM);
  EXPECT_THAT(fuse_.Ls(".host/networks"), ElementsAre("lab"));
}

}  // namespace
}  // namespace sbxfs
