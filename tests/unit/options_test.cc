#include "fs/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace sbxfs {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

Options Parse(std::vector<std::string> words) {
  words.insert(words.begin(), "sbxfs");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return ParseOptions(static_cast<int>(words.size()), argv.data());
}

TEST(Options, Defaults) {
  const Options options = Parse({"/mnt"});
  EXPECT_THAT(options.errors, IsEmpty());
  EXPECT_EQ(options.uri, "");
  EXPECT_EQ(options.dir, "/mnt");
  EXPECT_FALSE(options.foreground);
  EXPECT_FALSE(options.debug);
  EXPECT_FALSE(options.check);
  EXPECT_EQ(options.LogTarget(), "syslog");
  EXPECT_EQ(options.log_level, "warning");
  EXPECT_EQ(options.trash, seconds(86400));
  EXPECT_EQ(options.stop_timeout, seconds(60));
  EXPECT_EQ(options.start_timeout, seconds(600));
  EXPECT_FALSE(options.start);
  EXPECT_FALSE(options.all);
  EXPECT_EQ(options.pool, "sbxfs");
  EXPECT_EQ(options.group, std::nullopt);
  EXPECT_FALSE(options.allow_other);
  EXPECT_FALSE(options.read_only);
  EXPECT_THAT(options.to_fuse, IsEmpty());
}

TEST(Options, EverythingSet) {
  const Options options =
      Parse({"-f", "qemu:///system", "/mnt", "-o",
             "trash=2h,stop_timeout=5,start_timeout=20m,start,all,pool=p,"
             "group=root,allow_other,ro,log=/var/log/x,loglevel=info,noatime,"
             "max_read=4096,user_sandboxes=3,user_memory=2GiB,user_disk=1TiB,"
             "user_ports=9,user_jobs=7"});
  EXPECT_THAT(options.errors, IsEmpty());
  EXPECT_EQ(options.uri, "qemu:///system");
  EXPECT_EQ(options.dir, "/mnt");
  EXPECT_TRUE(options.foreground);
  EXPECT_EQ(options.LogTarget(), "/var/log/x");
  EXPECT_EQ(options.log_level, "info");
  EXPECT_EQ(options.trash, seconds(7200));
  EXPECT_EQ(options.stop_timeout, seconds(5));
  EXPECT_EQ(options.start_timeout, seconds(1200));
  EXPECT_TRUE(options.start);
  EXPECT_TRUE(options.all);
  EXPECT_EQ(options.pool, "p");
  EXPECT_EQ(options.group, 0);
  EXPECT_TRUE(options.allow_other);
  EXPECT_TRUE(options.read_only);
  EXPECT_THAT(options.to_fuse, ElementsAre("noatime", "max_read=4096"));
  EXPECT_EQ(options.limits, (UserLimits{3, 2ULL << 30, 1ULL << 40, 9, 7}));
}

TEST(Options, DebugImpliesForegroundAndLevel) {
  EXPECT_TRUE(Parse({"-d", "/mnt"}).foreground);
  EXPECT_EQ(Parse({"-d", "/mnt"}).LogTarget(), "stderr");
  EXPECT_EQ(Parse({"-d", "/mnt"}).log_level, "debug");
  EXPECT_EQ(Parse({"-d", "-ologlevel=off", "/mnt"}).log_level, "off");
}

TEST(Options, HelpAndVersionComeBeforeErrors) {
  for (const char* word : {"-h", "--help"}) {
    const Options options = Parse({"-o", "nonsense", word});
    EXPECT_TRUE(options.help);
    EXPECT_THAT(options.errors, IsEmpty());
  }
  for (const char* word : {"-V", "--version"}) {
    EXPECT_TRUE(Parse({word}).version);
    EXPECT_THAT(Parse({word}).errors, IsEmpty());
  }
}

TEST(Options, Connect) {
  const Options options = Parse({"--connect", "/m/box"});
  EXPECT_THAT(options.errors, IsEmpty());
  EXPECT_TRUE(options.connect);
  EXPECT_EQ(options.dir, "/m/box");
  EXPECT_EQ(options.uri, "");
}

