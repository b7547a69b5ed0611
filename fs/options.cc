#include "fs/options.h"

#include <fmt/format.h>
#include <fuse_opt.h>
#include <grp.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <limits>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

enum Key : int {
  kHelp,
  kVersion,
  kCheck,
  kConnect,
  kStatus,
  kOnlyMount,
  kForeground,
  kDebug,
  kLogFile,
  kLogLevel,
  kTrash,
  kStopTimeout,
  kStartTimeout,
  kStart,
  kAll,
  kCold,
  kPool,
  kDiskPool,
  kUserSandboxes,
  kUserMemory,
  kUserDisk,
  kUserPorts,
  kUserJobs,
  kGroup,
  kSshConfig,
  kInsecureTcp,
  kHosts,
  kAllowOther,
  kReadOnly,
  kReadWrite,
  kSloppy,
  kRemount,
  kToFuse,
  kOurs,
  kIgnore
};

// The one table of options. Those without a template here are unknown, since
// libfuse would refuse them without naming the nearest.
constexpr fuse_opt kTable[] = {
    FUSE_OPT_KEY("-h", kHelp), FUSE_OPT_KEY("--help", kHelp),
    FUSE_OPT_KEY("-V", kVersion), FUSE_OPT_KEY("--version", kVersion),
    FUSE_OPT_KEY("--check", kCheck), FUSE_OPT_KEY("--connect", kConnect),
    FUSE_OPT_KEY("--status", kStatus), FUSE_OPT_KEY("--only-mount", kOnlyMount),
    FUSE_OPT_KEY("-f", kForeground), FUSE_OPT_KEY("-d", kDebug),
    FUSE_OPT_KEY("--debug", kDebug),

    FUSE_OPT_KEY("log=", kLogFile), FUSE_OPT_KEY("loglevel=", kLogLevel),
    FUSE_OPT_KEY("trash=", kTrash), FUSE_OPT_KEY("stop_timeout=", kStopTimeout),
    FUSE_OPT_KEY("start_timeout=", kStartTimeout),
    FUSE_OPT_KEY("start", kStart), FUSE_OPT_KEY("all", kAll),
    FUSE_OPT_KEY("cold", kCold), FUSE_OPT_KEY("pool=", kPool),
    FUSE_OPT_KEY("disk_pool=", kDiskPool),
    FUSE_OPT_KEY("user_sandboxes=", kUserSandboxes),
    FUSE_OPT_KEY("user_memory=", kUserMemory),
    FUSE_OPT_KEY("user_disk=", kUserDisk),
    FUSE_OPT_KEY("user_ports=", kUserPorts),
    FUSE_OPT_KEY("user_jobs=", kUserJobs), FUSE_OPT_KEY("group=", kGroup),
    FUSE_OPT_KEY("gid=", kGroup), FUSE_OPT_KEY("ssh_config=", kSshConfig),
    FUSE_OPT_KEY("insecure_tcp", kInsecureTcp), FUSE_OPT_KEY("hosts=", kHosts),
    FUSE_OPT_KEY("allow_other", kAllowOther), FUSE_OPT_KEY("ro", kReadOnly),
    FUSE_OPT_KEY("rw", kReadWrite), FUSE_OPT_KEY("sloppy", kSloppy),
    FUSE_OPT_KEY("remount", kRemount),

    // What libfuse 3.14 takes for itself and for mount(2).
    FUSE_OPT_KEY("allow_root", kToFuse), FUSE_OPT_KEY("auto_unmount", kToFuse),
    FUSE_OPT_KEY("max_read=", kToFuse), FUSE_OPT_KEY("debug", kToFuse),
    FUSE_OPT_KEY("nosuid", kToFuse), FUSE_OPT_KEY("nodev", kToFuse),
    FUSE_OPT_KEY("exec", kToFuse), FUSE_OPT_KEY("noexec", kToFuse),
    FUSE_OPT_KEY("sync", kToFuse), FUSE_OPT_KEY("async", kToFuse),
    FUSE_OPT_KEY("dirsync", kToFuse), FUSE_OPT_KEY("atime", kToFuse),
    FUSE_OPT_KEY("noatime", kToFuse), FUSE_OPT_KEY("context=", kToFuse),
    FUSE_OPT_KEY("fscontext=", kToFuse), FUSE_OPT_KEY("defcontext=", kToFuse),
    FUSE_OPT_KEY("rootcontext=", kToFuse),

    // Set by sbxfs itself.
    FUSE_OPT_KEY("default_permissions", kIgnore),
    FUSE_OPT_KEY("fsname=", kOurs), FUSE_OPT_KEY("subtype=", kOurs),

    // Without a meaning here: a tree of text has no devices and no programs
    // that change their user, and keeps no access times. Some are mount(8)'s
    // own business and come with fstab lines run by mount.fuse3.
    FUSE_OPT_KEY("dev", kIgnore), FUSE_OPT_KEY("suid", kIgnore),
    FUSE_OPT_KEY("relatime", kIgnore), FUSE_OPT_KEY("norelatime", kIgnore),
    FUSE_OPT_KEY("strictatime", kIgnore),
    FUSE_OPT_KEY("nostrictatime", kIgnore), FUSE_OPT_KEY("lazytime", kIgnore),
    FUSE_OPT_KEY("nolazytime", kIgnore), FUSE_OPT_KEY("diratime", kIgnore),
    FUSE_OPT_KEY("nodiratime", kIgnore), FUSE_OPT_KEY("mand", kIgnore),
    FUSE_OPT_KEY("nomand", kIgnore), FUSE_OPT_KEY("iversion", kIgnore),
    FUSE_OPT_KEY("noiversion", kIgnore), FUSE_OPT_KEY("silent", kIgnore),
    FUSE_OPT_KEY("loud", kIgnore), FUSE_OPT_KEY("defaults", kIgnore),
    FUSE_OPT_KEY("auto", kIgnore), FUSE_OPT_KEY("noauto", kIgnore),
    FUSE_OPT_KEY("user", kIgnore), FUSE_OPT_KEY("user=", kIgnore),
    FUSE_OPT_KEY("nouser", kIgnore), FUSE_OPT_KEY("users", kIgnore),
    FUSE_OPT_KEY("owner", kIgnore), FUSE_OPT_KEY("group", kIgnore),
    FUSE_OPT_KEY("nofail", kIgnore), FUSE_OPT_KEY("_netdev", kIgnore),
    FUSE_OPT_KEY("comment=", kIgnore), FUSE_OPT_END};

