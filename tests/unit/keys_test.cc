#include "backend/guest/keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "backend/util/error.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

class Keys : public testing::Test {
 protected:
  Keys() {
    std::string name = testing::TempDir() + "/sbxfs-keys.XXXXXX";
    dir_ = mkdtemp(name.data());
  }
  ~Keys() override { fs::remove_all(dir_); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name) << text;
  }
  [[nodiscard]] static std::string Read(const fs::path& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  [[nodiscard]] static mode_t Mode(const fs::path& path) {
    struct stat status {};
    EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
    return status.st_mode & 07777;
  }

  fs::path dir_;
};

// What CheckAuthorizedKeys says, or "".
std::string Fault(const std::string& text) {
  try {
    CheckAuthorizedKeys(text);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), EINVAL);
    EXPECT_THAT(error.Sentence(),
                StartsWith("Cannot accept 'authorized_keys': line "));
    return error.Sentence();
  }
}

TEST_F(Keys, ANullByteIsNoText) {
  using std::string_literals::operator""s;
  for (const auto& text : {"# comment\0more\n"s, "\0\n"s, "#\n\0"s}) {
    EXPECT_THAT(Fault(text), HasSubstr("null byte"));
  }
}

TEST_F(Keys, PairsAreOpenSshKeysAndDiffer) {
  const KeyPair a = MakeKeyPair();
  const KeyPair b = MakeKeyPair();
  EXPECT_THAT(a.private_key, StartsWith("-----BEGIN OPENSSH PRIVATE KEY-----"));
  EXPECT_THAT(a.public_key, StartsWith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"));
  EXPECT_EQ(Split(a.public_key, ' ').size(), 2);
  EXPECT_NE(a.public_key, b.public_key);
  EXPECT_EQ(Fault(a.public_key), "");
}

TEST_F(Keys, SshKeygenReadsThem) {
  if (system("command -v ssh-keygen >/dev/null") != 0) {
    GTEST_SKIP() << "ssh-keygen is missing";
  }
  const KeyPair pair = LoadOrMakeKeyPair(dir_ / "id");
  const std::string command = "ssh-keygen -y -f " + (dir_ / "id").string() +
                              " > " + (dir_ / "out").string();
  ASSERT_EQ(system(command.c_str()), 0);
  EXPECT_THAT(Read(dir_ / "out"), StartsWith(pair.public_key));
}

TEST_F(Keys, MakesOnceAndLoadsLater) {
  const std::string path = dir_ / "a/b/id";
  const KeyPair made = LoadOrMakeKeyPair(path);
  EXPECT_EQ(Mode(path), 0600);
  EXPECT_EQ(Mode(dir_ / "a"), 0700);
  EXPECT_EQ(Mode(dir_ / "a/b"), 0700);
  EXPECT_EQ(Read(path), made.private_key);
  EXPECT_EQ(Read(path + ".pub"), made.public_key + " sbxfs\n");
  EXPECT_EQ(LoadOrMakeKeyPair(path).public_key, made.public_key);

  // The public file follows the private one.
  Write("a/b/id.pub", "something else\n");
  EXPECT_EQ(LoadOrMakeKeyPair(path).private_key, made.private_key);
  EXPECT_EQ(Read(path + ".pub"), made.public_key + " sbxfs\n");
}

TEST_F(Keys, OnePairWinsARace) {
  const std::string path = dir_ / "x/id";
  std::vector<std::string> got(8);
  std::vector<std::thread> threads;
  for (auto& mine : got) {
    threads.emplace_back([&] { mine = LoadOrMakeKeyPair(path).private_key; });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(std::set<std::string>(got.begin(), got.end()).size(), 1);
  EXPECT_EQ(got[0], Read(path));
  std::set<std::string> left;
  for (const auto& entry : fs::directory_iterator(dir_ / "x")) {
    left.insert(entry.path().filename());
  }
  EXPECT_THAT(left, ElementsAre("id", "id.pub"));
}

TEST_F(Keys, RefusesKeysThatCannotBeUsed) {
  const struct {
    const char* name;
    mode_t mode;
    int error;
    const char* sentence;
  } kCases[] = {{"damaged", 0600, EINVAL, "damaged or has a passphrase"},
                {"open", 0640, EACCES, "(mode 0640)"}};
  for (const auto& c : kCases) {
    Write(c.name, "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n");
    chmod((dir_ / c.name).c_str(), c.mode);
    try {
      (void)LoadOrMakeKeyPair(dir_ / c.name);
      ADD_FAILURE() << c.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), c.error);
      EXPECT_THAT(error.Sentence(), HasSubstr(c.sentence));
      EXPECT_THAT(error.Sentence(), HasSubstr((dir_ / c.name).string()));
    }
  }
  Write("file", "");
  try {
    (void)LoadOrMakeKeyPair(dir_ / "file/id");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), ENOTDIR);
  }
}

