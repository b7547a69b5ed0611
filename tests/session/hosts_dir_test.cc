#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// .host/hosts and host, as requests of the kernel.

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;

// What is its own is the first one's; the other stands beside it.
class Several : public FakeBackend {
 public:
  [[nodiscard]] std::vector<std::string> Members() const override {
    return {"first", "other"};
  }
  [[nodiscard]] Backend* Member(const std::string& name) override {
    if (name == "first") return this;
    return name == "other" ? &other : nullptr;
  }
  void SetHost(const Caller&, const std::string& uuid, const std::string& name,
               Reply<Done> reply) override {
    Update(uuid, [&](Sandbox& sandbox) { sandbox.host = name; });
    reply.Ok();
  }
  FakeBackend other;
};

TEST(HostsDir, IsThereWithSeveralAlone) {
  FakeBackend backend;
  const std::string uuid = backend.Add("box");
  FakeFuse fuse(backend);
  EXPECT_THAT(fuse.Ls(".host"), Not(Contains("hosts")));
  EXPECT_EQ(fuse.Cat("box/host"), fuse.Cat(".host/uri"));
  EXPECT_EQ(fuse.Echo("other", "box/host"), EOPNOTSUPP);
  EXPECT_EQ(fuse.Mkdir(".host/hosts"), EPERM);
}

TEST(HostsDir, EachHasItsOwn) {
  Several backend;
  const std::string uuid = backend.Add("box");
  backend.Update(uuid, [](Sandbox& sandbox) { sandbox.host = "first"; });
  backend.other.UpdateHost([](Host& host) {
    host.uri = "qemu+ssh://other/system";
    host.networks.push_back({"lab", "mode: host\n", true, true, {}, {}});
  });
  FakeFuse fuse(backend);
  EXPECT_THAT(fuse.Ls(".host/hosts"), ElementsAre("first", "other"));
  EXPECT_THAT(fuse.Ls(".host/hosts/other"),
              ElementsAre("uri", "uri.explain", "connection", "capacity",
                          "warm", "images", "disks", "networks"));
  EXPECT_EQ(fuse.Cat(".host/hosts/other/uri"), "qemu+ssh://other/system\n");
  EXPECT_EQ(fuse.Cat(".host/uri"), fuse.Cat(".host/hosts/first/uri"));
  EXPECT_THAT(fuse.Ls(".host/hosts/other/networks"), ElementsAre("lab"));
  EXPECT_THAT(fuse.Ls(".host/networks"), ElementsAre());
  EXPECT_EQ(fuse.Mkdir(".host/hosts/first/networks/lab"), 0);
  EXPECT_NE(fuse.Walk(".host/hosts/first/networks/lab/state"),
            fuse.Walk(".host/hosts/other/networks/lab/state"));
  EXPECT_EQ(fuse.Rmdir(".host/hosts/other/networks/lab"), 0);
  EXPECT_THAT(backend.other.Calls(), Contains("remove network lab"));
  EXPECT_THAT(fuse.Ls(".host/networks"), ElementsAre("lab"));
  EXPECT_EQ(fuse.Mkdir(".host/hosts/third"), EPERM);
  EXPECT_EQ(fuse.Rmdir(".host/hosts/other"), EPERM);

  EXPECT_EQ(fuse.Cat("box/host"), "first\n");
  EXPECT_EQ(fuse.Echo("other", "box/host"), 0);
  EXPECT_EQ(fuse.Cat("box/host"), "other\n");
  EXPECT_THAT(fuse.Cat(".host/list"), testing::HasSubstr("box   other"));
}

}  // namespace
}  // namespace sbxfs