constexpr std::string_view kLevels[] = {"trace", "debug",    "info", "warning",
                                        "error", "critical", "off"};

// Collects the words of the command line while libfuse takes it apart.
struct Parser {
  Options options;
  std::vector<std::string> operands;
  std::vector<std::string> unknown;
  std::string group;  // as given
  bool log_level_given = false;
  bool sloppy = false;
  bool remount = false;
};

void Fail(Parser& parser, std::string_view word, std::string_view reason) {
  parser.options.errors.push_back(
      fmt::format("Cannot use option '{}': {}", word, reason));
}

// `word` is NAME=VALUE.
std::string_view Value(std::string_view word) {
  return word.substr(word.find('=') + 1);
}

void SetDuration(Parser& parser, std::string_view word, bool zero,
                 std::chrono::seconds& setting) {
  const auto duration = ParseDuration(Value(word));
  if (!duration || (!zero && duration->count() == 0)) {
    Fail(parser, word,
         fmt::format("not a time{}; say seconds, or a number with s, m, h or d "
                     "after it, as in {}={}",
                     zero ? "" : " above 0", word.substr(0, word.find('=')),
                     FormatDuration(setting)));
    return;
  }
  setting = *duration;
}

// How much one user may have.
void SetLimit(Parser& parser, std::string_view word, bool bytes,
              uint64_t& setting) {
  const auto number = bytes ? ParseSize(Value(word)) : ParseNumber(Value(word));
  if (!number || *number == 0) {
    Fail(parser, word,
         bytes ? "not a size above 0, as in 8GiB" : "not a number above 0");
    return;
  }
  setting = *number;
}

void SetLogLevel(Parser& parser, std::string_view word) {
  parser.log_level_given = true;
  parser.options.log_level = Value(word);
  for (const std::string_view level : kLevels) {
    if (level == Value(word)) return;
  }
  Fail(parser, word,
       fmt::format("no such level; the levels are {}",
                   fmt::join(std::begin(kLevels), std::end(kLevels), ", ")));
}

void SetText(Parser& parser, std::string_view word, std::string& setting) {
  setting = Value(word);
  if (setting.empty()) Fail(parser, word, "its value is empty");
}

// As it is from everywhere: the daemon goes to another directory.
void SetPath(Parser& parser, std::string_view word, std::string& setting) {
  SetText(parser, word, setting);
  if (!setting.empty()) setting = std::filesystem::absolute(setting);
}

