#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// ssh_cert over the protocol: each reader has its own.

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class CertificateFileTest : public testing::Test {
 protected:
  CertificateFileTest() {
    uuid_ = backend_.Add("box");
    backend_.Update(uuid_, [](Sandbox& one) { one.uid = 1000; });
  }
  void Allow() {
    backend_.Update(uuid_, [](Sandbox& one) { one.ssh_principal = one.uuid; });
  }

  FakeBackend backend_;
  FakeFuse fuse_{backend_};
  std::string uuid_;
};

TEST_F(CertificateFileTest, ItIsThereWithSshCaAlone) {
  EXPECT_THAT(fuse_.Ls("box"), Not(Contains("ssh_cert")));
  EXPECT_THAT(fuse_.Cat("box/ssh_config"), Not(HasSubstr("CertificateFile")));
  Allow();
  EXPECT_THAT(fuse_.Ls("box"), Contains("ssh_cert"));
  EXPECT_EQ(fuse_.Stat("box/ssh_cert")->mode & 0777, 0600u);
  const std::string line = "  CertificateFile \"/mnt/sbx/box/ssh_cert\"\n";
  EXPECT_THAT(fuse_.Cat("box/ssh_config"), HasSubstr(line));
  EXPECT_THAT(fuse_.Cat(".host/ssh_config"), HasSubstr(line));
  // Only a refused text is taken away by rm.
  EXPECT_EQ(fuse_.Unlink("box/ssh_cert"), EPERM);
  EXPECT_THAT(backend_.Calls(), Not(Contains(HasSubstr("forget"))));
}

TEST_F(CertificateFileTest, EachReadIssuesOneAndIsAudited) {
  Allow();
  EXPECT_EQ(fuse_.Cat("box/ssh_cert"), "for 1000 of ''\n");
  EXPECT_EQ(fuse_.Cat("box/ssh_cert"), "for 1000 of ''\n");
  EXPECT_THAT(backend_.Calls(), ElementsAre("certify box ", "certify box "));
  EXPECT_THAT(fuse_.Cat(".host/audit"),
              HasSubstr(" certify box/ssh_cert ok serial 7\n"));
  EXPECT_EQ(fuse_.Stat("box/ssh_cert")->size, 0u);
}

TEST_F(CertificateFileTest, AKeyThatIsWrittenIsCertifiedForTheSameOpenFile) {
  Allow();
  const auto file = fuse_.Open("box/ssh_cert", O_RDWR);
  EXPECT_EQ(fuse_.Read(file), "");
  EXPECT_EQ(fuse_.Write(file, "ssh-ed25519 AAAA me\n"), 0);
  EXPECT_EQ(fuse_.Read(file, 20), "for 1000 of 'ssh-ed25519 AAAA me'\n");
  EXPECT_EQ(fuse_.Read(file, 25), "000 of 'ssh-ed25519 AAAA me'\n");
  EXPECT_EQ(fuse_.Cat("box/ssh_cert"), "for 1000 of ''\n") << "another's";
  backend_.Fail("certify", Error(EINVAL, "Cannot certify the key: none"));
  EXPECT_EQ(fuse_.Write(file, "ssh-ed25519 BBBB\n", 20), EINVAL);
  EXPECT_EQ(fuse_.Read(file, 20), "Cannot certify the key: none\n");
  EXPECT_EQ(fuse_.Close(file), 0);
}

TEST_F(CertificateFileTest, RevokeRevokes) {
  Allow();
  EXPECT_EQ(fuse_.Echo("revoke", "box/ssh_cert"), 0);
  EXPECT_THAT(backend_.Calls(), ElementsAre("revoke box"));
}

TEST_F(CertificateFileTest, WhoHasNoKeyIsToldSo) {
  Allow();
  backend_.Fail("certify", Error(ENOKEY, "Cannot certify a key for uid 5"));
  EXPECT_EQ(fuse_.Open("box/ssh_cert", O_RDONLY).error, ENOKEY);
  EXPECT_THAT(fuse_.Cat(".host/audit"), Not(HasSubstr("certify box")));
}

TEST_F(CertificateFileTest, APrivateKeyIsNoLineOfTheAudit) {
  Allow();
  const std::string key =
      "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAA\n";
  for (const char* file : {"box/ssh_cert", "box/status", "box/description"}) {
    EXPECT_NE(fuse_.Echo(key, file), 0);
  }
  EXPECT_THAT(fuse_.Cat(".host/audit"), HasSubstr("(hidden)"));
  EXPECT_THAT(fuse_.Cat(".host/audit"), Not(HasSubstr("b3Blbn")));
  EXPECT_THAT(fuse_.Cat("box/error"), Not(HasSubstr("b3Blbn")));
}

TEST_F(CertificateFileTest, ThePublicKeyOfTheAuthorityIsShown) {
  backend_.UpdateHost([](Host& host) { host.ssh_ca = "ssh-ed25519 CCCC"; });
  EXPECT_EQ(fuse_.Cat(".host/ssh_ca.pub"), "ssh-ed25519 CCCC\n");
}

}  // namespace
}  // namespace sbxfs