TEST_F(Keys, PublicKeysOfADirectory) {
  const std::string a = MakeKeyPair().public_key + " a@host";
  const std::string b = MakeKeyPair().public_key;
  Write("b.pub", "# mine\n\n" + b + "\n");
  Write("a.pub", a + "\r\n" + "root:x:0:0:root:/root:/bin/bash\n");
  Write("c", MakeKeyPair().public_key);
  mkfifo((dir_ / "fifo.pub").c_str(), 0600);
  fs::create_directory(dir_ / "dir.pub");
  fs::create_symlink("nowhere", dir_ / "dangling.pub");
  EXPECT_THAT(PublicKeysIn(dir_), ElementsAre(a, b));
  EXPECT_THAT(PublicKeysIn(dir_ / "missing"), IsEmpty());
  EXPECT_THAT(DotSshPublicKeys(static_cast<uid_t>(-7)), IsEmpty());
}

TEST_F(Keys, AuthorizedKeysAcceptsWhatSshdAccepts) {
  const std::string key = MakeKeyPair().public_key;
  EXPECT_EQ(Fault(""), "");
  EXPECT_EQ(Fault("\n  \n# a comment\n" + key), "");
  EXPECT_EQ(Fault("  " + key + " a comment, with \"quotes\"\r\n"), "");
  EXPECT_EQ(Fault("restrict,pty " + key), "");
  EXPECT_EQ(Fault("command=\"echo \\\"a b\\\", c\",no-X11-forwarding " + key),
            "");
  EXPECT_EQ(Fault("from=\"10.0.0.0/8,!10.1.0.0/16\"\t" + key), "");
  EXPECT_EQ(
      Fault("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAy"
            "NTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5"
            "wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg= x"),
      "");
}

TEST_F(Keys, AuthorizedKeysTakesEveryTypeSshKeygenMakes) {
  if (system("command -v ssh-keygen >/dev/null") != 0) {
    GTEST_SKIP() << "ssh-keygen is missing";
  }
  for (const char* type :
       {"-t rsa -b 2048", "-t ecdsa -b 256", "-t ecdsa -b 384",
        "-t ecdsa -b 521", "-t ed25519", "-t dsa"}) {
    fs::remove(dir_ / "k");
    const std::string command = std::string("ssh-keygen -q -N '' ") + type +
                                " -f " + (dir_ / "k").string() + " 2>/dev/null";
    if (system(command.c_str()) != 0) continue;  // DSA may be gone
    EXPECT_EQ(Fault(Read(dir_ / "k.pub")), "") << type;
    EXPECT_THAT(Fault(Read(dir_ / "k")), HasSubstr("line 1: this is a private"))
        << type;
  }
}

TEST_F(Keys, AuthorizedKeysRefusesWithTheReason) {
  const std::string key = MakeKeyPair().public_key;
  const std::string blob(Split(key, ' ')[1]);
  const struct {
    std::string text;
    const char* reason;
  } kCases[] = {
      {"hello", "'hello' is neither a key type nor an option"},
      {key + "\nssh-ed2551 " + blob, "line 2: 'ssh-ed2551' is no key type"},
      {"ssh-ed25519", "the key is missing"},
      {"ssh-ed25519 " + blob.substr(0, 40), "cut short or damaged"},
      {"ssh-ed25519 " + blob.substr(0, 41), "no base64"},
      {"ssh-rsa " + blob, "not of the type 'ssh-rsa'"},
      {"resrict " + key, "did you mean restrict"},
      {"restrict", "no key behind the options"},
      {"command=\"x " + key, "not closed"},
      {"command=x " + key, "option 'command' needs a value"},
      {"pty=\"x\" " + key, "option 'pty' takes no value"},
      {key + " bell\a", "control character"},
      {"ssh-ed25519-cert-v01@openssh.com " + blob, "certificate"},
      {"---- BEGIN SSH2 PUBLIC KEY ----", "RFC 4716"},
      {"PuTTY-User-Key-File-3: ssh-ed25519", "private key"},
      {"-----BEGIN OPENSSH PRIVATE KEY-----", "private key"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(Fault(c.text), HasSubstr(c.reason)) << c.text;
  }
}

}  // namespace
}  // namespace sbxfs
