#include "backend/guest/boot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

namespace sbxfs {
namespace {

using testing::HasSubstr;
using testing::Not;
using Env = std::map<std::string, std::string>;
using Mode = ProvisionStep::Mode;

BootInput SomeBoot() {
  BootInput input;
  input.name = "box";
  input.hostname = "lima-box";
  input.instance_id = "i-1";
  input.user = "ann";
  return input;
}

ProvisionStep Step(Mode mode, const std::string& script) {
  ProvisionStep step;
  step.mode = mode;
  step.script = script;
  return step;
}

Env Documents(const BootInput& input) {
  const auto list = BootDocuments(input);
  Env documents(list.begin(), list.end());
  EXPECT_EQ(documents.size(), list.size()) << "a name twice";
  return documents;
}

// What a shell says to a script, or "status N".
std::string Shell(const std::string& script) {
  char path[] = "/tmp/sbxfs-boot.XXXXXX";
  const int fd = mkstemp(path);
  fclose(fdopen(fd, "w"));
  std::ofstream(path) << script;
  FILE* pipe = popen((std::string("sh ") + path + " 2>&1").c_str(), "r");
  std::string out;
  std::array<char, 4096> buffer{};
  size_t got;
  while ((got = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    out.append(buffer.data(), got);
  }
  const int status = pclose(pipe);
  std::filesystem::remove(path);
  return status == 0 ? out : "status " + std::to_string(status / 256) + out;
}

TEST(Boot, StepsRunInLimasOrder) {
  BootInput input = SomeBoot();
  ProvisionStep data = Step(Mode::kData, "");
  data.path = "/etc/it's";
  data.content = "data\n";
  data.owner = "root:root";
  data.permissions = "644";
  data.overwrite = false;
  input.spec.provision = {Step(Mode::kUser, "u"),
                          Step(Mode::kSystem, "s1"),
                          data,
                          Step(Mode::kDependency, "d"),
                          Step(Mode::kSystem, "s2"),
                          Step(Mode::kBoot, "b")};
  Env documents = Documents(input);
  EXPECT_EQ(documents["plan"],
            "STEPS=6\n"
            "EarlySteps() {\n"
            "  CaCerts no >/dev/null\n"
            "  Script 001 boot 6\n"
            "}\n"
            "LateSteps() {\n"
            "  rm -f $STATE/upgraded\n"
            "  Script 002 dependency 4\n"
            "  Data 003 3 '/etc/it'\\''s' 'root:root' '644' no\n"
            "  Script 004 system 2\n"
            "  Script 005 system 5\n"
            "  Script 006 user 1\n"
            "}\n");
  EXPECT_EQ(documents["step-001"], "b");
  EXPECT_EQ(documents["step-003"], "data\n");
  EXPECT_EQ(documents["step-006"], "u");
  EXPECT_EQ(documents["boot.sh"], kBootScript);
}

TEST(Boot, SettingsAreSteps) {
  BootInput input = SomeBoot();
  input.spec.timezone = "Europe/Berlin";
  input.spec.upgrade_packages = true;
  input.spec.remove_default_ca_certs = true;
  input.spec.ca_certs = {
      "# two\n-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"
      "-----BEGIN CERTIFICATE-----\nB\n-----END CERTIFICATE-----",
      "-----BEGIN CERTIFICATE-----\nC\n-----END CERTIFICATE-----\n"};
  input.spec.dns = {"1.1.1.1", "9.9.9.9"};
  Env documents = Documents(input);
  EXPECT_EQ(documents["plan"],
            "STEPS=3\n"
            "EarlySteps() {\n"
            "  Step 001 'time zone' Timezone 'Europe/Berlin'\n"
            "  Step 002 'CA certificates' CaCerts yes\n"
            "}\n"
            "LateSteps() {\n"
            "  Step 003 'package upgrade' UpgradePackages\n"
            "}\n");
  EXPECT_EQ(documents["ca-1.crt"],
            "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n");
  EXPECT_EQ(documents["ca-3.crt"],
            "-----BEGIN CERTIFICATE-----\nC\n-----END CERTIFICATE-----\n");
  EXPECT_EQ(documents.count("ca-4.crt"), 0);
  EXPECT_EQ(documents["resolved.conf"],
            "[Resolve]\nDNS=1.1.1.1 9.9.9.9\nDomains=~.\n");
}

TEST(Boot, DisksComeFirst) {
  BootInput input = SomeBoot();
  input.spec.additional_disks = {
      {"data", true, "", {}},
      {"one-with-a-name-that-is-long", false, "xfs", {"-m", "it's=1"}}};
  EXPECT_THAT(
      Documents(input)["plan"],
      HasSubstr("EarlySteps() {\n"
                "  Step 001 'disk data' MountDisk data data yes 'ext4'\n"
                "  Step 002 'disk one-with-a-name-that-is-long' "
                "MountDisk one-with-a-name-that-is-long "
                "one-with-a--e8546a82 no 'xfs' '-m' 'it'\\''s=1'\n"));
}

TEST(Boot, ScriptsFindTheWayOutThatIsLeft) {
  BootInput input = SomeBoot();
  EXPECT_THAT(Documents(input)["plan"], Not(HasSubstr("AwaitProxy")));
  input.spec.egress = {"example.com"};
  EXPECT_THAT(Documents(input)["plan"],
              HasSubstr("LateSteps() {\n  AwaitProxy\n"));
}

TEST(Boot, HostsFollowNames) {
  BootInput input = SomeBoot();
  input.spec.hosts = {{"docker", "host.lima.internal"},
                      {"alias", "docker"},
                      {"self", "lima-box"},
                      {"fixed", "10.1.2.3"},
                      {"away", "example.org"},
                      {"a", "b"},
                      {"b", "a"},
                      {"two words", "10.0.0.1"}};
  Env documents = Documents(input);
  EXPECT_EQ(documents["hosts"],
            "192.168.5.2 alias\n192.168.5.2 docker\n10.1.2.3 fixed\n"
            "192.168.5.2 host.lima.internal\n192.168.5.15 self\n");
  EXPECT_THAT(documents["aliases"], HasSubstr("away example.org\n"));
}

TEST(Boot, VariablesReachAShellAsTheyAre) {
  BootInput input = SomeBoot();
  input.spec.param = {{"x", "it's \"$HOME\""}};
  input.env = {{"PLAIN", "a b"},  {"HASH", "a#b"},
               {"LINES", "a\nb"}, {"QUOTED", "\"a\""},
               {"EMPTY", ""},     {"LONG", std::string(2000, 'x')},
               {"BAD NAME", "x"}, {"1", "x"}};
  Env documents = Documents(input);
  EXPECT_EQ(Shell(documents["env.sh"] + documents["lima.env"] +
                  "echo \"$PLAIN|$HASH|$LINES|$QUOTED|$EMPTY|${#LONG}|"
                  "$PARAM_x|$LIMA_CIDATA_NAME|$LIMA_CIDATA_USER\""),
            "a b|a#b|a\nb|\"a\"||2000|it's \"$HOME\"|box|ann\n");
  EXPECT_EQ(documents["etc_environment"], "EMPTY=\nPLAIN=a b\n");
  EXPECT_EQ(documents["environment"],
            "EMPTY=\nHASH=a#b\nLONG=" + std::string(2000, 'x') +
                "\nPLAIN=a b\nQUOTED=\"a\"\n");
}

TEST(Boot, ProxiesOfTheHostAreTheGuestsToo) {
  const Env host = {{"http_proxy", "http://ann:p@ss@127.0.0.1:3128/x"},
                    {"HTTPS_PROXY", "localhost:8080"},
                    {"ftp_proxy", "http://[::1]:21"},
                    {"no_proxy", "localhost,127.0.0.1"},
                    {"OTHER", "x"}};
  const auto get = [&host](const char* name) -> const char* {
    const auto found = host.find(name);
    return found == host.end() ? nullptr : found->second.c_str();
  };
  Spec spec;
  EXPECT_EQ(GuestEnv(spec, get),
            (Env{{"http_proxy", "http://ann:p@ss@192.168.5.2:3128/x"},
                 {"HTTP_PROXY", "http://ann:p@ss@192.168.5.2:3128/x"},
                 {"https_proxy", "192.168.5.2:8080"},
                 {"HTTPS_PROXY", "192.168.5.2:8080"},
                 {"ftp_proxy", "http://192.168.5.2:21"},
                 {"FTP_PROXY", "http://192.168.5.2:21"},
                 {"no_proxy", "localhost,127.0.0.1"},
                 {"NO_PROXY", "localhost,127.0.0.1"}}));
  spec.env = {{"HTTP_PROXY", "http://proxy.example:1"}, {"A", "b"}};
  const Env mixed = GuestEnv(spec, get);
  EXPECT_EQ(mixed.at("http_proxy"), "http://proxy.example:1");
  EXPECT_EQ(mixed.at("HTTP_PROXY"), "http://proxy.example:1");
  spec.propagate_proxy_env = false;
  EXPECT_EQ(GuestEnv(spec, get),
            (Env{{"A", "b"},
                 {"http_proxy", "http://proxy.example:1"},
                 {"HTTP_PROXY", "http://proxy.example:1"}}));
  spec.env = {{"http_proxy", "http://127.0.0.1.example/"}};
  EXPECT_EQ(GuestEnv(spec, get).at("http_proxy"), "http://127.0.0.1.example/");
}

TEST(Boot, ReportOfAGuest) {
  BootReport report = ParseBootReport(
      "now abc\nboot abc\nsteps 3\nrun 001 provision script 2 (mode boot)\n"
      "end 001 0\nrun 002 time zone\nend 002 3\nrun 003 x\n");
  EXPECT_FALSE(report.cloud_init_done);
  EXPECT_TRUE(report.present);
  EXPECT_FALSE(report.all);
  EXPECT_EQ(report.steps, 3);
  ASSERT_EQ(report.begun.size(), 3);
  EXPECT_EQ(report.begun[0].what, "provision script 2 (mode boot)");
  EXPECT_EQ(report.begun[0].status, 0);
  EXPECT_EQ(report.begun[1].sequence, "002");
  EXPECT_EQ(report.begun[1].status, 3);
  EXPECT_EQ(report.begun[2].status, std::nullopt);
  report = ParseBootReport("cloud-init\nnow abc\nboot abc\nsteps 0\nall\n");
  EXPECT_TRUE(report.cloud_init_done && report.present && report.all);
  EXPECT_EQ(report.uid, std::nullopt);
  report = ParseBootReport("now abc\nboot abc\nuid 1001\n");
  EXPECT_EQ(report.uid, 1001U);
  report = ParseBootReport("now abc\nboot abc\nuid 1001; reboot\nuid -1\n");
  EXPECT_EQ(report.uid, std::nullopt);
  // The boot before this one; a guest without; one that lies.
  report = ParseBootReport("cloud-init\nnow new\nboot old\nsteps 0\nall\n");
  EXPECT_FALSE(report.present || report.all);
  EXPECT_FALSE(ParseBootReport("cloud-init\nnow abc\n").present);
  report = ParseBootReport(
      "now a\nboot a\nrun ;reboot x\nend 001 0\nend\nrun\nrun 001 \x1b[0m\n");
  ASSERT_EQ(report.begun.size(), 1);
  EXPECT_EQ(report.begun[0].what, "[0m");
  EXPECT_FALSE(ParseBootReport("").present);
}

TEST(Boot, LastWordsAreOneLine) {
  EXPECT_EQ(LastWords("== 2026 x\na\n\nb \nc\nd\n== exit status 1\n"),
            "b | c | d");
  EXPECT_EQ(LastWords("== 2026 x\n== exit status 1\n"), "");
  EXPECT_EQ(LastWords("\x1b[31mred\xff\n"), "[31mred");
  const std::string words = LastWords(std::string(1000, 'x'));
  EXPECT_EQ(words, "…" + std::string(300, 'x'));
  EXPECT_EQ(OneLine(" a\nb\x01\xc3\xa4 "), "a b ä");
}

TEST(Boot, ProbesRunByTheirOwnProgram) {
  EXPECT_EQ(ProbeCommand("#!/usr/bin/env bash -e\ntrue", "ann"),
            "exec 2>&1; [ \"$(id -u)\" != 0 ] || exec runuser -l 'ann' -c "
            "'exec /usr/bin/env bash -e'; exec /usr/bin/env bash -e");
  EXPECT_THAT(ProbeCommand("true", "ann"), HasSubstr("exec /bin/sh"));
  EXPECT_THAT(ProbeCommand("#!\n", "ann"), HasSubstr("exec /bin/sh"));
}

// boot.sh itself, with its steps, on this machine: its directories are moved.
class BootScript : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/sbxfs-guest.XXXXXX";
    dir_ = mkdtemp(path);
    std::filesystem::create_directories(dir_ / "mnt");
    std::filesystem::create_directories(dir_ / "state/log");
    std::filesystem::create_directories(dir_ / "state/step");
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  // Runs both parts of the plan.
  void Run(const BootInput& input, const std::string& uid = "") {
    for (const auto& [name, text] : BootDocuments(input)) {
      std::ofstream(dir_ / "mnt" / name) << text;
    }
    // The functions alone, and none that touches the machine.
    std::string script = kBootScript;
    script.resize(script.find("PATH=/usr/local/sbin"));
    Replace(script, "MNT=/mnt/lima-cidata", "MNT=" + (dir_ / "mnt").string());
    Replace(script, "STATE=/var/lib/sbxfs",
            "STATE=" + (dir_ / "state").string());
    script +=
        "CaCerts() { :; }\n. $MNT/env.sh\n. $MNT/lima.env\n"
        "LIMA_CIDATA_UID=" +
        uid + "\neval \"$(Known $MNT/plan)\"\nEarlySteps\nLateSteps\n";
    EXPECT_EQ(Shell(script), "");
  }
  static void Replace(std::string& text, const std::string& from,
                      const std::string& to) {
    const auto at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
  }
  [[nodiscard]] std::string Read(const std::string& name) const {
    std::ifstream file(dir_ / name);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path dir_;
};

TEST_F(BootScript, AFailingStepStopsNothing) {
  BootInput input = SomeBoot();
  input.env = {{"GREETING", "it's"}};
  input.spec.param = {{"who", "world"}};
  ProvisionStep data = Step(Mode::kData, "");
  data.path = (dir_ / "made/a file").string();
  data.content = "content\n";
  data.permissions = "640";
  ProvisionStep kept = data;
  kept.content = "other\n";
  kept.overwrite = false;
  input.spec.provision = {
      Step(Mode::kSystem, "#!/bin/sh\necho first; echo wrong >&2; exit 3\n"),
      Step(Mode::kSystem,
           "#!/bin/bash\nx=(1 2); echo $GREETING $PARAM_who "
           "$LIMA_CIDATA_NAME ${x[1]}\n"),
      Step(Mode::kBoot, "echo no interpreter"),
      Step(Mode::kSystem, "#!/no/such/program\n"),
      data,
      kept};
  Run(input);
  EXPECT_EQ(Read("state/state"),
            "run 001 provision script 3 (mode boot)\nend 001 0\n"
            "run 002 provision script 5 (mode data, " +
                data.path +
                ")\nend 002 0\n"
                "run 003 provision script 6 (mode data, " +
                data.path +
                ")\nend 003 0\n"
                "run 004 provision script 1 (mode system)\nend 004 3\n"
                "run 005 provision script 2 (mode system)\nend 005 0\n"
                "run 006 provision script 4 (mode system)\nend 006 127\n");
  EXPECT_THAT(Read("state/log/001"), HasSubstr("\nno interpreter\n"));
  EXPECT_EQ(Read("made/a file"), "content\n");
  EXPECT_EQ(std::filesystem::status(data.path).permissions(),
            std::filesystem::perms(0640));
  EXPECT_THAT(Read("state/log/003"), HasSubstr("is there; kept\n"));
  EXPECT_THAT(Read("state/log/004"),
              testing::MatchesRegex(
                  "== [-0-9T:Z]+ provision script 1 \\(mode system\\)\n"
                  "first\nwrong\n== exit status 3\n"));
  EXPECT_THAT(Read("state/log/005"), HasSubstr("\nit's world box 2\n"));
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / "state/step"));
}

TEST_F(BootScript, TheUidIsTheGuests) {
  BootInput input = SomeBoot();
  ProvisionStep data = Step(Mode::kData, "");
  data.path = (dir_ / "made-{{.UID}}").string();
  data.content = "'{{.UID}}' & {{.UID}}";
  data.overwrite = true;
  input.spec.provision = {Step(Mode::kSystem, "echo uid {{.UID}}\n"), data};
  Placeholders places;
  places.uid = "1000";
  Expand(places, input.spec);
  // Before there is the user, and with one that came after another.
  for (const std::string uid : {"", "1001"}) {
    Run(input, uid);
    const std::string told = uid.empty() ? "1000" : uid;
    EXPECT_THAT(Read("state/log/002"), HasSubstr("\nuid " + told + "\n"));
    EXPECT_EQ(Read("made-" + told), "'" + told + "' & " + told);
  }
}

// What is taken for blank is formatted.
TEST_F(BootScript, ADiskIsBlankWithNothingInIt) {
  std::string script = kBootScript;
  script.resize(script.find("PATH=/usr/local/sbin"));
  const auto blank = [&](const std::string& bytes, size_t size) {
    std::string disk = bytes;
    disk.resize(size);
    std::ofstream(dir_ / "disk", std::ios::binary) << disk;
    return Shell(script + "IsBlank " + (dir_ / "disk").string() +
                 " && echo yes || echo no") == "yes\n";
  };
  constexpr size_t kMiB = 1 << 20;
  EXPECT_TRUE(blank("", 8 * kMiB));
  EXPECT_FALSE(blank("x", 8 * kMiB));
  EXPECT_FALSE(blank(std::string(kMiB - 1, '\0') + "x", 8 * kMiB));
  // One that cannot be read to there says nothing.
  EXPECT_FALSE(blank("", kMiB / 2));
  // A btrfs has nothing in its first 64 KiB; what is further back is not seen.
  EXPECT_FALSE(blank(std::string(65600, '\0') + "_BHRfS_M", 8 * kMiB));
  EXPECT_EQ(system(("rm -f '" + (dir_ / "disk").string() + "'").c_str()), 0);
  EXPECT_THAT(Shell(script + "IsBlank " + (dir_ / "disk").string() +
                    " 2>/dev/null && echo yes || echo no"),
              HasSubstr("no"));
}

TEST_F(BootScript, ShellcheckIsContent) {
  if (system("command -v shellcheck >/dev/null") != 0) {
    GTEST_SKIP() << "shellcheck is missing";
  }
  EXPECT_EQ(Shell("cd " SBXFS_SOURCE_DIR "/backend/guest; "
                  "shellcheck -s sh -S warning become.sh boot.sh secret.sh"),
            "");
}

}  // namespace
}  // namespace sbxfs
