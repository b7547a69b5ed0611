#include "backend/mount/sshfs.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

std::string ShOutput(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  char buffer[4096];
  while (size_t count = fread(buffer, 1, sizeof buffer, pipe)) {
    out.append(buffer, count);
  }
  EXPECT_EQ(pclose(pipe), 0) << command;
  return out;
}

MountSpec Mount(std::string location, bool writable) {
  MountSpec mount;
  mount.name = "name";
  mount.mount_point = location;
  mount.location = std::move(location);
  mount.writable = writable;
  return mount;
}

// The guest's shell is a real one; sshfs and sudo tell what they were given.
class GuestCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/sbxfs-sshfs.XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    top_ = name;
    Program("sshfs", "for a; do printf '<%s>' \"$a\"; done");
    Program("sudo", "shift; printf 'sudo %s ' \"$1\"; exec \"$@\"");
    Program("id", "echo 1000");
    Program("umount", "echo umounted >&2");
  }
  void TearDown() override { stdfs::remove_all(top_); }

  void Program(const std::string& name, const std::string& text) {
    std::ofstream(top_ / name) << "#!/bin/sh\n" << text << '\n';
    chmod((top_ / name).c_str(), 0755);
  }
  std::string Run(const MountSpec& mount) {
    return ShOutput("PATH=" + top_.string() + ":$PATH; " + GuestCommand(mount));
  }

  stdfs::path top_;
};

TEST_F(GuestCommandTest, MakesTheMountPointAndMounts) {
  const std::string point = (top_ / "a/b").string();
  EXPECT_EQ(Run(Mount(point, true)),
            "sudo umount sudo sshfs "
            "<-f><-o><passive,allow_other,default_permissions,idmap=none,"
            "nosuid,nodev,dcache_timeout=1,fsname=" +
                point + "><:/><" + point + ">");
  EXPECT_TRUE(stdfs::is_directory(point));
}

TEST_F(GuestCommandTest, AnyPathIsOneWord) {
  MountSpec mount = Mount((top_ / "it's, \"$(x)\" \\ `y`; z").string(), false);
  const std::string out = Run(mount);
  EXPECT_NE(out.find("nodev,ro,dcache"), std::string::npos) << out;
  EXPECT_TRUE(out.ends_with("<" + mount.mount_point + ">")) << out;
  // A comma would end the option, a backslash the escape.
  EXPECT_NE(out.find("/it's\\, \"$(x)\" \\\\ `y`; z>"), std::string::npos)
      << out;
  EXPECT_TRUE(stdfs::is_directory(mount.mount_point));
}

TEST_F(GuestCommandTest, SshfsHasItsKeys) {
  MountSpec mount = Mount(top_, true);
  mount.sshfs_cache = true;
  mount.sshfs_follow_symlinks = true;
  EXPECT_NE(Run(mount).find("nodev,follow_symlinks,fsname"), std::string::npos);
  mount.sshfs_cache = false;
  EXPECT_NE(Run(mount).find("nodev,dir_cache=no,"), std::string::npos);
}

TEST(Sshfs, DigestsTellMountsApart) {
  const MountSpec mount = Mount("/a", true);
  MountSpec other = mount;
  other.name = "renamed";
  EXPECT_EQ(DigestOf(other), DigestOf(mount));
  other.writable = false;
  EXPECT_NE(DigestOf(other), DigestOf(mount));
  other = mount;
  other.sshfs_cache = false;
  EXPECT_NE(DigestOf(other), DigestOf(mount));
  other.sshfs_cache = true;
  EXPECT_NE(DigestOf(other), DigestOf(mount));
  other = mount;
  other.mount_point = "/b";
  EXPECT_NE(DigestOf(other), DigestOf(mount));
}

TEST(Sshfs, PathsOfProcMountsAreRead) {
  EXPECT_EQ(Unescape("/a\\040b\\134c"), "/a b\\c");
  EXPECT_EQ(Unescape("/a\\04"), "/a\\04");
  EXPECT_EQ(Unescape("\\"), "\\");
  EXPECT_EQ(Unescape("/\\999"), "/\\999");
}

TEST(Sshfs, SshTakesItsWordsAndChecksTheHostKey) {
  std::string command;
  for (const auto& word :
       SshWords({2222, "lima", "ssh-ed25519 AAAAC3", "/k/a b/id"}, "true")) {
    command += (command.empty() ? "" : " ") + ShellQuote(word);
    if (word == "none" && command.ends_with("'-F' 'none'")) command += " -G";
  }
  std::istringstream lines(ShOutput(command));
  std::set<std::string> said;
  for (std::string line; std::getline(lines, line);) said.insert(line);
  for (const char* line :
       {"user lima", "port 2222", "hostname 127.0.0.1", "batchmode yes",
        "identitiesonly yes", "identityfile /k/a b/id",
        "stricthostkeychecking true", "userknownhostsfile /dev/null",
        "knownhostscommand /bin/echo guest ssh-ed25519 AAAAC3",
        "hostkeyalias guest", "identityagent none"}) {
    EXPECT_TRUE(said.contains(line)) << line;
  }
}

}  // namespace
}  // namespace sbxfs
