#include "backend/libvirt_route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "backend/util/capture.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class LibvirtRoute : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = stdfs::temp_directory_path() /
           ("sbxfs-route-" + std::to_string(getpid()));
    stdfs::create_directories(dir_);
    options_.directory = dir_;
  }
  void TearDown() override { stdfs::remove_all(dir_); }

  std::string Write(const std::string& name, const std::string& text,
                    mode_t mode = 0600) {
    const stdfs::path path = dir_ / name;
    stdfs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    chmod(path.c_str(), mode);
    return path;
  }
  void ExpectRefusal(const std::string& uri, int error,
                     const std::string& words) {
    try {
      (void)FindRoute(uri, options_);
      ADD_FAILURE() << uri;
    } catch (const Error& refusal) {
      EXPECT_EQ(refusal.Errno(), error) << uri;
      EXPECT_EQ(refusal.Sentence(),
                "Cannot connect to '" + uri + "': " + words);
    }
  }

  stdfs::path dir_;
  RouteOptions options_;
};

TEST_F(LibvirtRoute, LocalOnesAreTakenAsTheyAre) {
  for (const char* uri :
       {"qemu:///system", "test:///default", "qemu:///session?mode=direct"}) {
    const Route route = FindRoute(uri, options_);
    EXPECT_EQ(route.uri.Text(), uri);
    EXPECT_THAT(route.ssh, ElementsAre());
    EXPECT_EQ(route.warning, "");
    EXPECT_THAT(route.explanation, HasSubstr(std::string("uri ") + uri + "\n"));
  }
  EXPECT_EQ(FindRoute("", options_).explanation, "uri libvirt's own default\n");
}

TEST_F(LibvirtRoute, SshIsRunByAProgramThatNeverAsksAndHeedsKnownHosts) {
  const std::string key = Write("key", "");
  const std::string uri = "qemu+ssh://me@hv:2222/system?keyfile=" + key +
                          "&known_hosts=/k%20h&known_hosts_verify=auto";
  const Route route = FindRoute(uri, options_);
  EXPECT_THAT(
      route.ssh,
      ElementsAre("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o",
                  "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o",
                  "UserKnownHostsFile=/k h", "-o",
                  "StrictHostKeyChecking=accept-new", "-p", "2222", "-l", "me",
                  "-i", key, "hv"));
  EXPECT_EQ(route.uri.Parameter("no_tty"), "1");
  // What libvirt runs is the same ssh.
  const std::string command = route.uri.Parameter("command");
  ASSERT_NE(command, "");
  const Captured asked = Capture({command, "-G", "-p", "2222", "hv"});
  EXPECT_EQ(asked.status, 0) << asked.err;
  EXPECT_THAT(asked.out, HasSubstr("batchmode yes\n"));
  EXPECT_THAT(asked.out, HasSubstr("connecttimeout 10\n"));
  EXPECT_THAT(asked.out, HasSubstr("userknownhostsfile /k h\n"));
  EXPECT_EQ(FindRoute(uri, options_).uri.Parameter("command"), command);
  EXPECT_THAT(route.explanation,
              HasSubstr("\nssh-says hostname hv, port 2222, user me, key " +
                        key + "\n"));
  EXPECT_THAT(route.explanation,
              HasSubstr("known_hosts=/k h: where host keys are looked up; "
                        "libvirt ignores it with ssh, sbxfs gives it to ssh"));
  EXPECT_THAT(route.explanation, Not(HasSubstr("ignored")));
  // Not what we added.
  EXPECT_THAT(route.explanation, Not(HasSubstr("no_tty")));
}

TEST_F(LibvirtRoute, WhatIsPassedOverIsTold) {
  struct Row {
    const char* uri;
    const char* line;
  };
  for (const auto& [uri, line] : {
           Row{"qemu+ssh://hv/system?sshauth=agent",
               "ignored sshauth=agent: ssh does not heed it; libssh, libssh2 "
               "do\n"},
           Row{"qemu+ssh://hv/system?pkipath=/x",
               "ignored pkipath=/x: ssh does not heed it; tls does\n"},
           Row{"qemu:///system?netcat=nc",
               "ignored netcat=nc: unix does not heed it; ssh, libssh, libssh2 "
               "do\n"},
           Row{"qemu://hv/system?colour=red",
               "ignored colour=red: libvirt knows no such parameter\n"},
           Row{"qemu+ssh://hv/system?no_verify=1",
               "change no_verify=1 lets a changed host key through, and writes "
               "it into known_hosts: leave it out once the host is known\n"},
           Row{"qemu://hv/system?no_verify=1",
               "change no_verify=1 lets any server through: leave it out\n"},
           Row{"qemu+ssh://hv/system?socket=/s&proxy=native",
               "change proxy=native goes to the default daemon whatever "
               "socket= "
               "says: leave proxy out, or say proxy=netcat\n"},
           Row{"qemu+ssh://hv/system?command=/usr/bin/ssh",
               "note command= is run as it is, without the options above\n"},
           Row{"qemu://hv/system",
               "note certificates: ~/.pki/libvirt, else /etc/pki/CA/cacert.pem "
               "and /etc/pki/libvirt; pkipath= names another directory\n"},
       }) {
    EXPECT_THAT(FindRoute(uri, options_).explanation, HasSubstr(line)) << uri;
  }
  options_.ssh_config = "/x";
  EXPECT_THAT(FindRoute("qemu:///system", options_).explanation,
              HasSubstr("ignored -o ssh_config: this transport uses no ssh\n"));
}

