// The tree over several hypervisors: each request reaches the one that has the
// sandbox, and no other.
#include "backend/fleet.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;
using testing::Not;
using testing::UnorderedElementsAre;

class FleetOfTwo : public testing::Test {
 protected:
  FleetOfTwo() {
    near_id_ = Add(near_, "near");
    far_.Erase(far_.Add("pad"));  // two fakes count alike
    far_id_ = Add(far_, "box");
  }
  static std::string Add(FakeBackend& backend, const std::string& name) {
    std::string uuid = backend.Add(name);
    backend.Update(uuid,
                   [](Sandbox& sandbox) { sandbox.state = State::kRunning; });
    return uuid;
  }
  // Two, which the fleet has.
  std::vector<NamedBackend> Backends() {
    std::vector<NamedBackend> both;
    for (const char* name : {"one", "two"}) {
      both.push_back({name, std::make_unique<FakeBackend>()});
    }
    return both;
  }

  std::vector<NamedBackend> backends_ = Backends();
  FakeBackend& near_ = dynamic_cast<FakeBackend&>(*backends_[0].backend);
  FakeBackend& far_ = dynamic_cast<FakeBackend&>(*backends_[1].backend);
  std::unique_ptr<Backend> fleet_ = MakeFleet(std::move(backends_));
  std::string near_id_, far_id_;
  FakeFuse fuse_{*fleet_};
};

TEST_F(FleetOfTwo, WhatIsDoneToASandboxReachesItsOwnHypervisor) {
  EXPECT_EQ(fuse_.Mkdir("box/snapshots/a"), 0);
  EXPECT_EQ(fuse_.Rename("box/snapshots/a", "box/snapshots/b"), 0);
  EXPECT_EQ(fuse_.Echo("clean", "box/snapshots/b/description"), 0);
  EXPECT_EQ(fuse_.Echo("b!", "box/snapshot"), 0);
  EXPECT_EQ(fuse_.Rmdir("box/snapshots/b"), 0);
  EXPECT_EQ(fuse_.Mkdir("box/clones/copy"), 0);
  EXPECT_EQ(fuse_.Echo("kept", "box/commit"), 0);
  EXPECT_EQ(fuse_.Echo("4", "box/cpus"), 0);
  EXPECT_EQ(fuse_.Copy("3000\n", "box/ports/3000"), 0);
  EXPECT_EQ(fuse_.Chmod("box", 0750), 0);
  EXPECT_EQ(fuse_.Echo("kill", "box/status"), 0);
  far_.Update(far_id_, [](Sandbox& sandbox) {
    sandbox.rejected = "x: 1\n";
    sandbox.state = State::kStopped;
  });
  EXPECT_EQ(fuse_.Unlink("box/config.yaml.rejected"), 0);
  EXPECT_EQ(fuse_.Rename("box", "other"), 0);
  EXPECT_EQ(fuse_.Rmdir("other"), 0);
  EXPECT_EQ(fuse_.Rmdir(".host/trash/other"), 0);
  EXPECT_THAT(
      far_.Calls(),
      IsSupersetOf({"take box a", "retag box a b", "describe box b clean",
                    "drop box b", "clone box  copy", "commit box kept",
                    "set box cpus 4", "rename box other", "remove other",
                    "purge other", "forget box"}));
  EXPECT_THAT(near_.Calls(), IsEmpty());
  // It is nobody's any more.
  EXPECT_EQ(fleet_->Effective(far_id_), "");
  std::string told;
  fleet_->Remove({}, far_id_, Reply<Done>([&](Outcome<Done> outcome) {
                   told = std::get<Error>(outcome).Sentence();
                 }));
  EXPECT_EQ(told, "Cannot go on: the sandbox is gone");
}