void SetGroup(Parser& parser, std::string_view word) {
  parser.group = word;
  const std::string name(Value(word));
  const auto number = ParseNumber(name);
  if (const group* entry = getgrnam(name.c_str())) {
    parser.options.group = entry->gr_gid;
  } else if (number && *number < std::numeric_limits<gid_t>::max()) {
    parser.options.group = static_cast<gid_t>(*number);
  } else {
    Fail(parser, word, "no such group");
  }
}

void Take(Parser& parser, int key, std::string_view word) {
  Options& options = parser.options;
  switch (key) {
    case kHelp:
      options.help = true;
      break;
    case kVersion:
      options.version = true;
      break;
    case kCheck:
      options.check = true;
      break;
    case kConnect:
      options.connect = true;
      break;
    case kStatus:
      options.status = true;
      break;
    case kOnlyMount:
      options.only_mount = true;
      break;
    case kForeground:
      options.foreground = true;
      break;
    case kDebug:
      options.foreground = true;
      options.debug = true;
      break;
    case kLogFile:
      SetText(parser, word, options.log.emplace());
      break;
    case kLogLevel:
      SetLogLevel(parser, word);
      break;
    case kTrash:
      SetDuration(parser, word, true, options.trash);
      break;
    case kStopTimeout:
      SetDuration(parser, word, false, options.stop_timeout);
      break;
    case kStartTimeout:
      SetDuration(parser, word, false, options.start_timeout);
      break;
    case kStart:
      options.start = true;
      break;
    case kAll:
      options.all = true;
      break;
    case kCold:
      options.cold = true;
      break;
    case kPool:
      SetText(parser, word, options.pool);
      break;
    case kDiskPool:
      SetText(parser, word, options.disk_pool);
      break;
    case kUserSandboxes:
      SetLimit(parser, word, false, options.limits.sandboxes);
      break;
    case kUserMemory:
      SetLimit(parser, word, true, options.limits.memory);
      break;
    case kUserDisk:
      SetLimit(parser, word, true, options.limits.disk);
      break;
    case kUserPorts:
      SetLimit(parser, word, false, options.limits.ports);
      break;
    case kUserJobs:
      SetLimit(parser, word, false, options.limits.jobs);
      break;
    case kGroup:
      SetGroup(parser, word);
      break;
    case kSshConfig:
      SetPath(parser, word, options.ssh_config);
      break;
    case kInsecureTcp:
      options.insecure_tcp = true;
      break;
    case kHosts:
      SetPath(parser, word, options.hosts);
      break;
    case kAllowOther:
      options.allow_other = true;
      break;
    case kReadOnly:
    case kReadWrite:
      options.read_only = key == kReadOnly;
      break;
    case kSloppy:
      parser.sloppy = true;
      break;
    case kRemount:
      parser.remount = true;
      break;
    case kToFuse:
      if (word.starts_with("max_read=") && !ParseNumber(Value(word))) {
        Fail(parser, word, "not a number of bytes");
      }
      options.to_fuse.emplace_back(word);
      break;
    case kOurs:
      Fail(parser, word, "sbxfs sets it itself, so that mount finds the mount");
      break;
    case FUSE_OPT_KEY_NONOPT:
      parser.operands.emplace_back(word);
      break;
    case FUSE_OPT_KEY_OPT:
      if (!word.starts_with("x-") && !word.starts_with("X-")) {
        parser.unknown.emplace_back(word);
      }
      break;
    default:  // kIgnore
      break;
  }
}

// Names of the options a slip of the pen can have meant, without values.
std::vector<std::string_view> KnownNames(bool dashed) {
  std::vector<std::string_view> names;
  for (const fuse_opt* option = kTable; option->templ != nullptr; ++option) {
    const std::string_view name = option->templ;
    if (name.starts_with('-') == dashed) {
      names.push_back(name.substr(0, name.find('=')));
    }
  }
  return names;
}

std::string UnknownSentence(std::string_view word) {
  const bool dashed = word.starts_with('-');
  const std::string_view name = word.substr(0, word.find('='));
  const std::string nearest = NearestName(name, KnownNames(dashed));
  std::string reason = "no such option";
  if (nearest == name) {
    reason = word == name ? "it needs a value, as in " + nearest + "=VALUE"
                          : "it takes no value";
  } else if (!nearest.empty()) {
    reason += "; did you mean '" + nearest + "'";
  }
  return fmt::format("Cannot use option '{}': {}", word, reason);
}

// What the words that are no options may be, and how a sentence says it.
struct Operands {
  const char* verb;
  const char* usage;
  std::size_t least;
  std::size_t most;
};