TEST(Options, Status) {
  const Options all = Parse({"--status"});
  EXPECT_THAT(all.errors, IsEmpty());
  EXPECT_TRUE(all.status);
  EXPECT_EQ(all.dir, "");
  EXPECT_EQ(Parse({"--status", "/m"}).dir, "/m");
  EXPECT_THAT(Parse({"--status", "/m", "/n"}).errors,
              ElementsAre("Cannot show: '/n' is one argument too many; say "
                          "sbxfs --status [DIR]"));
}

TEST(Options, LaterOnesWin) {
  EXPECT_EQ(Parse({"-o", "trash=0,trash=5", "/m"}).trash, seconds(5));
  EXPECT_FALSE(Parse({"-o", "ro,rw", "/m"}).read_only);
  EXPECT_TRUE(Parse({"-o", "rw", "-o", "ro", "/m"}).read_only);
}

TEST(Options, Errors) {
  const struct {
    std::vector<std::string> words;
    std::string error;
  } kCases[] = {
      {{}, "Cannot mount: no directory is named; say sbxfs [URI] DIR"},
      {{"a:///", "/m", "x"},
       "Cannot mount: 'x' is one argument too many; say sbxfs [URI] DIR"},
      {{"--connect"},
       "Cannot connect: no directory is named; say sbxfs --connect DIR/NAME"},
      {{"--connect", "/m/a", "/m/b"},
       "Cannot connect: '/m/b' is one argument too many; say sbxfs --connect "
       "DIR/NAME"},
      {{"/m", "-o"}, "Cannot use option '-o': it needs a value, as in -o ro"},
      {{"/m", "-o", "trsh=1d"},
       "Cannot use option 'trsh=1d': no such option; did you mean 'trash'"},
      {{"/m", "-o", "flamingo"},
       "Cannot use option 'flamingo': no such option"},
      {{"/m", "-o", "pool"},
       "Cannot use option 'pool': it needs a value, as in pool=VALUE"},
      {{"/m", "-o", "start=yes"},
       "Cannot use option 'start=yes': it takes no value"},
      {{"/m", "-x"},
       "Cannot use option '-x': no such option; did you mean '-h'"},
      {{"/m", "--hlep"},
       "Cannot use option '--hlep': no such option; did you mean '--help'"},
      {{"/m", "-o", "trash=1w"},
       "Cannot use option 'trash=1w': not a time; say seconds, or a number "
       "with s, m, h or d after it, as in trash=1d"},
      {{"/m", "-o", "user_memory=lots"},
       "Cannot use option 'user_memory=lots': not a size above 0, as in 8GiB"},
      {{"/m", "-o", "user_jobs=0"},
       "Cannot use option 'user_jobs=0': not a number above 0"},
      {{"/m", "-o", "stop_timeout=0"},
       "Cannot use option 'stop_timeout=0': not a time above 0; say seconds, "
       "or a number with s, m, h or d after it, as in stop_timeout=1m"},
      {{"/m", "-o", "start_timeout="},
       "Cannot use option 'start_timeout=': not a time above 0; say seconds, "
       "or a number with s, m, h or d after it, as in start_timeout=10m"},
      {{"/m", "-o", "loglevel=loud"},
       "Cannot use option 'loglevel=loud': no such level; the levels are "
       "trace, debug, info, warning, error, critical, off"},
      {{"/m", "-o", "pool="}, "Cannot use option 'pool=': its value is empty"},
      {{"/m", "-o", "hosts="},
       "Cannot use option 'hosts=': its value is empty"},
      {{"/m", "-o", "group=nosuchgroup,allow_other"},
       "Cannot use option 'group=nosuchgroup': no such group"},
      {{"/m", "-o", "group=root"},
       "Cannot use option 'group=root': without allow_other nobody else gets "
       "in; add allow_other"},
      {{"/m", "-o", "log=stderr"},
       "Cannot use option 'log=stderr': in the background there is no stderr; "
       "add -f, or log to syslog or a file"},
      {{"/m", "-o", "fsname=x"},
       "Cannot use option 'fsname=x': sbxfs sets it itself, so that mount "
       "finds the mount"},
      {{"/m", "-o", "remount,ro,user_id=0"},
       "Cannot remount: the options of a mount are fixed while it is mounted; "
       "unmount it and mount it again"},
      {{"/m", "-o", "max_read=lots"},
       "Cannot use option 'max_read=lots': not a number of bytes"},
  };
  for (const auto& [words, error] : kCases) {
    EXPECT_THAT(Parse(words).errors, ElementsAre(error));
  }
}

