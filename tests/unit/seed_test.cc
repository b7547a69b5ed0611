#include "backend/guest/seed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

namespace sbxfs {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

SeedInput SomeSeed() {
  SeedInput input;
  input.instance_id = "i-1";
  input.hostname = "lima-box";
  input.user = "ann";
  input.authorized_keys = {"ssh-ed25519 AAAA ann@home", "ssh-rsa BBBB"};
  input.mac = "52:54:00:12:34:56";
  return input;
}

std::map<std::string, std::string> Documents(const SeedInput& input) {
  const auto list = SeedDocuments(input);
  return {list.begin(), list.end()};
}

json UserData(const SeedInput& input) {
  const std::string text = Documents(input)["user-data"];
  EXPECT_THAT(text, StartsWith("#cloud-config\n"));
  return json::parse(text.substr(text.find('\n')));
}

// stdout of a command, or nothing when it failed.
std::string Output(const std::string& command) {
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  std::string out;
  std::array<char, 4096> buffer{};
  size_t got;
  while ((got = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    out.append(buffer.data(), got);
  }
  return pclose(pipe) == 0 ? out : "";
}

class ScratchFile {
 public:
  explicit ScratchFile(const std::string& content)
      : path_(testing::TempDir() + "/sbxfs-seed.XXXXXX") {
    close(mkstemp(path_.data()));
    std::ofstream(path_, std::ios::binary) << content;
  }
  ~ScratchFile() { unlink(path_.c_str()); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  [[nodiscard]] const std::string& Path() const { return path_; }

 private:
  std::string path_;
};

TEST(Seed, UserData) {
  const json data = UserData(SomeSeed());
  EXPECT_EQ(data["hostname"], "lima-box");
  EXPECT_FALSE(data.contains("fqdn"));
  EXPECT_EQ(data["prefer_fqdn_over_hostname"], false);
  EXPECT_EQ(data["disable_root"], true);
  EXPECT_EQ(data["locale"], "false");
  EXPECT_EQ(data["package_update"], false);
  EXPECT_EQ(data["growpart"], json({{"mode", "auto"}, {"devices", {"/"}}}));
  ASSERT_EQ(data["users"].size(), 1);
  EXPECT_EQ(data["users"][0],
            json({{"name", "ann"},
                  {"sudo", "ALL=(ALL) NOPASSWD:ALL"},
                  {"lock_passwd", true},
                  {"ssh_authorized_keys",
                   {"ssh-ed25519 AAAA ann@home", "ssh-rsa BBBB"}}}));
  EXPECT_THAT(data["bootcmd"].dump(), HasSubstr("boot.sh early"));
}

TEST(Seed, OptionalParts) {
  SeedInput input = SomeSeed();
  EXPECT_EQ(UserData(input)["ssh_deletekeys"], false);
  EXPECT_FALSE(UserData(input).contains("ssh_keys"));
  EXPECT_FALSE(UserData(input).contains("ssh_genkeytypes"));
  input.host_key = KeyPair{"PRIVATE\n", "ssh-ed25519 AAAA"};
  input.uid = 1234;
  input.home = "/srv/ann";
  input.shell = "/bin/zsh";
  input.comment = "Ann \"A\" \xc3\x84";
  input.authorized_keys.clear();
  const json data = UserData(input);
  EXPECT_EQ(data["ssh_deletekeys"], true);
  EXPECT_EQ(data["ssh_genkeytypes"], json({"ed25519"}));
  EXPECT_EQ(data["ssh_keys"], json({{"ed25519_private", "PRIVATE\n"},
                                    {"ed25519_public", "ssh-ed25519 AAAA\n"}}));
  EXPECT_EQ(data["users"][0], json({{"name", "ann"},
                                    {"sudo", "ALL=(ALL) NOPASSWD:ALL"},
                                    {"lock_passwd", true},
                                    {"uid", 1234},
                                    {"homedir", "/srv/ann"},
                                    {"shell", "/bin/zsh"},
                                    {"gecos", "Ann \"A\" \xc3\x84"}}));
}

TEST(Seed, OtherDocuments) {
  auto documents = Documents(SomeSeed());
  EXPECT_EQ(json::parse(documents["meta-data"]),
            json({{"instance-id", "i-1"}, {"local-hostname", "lima-box"}}));
  const json nic =
      json::parse(documents["network-config"])["ethernets"]["eth0"];
  EXPECT_EQ(nic, json({{"match", {{"macaddress", "52:54:00:12:34:56"}}},
                       {"set-name", "eth0"},
                       {"dhcp4", true},
                       {"dhcp-identifier", "mac"}}));
  SeedInput input = SomeSeed();
  input.mac.clear();
  EXPECT_EQ(Documents(input).size(), 2);
}

// What JSON and YAML read differently: characters beyond 16 bits, C1 controls,
// a byte order mark, and bytes that are no UTF-8.
TEST(Seed, YamlReadsWhatWasMeant) {
  if (system("python3 -c 'import yaml' 2>/dev/null") != 0) {
    GTEST_SKIP() << "python3-yaml is missing";
  }
  SeedInput input = SomeSeed();
  input.comment =
      "\xf0\x9f\x98\x80 \\ud83d\\U0001f600 \xc2\x85\x7f \xef\xbb\xbf \x01 \xff";
  const ScratchFile file(Documents(input)["user-data"]);
  EXPECT_EQ(
      Output("python3 -c 'import yaml, sys; print(ascii(yaml.safe_load(open("
             "sys.argv[1]))[\"users\"][0][\"gecos\"]))' " +
             file.Path()),
      "'\\U0001f600 \\\\ud83d\\\\U0001f600 \\x85\\x7f \\ufeff \\x01 "
      "\\ufffd'\n");
}

TEST(Seed, IsoHasItsLabelAndFiles) {
  SeedInput input = SomeSeed();
  input.authorized_keys.assign(300, std::string(500, 'k'));
  const std::string iso = MakeSeed(input);
  ASSERT_GT(iso.size(), 34 * 1024);
  EXPECT_EQ(iso.size(), kSeedUnit);
  EXPECT_EQ(iso.substr(32769, 5), "CD001");
  EXPECT_THAT(iso.substr(32808), StartsWith("cidata "));
  const ScratchFile file(iso);
  if (system("command -v blkid >/dev/null") == 0) {
    EXPECT_EQ(Output("blkid -p -o value -s LABEL " + file.Path()), "cidata\n");
    EXPECT_EQ(Output("blkid -p -o value -s TYPE " + file.Path()), "iso9660\n");
  }
  if (system("command -v xorriso >/dev/null") != 0) {
    GTEST_SKIP() << "xorriso is missing";
  }
  // Once by Rock Ridge names, as Linux does, and once by Joliet's.
  for (const auto& [name, text] : SeedDocuments(input)) {
    for (const char* tree : {"-read_fs nojoliet", "-read_fs norock"}) {
      const ScratchFile out("");
      unlink(out.Path().c_str());
      Output(std::string("xorriso ") + tree + " -indev " + file.Path() +
             " -osirrox on -extract /" + name + " " + out.Path());
      std::stringstream got;
      got << std::ifstream(out.Path(), std::ios::binary).rdbuf();
      EXPECT_EQ(got.str(), text) << name << " " << tree;
    }
  }
}

TEST(Seed, HostKeyIsFoundInASeed) {
  SeedInput input = SomeSeed();
  input.comment = "\xf0\x9f\x98\x80 \"ssh_keys\": {";
  input.boot = {{"a", "#cloud-config\n{\n  \"ssh_keys\": {}\n}\n"}};
  EXPECT_FALSE(HostKeyOf(MakeSeed(input)).has_value());
  EXPECT_FALSE(HostKeyOf("").has_value());
  EXPECT_FALSE(HostKeyOf("#cloud-config\n{\n  \"ssh_keys\": "
                         "{\"ed25519_private\": 1}\n}\n")
                   .has_value());
  input.boot.clear();
  input.host_key = MakeKeyPair();
  const auto found = HostKeyOf(MakeSeed(input));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->private_key, input.host_key->private_key);
  EXPECT_EQ(found->public_key, input.host_key->public_key);
}

TEST(Seed, IsoOfAnyFiles) {
  EXPECT_EQ(MakeIso("x", {}).substr(32769, 5), "CD001");
  const std::string iso = MakeIso("LABEL", {{"empty", ""}, {"a", "hello"}});
  EXPECT_THAT(iso, HasSubstr("hello"));
}

}  // namespace
}  // namespace sbxfs