Operands OperandsOf(const Options& options) {
  if (options.connect) return {"connect", "sbxfs --connect DIR/NAME", 1, 1};
  if (options.status) return {"show", "sbxfs --status [DIR]", 0, 1};
  return {"mount", "sbxfs [URI] DIR", 1, 2};
}

void TakeOperands(Parser& parser) {
  Options& options = parser.options;
  auto& operands = parser.operands;
  const Operands form = OperandsOf(options);
  if (operands.size() < form.least) {
    options.errors.push_back(fmt::format(
        "Cannot {}: no directory is named; say {}", form.verb, form.usage));
  } else if (operands.size() > form.most) {
    options.errors.push_back(
        fmt::format("Cannot {}: '{}' is one argument too many; say {}",
                    form.verb, operands[form.most], form.usage));
  } else if (!operands.empty()) {
    options.dir = operands.back();
    if (operands.size() == 2) options.uri = operands.front();
  }
}

void CheckTogether(Parser& parser) {
  Options& options = parser.options;
  if (options.debug && !parser.log_level_given) options.log_level = "debug";
  if (!parser.group.empty() && !options.allow_other) {
    Fail(parser, parser.group,
         "without allow_other nobody else gets in; add allow_other");
  }
  if (!options.hosts.empty() && !options.uri.empty() &&
      options.uri != options.hosts) {
    Fail(parser, fmt::format("hosts={}", options.hosts),
         fmt::format("the URI '{}' names another hypervisor; put it into the "
                     "file",
                     options.uri));
  }
  if (options.log == "stderr" && !options.foreground && !options.check) {
    Fail(parser, "log=stderr",
         "in the background there is no stderr; add -f, or log to syslog or "
         "a file");
  }
}

int OnWord(void* data, const char* word, int key, fuse_args*) {
  Take(*static_cast<Parser*>(data), key, word);
  return 0;  // libfuse keeps nothing: all that is left for it is in to_fuse
}

}  // namespace

std::string Options::LogTarget() const {
  return log.value_or(foreground ? "stderr" : "syslog");
}

Options ParseOptions(int argc, char** argv) {
  Parser parser;
  // libfuse would print its own words about it.
  if (argc > 1 && std::strcmp(argv[argc - 1], "-o") == 0) {
    parser.options.errors.emplace_back(
        "Cannot use option '-o': it needs a value, as in -o ro");
    --argc;
  }
  fuse_args args = FUSE_ARGS_INIT(argc, argv);
  if (fuse_opt_parse(&args, &parser, kTable, OnWord) != 0) {
    parser.options.errors.emplace_back(
        "Cannot read the command line: out of memory");
  }
  fuse_opt_free_args(&args);
  if (parser.options.help || parser.options.version) {
    parser.options.errors.clear();
    return parser.options;
  }
  if (parser.remount) {
    // Alone: mount(8) then passes options on that the kernel has added.
    parser.options.errors = {
        "Cannot remount: the options of a mount are fixed while it is mounted; "
        "unmount it and mount it again"};
    return parser.options;
  }
  auto& rest = parser.sloppy ? parser.options.warnings : parser.options.errors;
  for (const std::string& word : parser.unknown) {
    if (word == "--") continue;
    const bool dashed = word.starts_with('-');
    (dashed ? parser.options.errors : rest).push_back(UnknownSentence(word));
  }
  TakeOperands(parser);
  CheckTogether(parser);
  return parser.options;
}

std::vector<std::string> FuseArguments(const Options& options,
                                       std::string_view source) {
  std::vector<std::string> words = {"subtype=sbxfs", "default_permissions",
                                    "fsname=" + std::string(source)};
  if (options.allow_other) words.emplace_back("allow_other");
  if (options.read_only) words.emplace_back("ro");
  if (options.debug) words.emplace_back("debug");
  words.insert(words.end(), options.to_fuse.begin(), options.to_fuse.end());
  std::string joined;
  for (const std::string& word : words) {
    if (!joined.empty()) joined += ',';
    for (const char c : word) {
      if (c == ',' || c == '\\') joined += '\\';
      joined += c;
    }
  }
  return {"sbxfs", "-o", joined};
}

std::vector<std::string_view> OptionNames() {
  std::vector<std::string_view> names;
  for (const fuse_opt* option = kTable; option->templ != nullptr; ++option) {
    switch (option->value) {
      case kReadWrite:
      case kRemount:
      case kOurs:
      case kIgnore:
        break;
      default:
        names.emplace_back(option->templ);
    }
  }
  return names;
}

}  // namespace sbxfs