TEST(Options, GroupByNumber) {
  const Options options = Parse({"-o", "gid=61234,allow_other", "/m"});
  EXPECT_THAT(options.errors, IsEmpty());
  EXPECT_EQ(options.group, 61234);
}

TEST(Options, AllErrorsAtOnce) {
  EXPECT_THAT(Parse({"-o", "trash=x,loglevel=y,strat"}).errors,
              ElementsAre(testing::HasSubstr("'trash=x'"),
                          testing::HasSubstr("'loglevel=y'"),
                          testing::HasSubstr("did you mean 'start'"),
                          testing::HasSubstr("no directory is named")));
}

TEST(Options, SloppyWarnsAboutUnknownMountOptionsAlone) {
  const Options options = Parse({"-o", "flamingo,sloppy", "-x", "/m"});
  EXPECT_THAT(options.warnings,
              ElementsAre("Cannot use option 'flamingo': no such option"));
  EXPECT_THAT(options.errors, ElementsAre(testing::HasSubstr("'-x'")));
}

// mount.fuse3, the fallback for `mount -t fuse.sbxfs`, passes mount(8)'s own.
TEST(Options, MountsBusinessIsIgnored) {
  const Options options = Parse(
      {"u:///", "/m", "-o",
       "rw,dev,suid,relatime,user,users,nouser,owner,group,auto,noauto,nofail,"
       "_netdev,defaults,comment=x,x-systemd.automount,X-mount.mkdir,"
       "default_permissions,lazytime"});
  EXPECT_THAT(options.errors, IsEmpty());
  EXPECT_THAT(options.warnings, IsEmpty());
  EXPECT_THAT(options.to_fuse, IsEmpty());
}

TEST(Options, AfterTwoDashesAllAreOperands) {
  const Options options = Parse({"-f", "--", "qemu:///system", "-dir"});
  EXPECT_THAT(options.errors, IsEmpty());
  EXPECT_EQ(options.uri, "qemu:///system");
  EXPECT_EQ(options.dir, "-dir");
}

TEST(Options, EscapedCommaBelongsToTheValue) {
  EXPECT_EQ(Parse({"-o", "log=/a\\,b", "/m"}).LogTarget(), "/a,b");
}

TEST(Options, FuseArguments) {
  EXPECT_THAT(FuseArguments(Parse({"/m"}), "qemu:///system"),
              ElementsAre("sbxfs", "-o",
                          "subtype=sbxfs,default_permissions,"
                          "fsname=qemu:///system"));
  EXPECT_THAT(FuseArguments(Parse({"-d", "-o", "ro,allow_other,noexec", "/m"}),
                            "a+b://c/d?e=f,g\\h"),
              ElementsAre("sbxfs", "-o",
                          "subtype=sbxfs,default_permissions,"
                          "fsname=a+b://c/d?e=f\\,g\\\\h,allow_other,ro,debug,"
                          "noexec"));
}

// A new option shows in --help and in the manual.
TEST(Options, AllAreDocumented) {
  std::ifstream file(SBXFS_SOURCE_DIR "/man/sbxfs.8");
  const std::string manual{std::istreambuf_iterator<char>(file), {}};
  const std::string usage = CommandUsage();
  for (const std::string name :
       {"all", "allow_other", "cold", "group", "insecure_tcp", "log",
        "loglevel", "pool", "ro", "sloppy", "ssh_config", "start",
        "start_timeout", "stop_timeout", "trash", "user_sandboxes"}) {
    EXPECT_THAT(manual, testing::ContainsRegex("\n.It Cm " + name + "[ \n]"));
    EXPECT_THAT(usage, testing::ContainsRegex("\n  " + name + "[ =]"));
    for (const char* value : {"", "=1"}) {
      for (const std::string& error :
           Parse({"-o", name + value, "/m"}).errors) {
        EXPECT_THAT(error, testing::Not(testing::HasSubstr("no such option")));
      }
    }
  }
}

TEST(Options, UsageFitsATerminal) {
  std::size_t start = 0;
  const std::string usage = CommandUsage();
  for (std::size_t end; (end = usage.find('\n', start)) != std::string::npos;
       start = end + 1) {
    EXPECT_LE(end - start, 80) << usage.substr(start, end - start);
  }
}

}  // namespace
}  // namespace sbxfs