TEST_F(LibvirtRoute, TcpIsAllowedByAnOptionAlone) {
  ExpectRefusal("qemu+tcp://hv/system", EPERM,
                "tcp is neither encrypted nor authenticated, so that whoever "
                "reaches that port owns the hypervisor; use qemu+ssh or "
                "qemu+tls, or mount with -o insecure_tcp where the network "
                "between is trusted");
  options_.insecure_tcp = true;
  EXPECT_EQ(FindRoute("qemu+tcp://hv/system", options_).warning,
            "note: unauthenticated and not encrypted: qemu+tcp, by -o "
            "insecure_tcp");
}

TEST_F(LibvirtRoute, KeysThatSshWouldNotUseAreTold) {
  ExpectRefusal("qemu+ssh://hv/system?keyfile=/no/key", ENOENT,
                "its key '/no/key' cannot be used: No such file or directory; "
                "make one with ssh-keygen, or correct keyfile=");
  ExpectRefusal("qemu+ssh://hv/system?keyfile=key", EINVAL,
                "its key 'key' is no absolute path; write it from / on");
  const std::string open = Write("open", "", 0644);
  ExpectRefusal("qemu+libssh2://hv/system?keyfile=" + open, EACCES,
                "its key '" + open +
                    "' can be read by others, so that ssh does not use it; "
                    "chmod 600 " +
                    open);
}

TEST_F(LibvirtRoute, AConfigurationOfSshGivesHostPortUserAndKey) {
  const std::string key = Write("key", "");
  options_.ssh_config = Write("config",
                              "Host hv\n  HostName 10.1.2.3\n"
                              "  Port 2200\n  User me\n"
                              "  IdentityFile " +
                                  key + "\n");
  const std::string says =
      "ssh-says hostname 10.1.2.3, port 2200, user me, key " + key + "\n";
  // ssh finds them itself.
  const Route ssh = FindRoute("qemu+ssh://hv/system", options_);
  EXPECT_THAT(ssh.explanation, HasSubstr(says));
  EXPECT_EQ(ssh.uri.host, "hv");
  EXPECT_EQ(ssh.uri.port, 0);
  EXPECT_THAT(Capture({ssh.uri.Parameter("command"), "-G", "hv"}).out,
              HasSubstr("\nport 2200\n"));
  // libssh2 is told.
  const Route libssh2 = FindRoute("qemu+libssh2://hv/system", options_);
  EXPECT_EQ(libssh2.uri.Text(),
            "qemu+libssh2://me@10.1.2.3:2200/system?keyfile=" + key);
  // What stands in the URI wins.
  EXPECT_EQ(FindRoute("qemu+libssh2://you@hv:22/system", options_).uri.Text(),
            "qemu+libssh2://you@10.1.2.3:22/system?keyfile=" + key);
  // Anew each time.
  Write("config", "Host hv\n  HostName 10.1.2.3\n  Port 2201\n");
  EXPECT_THAT(FindRoute("qemu+ssh://hv/system", options_).explanation,
              HasSubstr("port 2201"));
  Write("config", "Host hv\n  Port nonsense\n");
  try {
    (void)FindRoute("qemu+ssh://hv/system", options_);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.Sentence(),
                HasSubstr("Cannot connect to 'qemu+ssh://hv/system': " +
                          options_.ssh_config + " line 2: "));
  }
  options_.ssh_config = "/no/config";
  ExpectRefusal("qemu+ssh://hv/system", ENOENT,
                "'/no/config': No such file or directory; correct -o "
                "ssh_config=");
}

TEST_F(LibvirtRoute, LimasInstancesAreFoundByTheirOwnConfiguration) {
  setenv("LIMA_HOME", dir_.c_str(), 1);
  const std::string config = Write("docker/ssh.config",
                                   "Host lima-docker\n  HostName 127.0.0.1\n"
                                   "  Port 60022\n  User me\n");
  const Route route = FindRoute("lima+ssh://docker/system", options_);
  EXPECT_EQ(route.uri.driver, "qemu");
  EXPECT_EQ(route.uri.host, "lima-docker");
  EXPECT_EQ(route.uri.path, "/system");
  EXPECT_EQ(route.given, "lima+ssh://docker/system");
  EXPECT_EQ(route.ssh[2], config);
  EXPECT_THAT(route.explanation,
              HasSubstr("ssh-says hostname 127.0.0.1, port 60022, user me"));
  ExpectRefusal("lima+ssh://none/system", ENOENT,
                "Lima's '" + dir_.string() +
                    "/none/ssh.config': No such file or directory; start the "
                    "instance (limactl list shows those there are)");
  unsetenv("LIMA_HOME");
}

}  // namespace
}  // namespace sbxfs