TEST_F(FleetOfTwo, JobsAndFilesAreThoseOfItsGuest) {
  EXPECT_EQ(fuse_.Mkdir("box/exec/1"), 0);
  EXPECT_THAT(fuse_.Ls("box/exec"), Contains("1"));
  EXPECT_THAT(fuse_.Ls("near/exec"), Not(Contains("1")));
  const auto command = fuse_.Open("box/exec/1/command", O_WRONLY);
  ASSERT_EQ(command.error, 0);
  const uint64_t running = fuse_.SendWrite(command, "ls\n");
  FakeJobs& jobs = dynamic_cast<FakeJobs&>(far_.GetJobs());
  const std::string id = jobs.Last();
  const auto out = fuse_.Open("box/exec/1/stdout", O_RDONLY);
  jobs.Say(id, "here\n", "");
  jobs.End(id, 3);
  EXPECT_EQ(fuse_.Wait(running).error, 0);
  EXPECT_EQ(fuse_.Read(out), "here\n");
  EXPECT_EQ(fuse_.Cat("box/exec/1/exit_code"), "3\n");
  EXPECT_EQ(fuse_.Close(out), 0);
  EXPECT_EQ(fuse_.Close(command), 0);
  EXPECT_EQ(fuse_.Rmdir("box/exec/1"), 0);
  EXPECT_THROW(fleet_->GetJobs().Make("nobody's", "1"), Error);

  far_.GetFiles().Put({far_id_, ""}, "", S_IFDIR | 0755, "", 0);
  far_.GetFiles().Put({far_id_, ""}, "motd", S_IFREG | 0644, "far\n");
  EXPECT_EQ(fuse_.Cat("box/fs/motd"), "far\n");
  bool failed = false;
  GuestFiles::Job job;
  job.work = [](FileTree&) { ADD_FAILURE() << "nobody has it"; };
  job.fail = [&](const Error& error) { failed = error.Errno() == ENOENT; };
  job.wanted = [] { return true; };
  fleet_->GetFiles().Run({"nobody's", ""}, std::move(job));
  EXPECT_TRUE(failed);
}

TEST_F(FleetOfTwo, WhatIsNoSandboxesIsTheFirstsAndSettingsAreAlls) {
  EXPECT_EQ(fuse_.Copy("QFI", ".host/images/new"), 0);
  EXPECT_EQ(fuse_.Unlink(".host/images/new"), 0);
  EXPECT_EQ(fuse_.Copy("1GiB\n", ".host/disks/data"), 0);
  EXPECT_EQ(fuse_.Unlink(".host/disks/data"), 0);
  EXPECT_EQ(fuse_.Mkdir(".host/networks/lab"), 0);
  EXPECT_EQ(fuse_.Echo("mode: host", ".host/networks/lab/config.yaml"), 0);
  EXPECT_EQ(fuse_.Rmdir(".host/networks/lab"), 0);
  EXPECT_EQ(fuse_.Echo("test:///default", ".host/uri"), 0);
  EXPECT_THAT(far_.Calls(), IsEmpty());
  EXPECT_THAT(near_.Calls(),
              IsSupersetOf({"create image new", "remove image new",
                            "remove disk data", "network lab",
                            "remove network lab", "uri test:///default"}));
  EXPECT_EQ(fuse_.Echo("cpus: 1", ".host/defaults.yaml"), 0);
  for (FakeBackend* backend : {&near_, &far_}) {
    EXPECT_THAT(backend->Calls(),
                Contains(HasSubstr("document defaults.yaml cpus: 1")));
  }
}

TEST_F(FleetOfTwo, OfTwoOfANameOneSaysWhereItIs) {
  EXPECT_EQ(fuse_.Mkdir("box"), EEXIST);
  EXPECT_THAT(fuse_.Cat(".host/error"), HasSubstr("hypervisor 'two' has a "
                                                  "'box'"));
  EXPECT_EQ(fuse_.Rename("near", "Box"), EEXIST);
  near_.Erase(near_.Add("pad"));
  const std::string other = Add(near_, "box");
  EXPECT_THAT(fuse_.Ls(""), IsSupersetOf({"box", "box@two", "near"}));
  EXPECT_EQ(fleet_->Find("box")->uuid, other);
  EXPECT_EQ(fleet_->Find("box@two")->uuid, far_id_);
  EXPECT_EQ(fleet_->Find("box@one"), nullptr);
  EXPECT_EQ(fleet_->Get(far_id_)->name, "box@two");
  // Of one that is moved the part that is to come is in the trash there.
  near_.Erase(other);
  near_.Update(near_id_, [&](Sandbox& sandbox) {
    sandbox.trashed = std::chrono::system_clock::now();
  });
  EXPECT_THAT(fuse_.Ls(".host/trash"), Contains("near"));
  EXPECT_EQ(fleet_->FindTrash("near")->uuid, near_id_);
  EXPECT_EQ(fleet_->Find("near"), nullptr);
}

TEST_F(FleetOfTwo, WhatTheNextDaemonIsToKnowIsThatOfEach) {
  const std::string both = fleet_->Remember();
  fleet_->Recall(both + "three 3\nabc");  // no member any more
  EXPECT_THAT(near_.Calls(), ElementsAre("recall"));
  EXPECT_THAT(far_.Calls(), ElementsAre("recall"));
  EXPECT_THROW(fleet_->Recall("one many\n"), Error);
  EXPECT_THROW(fleet_->Recall("one 3"), Error);
  EXPECT_EQ(fleet_->UnderWay(), "");
  far_.SetUnderWay("start box");
  EXPECT_EQ(fleet_->UnderWay(), "start box");
}

}  // namespace
}  // namespace sbxfs
