#include "backend/libvirt_uri.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

TEST(LibvirtUri, IsTakenApart) {
  const LibvirtUri uri = LibvirtUri::Parse(
      "qemu+ssh://me%40x@hv.example:2222/system?keyfile=%2Fa%20b&no_verify=1&"
      "socket=/run/x");
  EXPECT_EQ(uri.driver, "qemu");
  EXPECT_EQ(uri.transport, "ssh");
  EXPECT_EQ(uri.user, "me@x");
  EXPECT_EQ(uri.host, "hv.example");
  EXPECT_EQ(uri.port, 2222);
  EXPECT_EQ(uri.path, "/system");
  EXPECT_EQ(uri.Parameter("keyfile"), "/a b");
  EXPECT_EQ(uri.Parameter("no_verify"), "1");
  EXPECT_EQ(uri.Parameter("socket"), "/run/x");
  EXPECT_EQ(uri.Parameter("known_hosts"), "");
  EXPECT_EQ(uri.Text(),
            "qemu+ssh://me%40x@hv.example:2222/system?keyfile=/a%20b&"
            "no_verify=1&socket=/run/x");
}

struct UriRow {
  const char* text;
  const char* transport;
  bool local;
  bool ssh;
};

class UriTable : public testing::TestWithParam<UriRow> {};
TEST_P(UriTable, HasItsTransportAndSurvivesBeingPutTogether) {
  const LibvirtUri uri = LibvirtUri::Parse(GetParam().text);
  EXPECT_EQ(uri.transport, GetParam().transport);
  EXPECT_EQ(uri.Local(), GetParam().local);
  EXPECT_EQ(uri.BySsh(), GetParam().ssh);
  EXPECT_EQ(uri.Text(), GetParam().text);
}
INSTANTIATE_TEST_SUITE_P(
    Uris, UriTable,
    testing::Values(
        UriRow{"qemu:///session", "unix", true, false},
        UriRow{"qemu:///system", "unix", true, false},
        UriRow{"test:///default", "unix", true, false},
        UriRow{"qemu:///system?socket=/run/docker/libvirt-sock", "unix", true,
               false},
        UriRow{"qemu:///system?mode=direct", "unix", true, false},
        UriRow{"qemu+ssh://hv/system", "ssh", false, true},
        UriRow{"qemu+ssh://me@hv:22/session?keyfile=/k&known_hosts=/kh", "ssh",
               false, true},
        // A port that something forwards.
        UriRow{"qemu+ssh://me@127.0.0.1:60022/system", "ssh", false, true},
        UriRow{"qemu+libssh2://hv/system?sshauth=agent,privkey", "libssh2",
               false, true},
        UriRow{"qemu+tcp://hv:16509/system", "tcp", false, false},
        UriRow{"qemu+tcp://127.0.0.1/system", "tcp", true, false},
        UriRow{"qemu://hv/system", "tls", false, false},
        UriRow{"qemu://[fe80::1]:16514/system?pkipath=/pki", "tls", false,
               false},
        UriRow{"qemu://[fe80::1%25eth0]/system", "tls", false, false},
        UriRow{"qemu://[::1]/system", "tls", true, false}));

TEST(LibvirtUri, WhatEachSpellingMeansIsWrittenTheShortWay) {
  EXPECT_EQ(LibvirtUri::Parse("qemu+tls://hv/system").Text(),
            "qemu://hv/system");
  EXPECT_EQ(LibvirtUri::Parse("qemu+unix:///system").Text(), "qemu:///system");
}

TEST(LibvirtUri, ParametersAreReplacedAndTakenAway) {
  LibvirtUri uri = LibvirtUri::Parse("qemu+ssh://hv/system?a=1&b=2");
  uri.Set("a", "/x y?&");
  uri.Drop("b");
  EXPECT_EQ(uri.Text(), "qemu+ssh://hv/system?a=/x%20y%3F%26");
  EXPECT_EQ(LibvirtUri::Parse(uri.Text()).Parameter("a"), "/x y?&");
}

TEST(LibvirtUri, ANameOfAParameterMayBeOdd) {
  const LibvirtUri uri = LibvirtUri::Parse("qemu:///system?%26a%3D=1");
  EXPECT_EQ(uri.Parameter("&a="), "1");
  EXPECT_EQ(uri.Text(), "qemu:///system?%26a%3D=1");
}

TEST(LibvirtUri, WhatIsNoneIsRefusedInWords) {
  for (const auto& [text, words] :
       {std::pair("nonsense", "it has no driver before '://'"),
        {"qemu:/system", "it has no driver before '://'"},
        {"qemu+smoke://hv/system", "there is no transport 'smoke', only unix"},
        {"qemu+ssh:///system", "ssh needs a host"},
        {"qemu+tcp://hv:99999/system", "no such port"},
        {"qemu+ssh://h v/system", "it is no URI"},
        {"qemu+ssh://a%2Fb/system", "no such host"},
        {"qemu+ssh://-oProxyCommand=x/system", "no such host"},
        {"", "it has no driver"}}) {
    try {
      (void)LibvirtUri::Parse(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EINVAL) << text;
      EXPECT_THAT(error.Sentence(), testing::HasSubstr(words)) << text;
      EXPECT_THAT(error.Sentence(),
                  testing::EndsWith("a libvirt URI is like qemu:///system or "
                                    "qemu+ssh://user@host/system"));
    }
  }
}

}  // namespace
}  // namespace sbxfs
