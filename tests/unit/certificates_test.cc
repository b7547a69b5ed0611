#include "backend/certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "backend/guest/keys.h"
#include "backend/util/capture.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string WhyNoPublicKey(const std::string& line) {
  try {
    CheckPublicKey(line);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL);
    return error.Sentence();
  }
}

class CertificatesTest : public testing::Test {
 protected:
  CertificatesTest() {
    std::string name = testing::TempDir() + "/sbxfs-certificates.XXXXXX";
    dir_ = mkdtemp(name.data());
    ca_ = LoadOrMakeKeyPair((dir_ / "ca").string()).public_key;
  }
  ~CertificatesTest() override { std::filesystem::remove_all(dir_); }

  // What ssh-keygen reads in it.
  [[nodiscard]] std::string Explained(const std::string& certificate) const {
    std::ofstream(dir_ / "shown-cert.pub") << certificate;
    return Capture({"ssh-keygen", "-L", "-f", (dir_ / "shown-cert.pub")}).out;
  }

  std::filesystem::path dir_;
  std::string ca_;
};

TEST_F(CertificatesTest, ItIsForTheKeyAndThePrincipalAndLastsTenMinutes) {
  setenv("TZ", "UTC", 1);
  const std::string key = MakeKeyPair().public_key;
  const std::string text = SignCertificate(
      (dir_ / "ca").string(), {key, "some-uuid.7", "uid 5 for box", 4711});
  EXPECT_THAT(text, testing::StartsWith("ssh-ed25519-cert-v01@openssh.com "));
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  const std::string shown = Explained(text);
  EXPECT_THAT(shown, HasSubstr("user certificate"));
  EXPECT_THAT(shown, HasSubstr("Key ID: \"uid 5 for box\""));
  EXPECT_THAT(shown, HasSubstr("Serial: 4711"));
  EXPECT_THAT(shown, HasSubstr("Principals: \n                some-uuid.7\n"));
  // "Valid: from 2026-01-01T00:00:00 to 2026-01-01T00:11:00".
  const auto at = shown.find("Valid: from ");
  ASSERT_NE(at, shown.npos) << shown;
  const auto moment = [&](size_t from) {
    std::tm parts{};
    strptime(shown.c_str() + from, "%Y-%m-%dT%H:%M:%S", &parts);
    return timegm(&parts);
  };
  const std::time_t from = moment(at + 12);
  const std::time_t until = moment(shown.find(" to ", at) + 4);
  EXPECT_EQ(until - from, 11 * 60);
  EXPECT_NEAR(static_cast<double>(until - time(nullptr)), 10 * 60, 20);
}

TEST_F(CertificatesTest, NothingIsLeftOfTheMaking) {
  const auto count = [] {
    int here = 0;
    for (const auto& entry : std::filesystem::directory_iterator(
             std::filesystem::temp_directory_path())) {
      here += entry.path().filename().string().starts_with("sbxfs-cert.");
    }
    return here;
  };
  const int before = count();
  (void)SignCertificate((dir_ / "ca").string(),
                        {MakeKeyPair().public_key, "p", "id", 1});
  EXPECT_THROW((void)SignCertificate((dir_ / "none").string(),
                                     {MakeKeyPair().public_key, "p", "id", 1}),
               Error);
  EXPECT_LE(count(), before);
}

TEST_F(CertificatesTest, TheGuestsLineNamesPrincipalAndAuthority) {
  const std::string line = AuthorityLine("uuid.1", ca_);
  EXPECT_EQ(line, "cert-authority,principals=\"uuid.1\" " + ca_ + " sbxfs-ca");
  CheckAuthorizedKeys(line);
}

TEST_F(CertificatesTest, ARevocationMakesAnotherPrincipal) {
  EXPECT_EQ(PrincipalOf("uuid", Time()), "uuid");
  EXPECT_EQ(PrincipalOf("uuid", Time(std::chrono::milliseconds(1234))),
            "uuid.1234");
}

TEST_F(CertificatesTest, APlainPublicKeyAloneIsCertified) {
  EXPECT_EQ(WhyNoPublicKey(ca_), "");
  EXPECT_EQ(WhyNoPublicKey(ca_ + " a comment"), "");
  EXPECT_THAT(WhyNoPublicKey("restrict " + ca_), HasSubstr("no key type"));
  EXPECT_THAT(WhyNoPublicKey("revok"), HasSubstr("no key type"));
  const std::string secret =
      WhyNoPublicKey("-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXktdjE");
  EXPECT_THAT(secret, HasSubstr("a private key"));
  EXPECT_THAT(secret, Not(HasSubstr("b3Blbn")));
}

}  // namespace
}  // namespace sbxfs
