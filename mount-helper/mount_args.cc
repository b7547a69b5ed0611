#include "mount-helper/mount_args.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace sbxfs {
namespace {

// mount(8)'s business: who may mount, when, and what waits for what. `rw` is
// the default.
constexpr std::string_view kMountsOwn[] = {
    "rw",     "auto",  "noauto", "defaults", "nofail",  "_netdev", "user",
    "nouser", "users", "owner",  "group",    "comment", "helper",  "uhelper"};

bool IsMountsOwn(std::string_view option) {
  const auto equals = option.find('=');
  const std::string_view name = option.substr(0, equals);
  if (name.starts_with("x-") || name.starts_with("X-")) return true;
  // `group` says who may mount, `group=NAME` is the daemon's, where mount(8)
  // leaves it that.
  if (name == "group" && equals != std::string_view::npos) return false;
  return std::find(std::begin(kMountsOwn), std::end(kMountsOwn), name) !=
         std::end(kMountsOwn);
}

// Takes the option string apart at commas outside of quotes, and turns
// mount(8)'s quotes into libfuse's backslashes.
void TakeOptions(MountArgs& args, std::string_view text) {
  std::string option;
  bool quoted = false;
  const auto finish = [&] {
    if (option == "remount") {
      args.errors.push_back(
          fmt::format("Cannot remount '{}': its options are fixed while it is "
                      "mounted; unmount it and mount it again",
                      args.dir));
    } else if (!option.empty() && !IsMountsOwn(option)) {
      args.options.push_back(option);
    }
    option.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      quoted = !quoted;
    } else if (quoted) {
      if (c == ',' || c == '\\') option += '\\';
      option += c;
    } else if (c == '\\' && i + 1 < text.size()) {
      option += c;
      option += text[++i];
    } else if (c == ',') {
      finish();
    } else {
      option += c;
    }
  }
  if (quoted) {
    args.errors.push_back(
        fmt::format("Cannot use options '{}': a quote is not closed", text));
  }
  finish();
}

void TakeFlag(MountArgs& args, char flag) {
  switch (flag) {
    case 'f':
      args.fake = true;
      break;
    case 'n':  // about /etc/mtab, which is the kernel's table today
      break;
    case 's':
      args.sloppy = true;
      break;
    case 'v':
      args.verbose = true;
      break;
    default:
      args.errors.push_back(
          fmt::format("Cannot use option '-{}': no such option; they are -f, "
                      "-n, -s, -v and -o",
                      flag));
  }
}

void TakeValue(MountArgs& args, char flag, std::string_view value) {
  if (flag == 'o') TakeOptions(args, value);
  if (flag == 'N') {
    args.errors.push_back(
        fmt::format("Cannot mount in namespace '{0}': the daemon would stay "
                    "outside; say nsenter --mount={0} mount ...",
                    value));
  }
  // -t gives a subtype, which has no meaning here.
}

// Reads words[at] and, when it needs one, its value from the next word.
// Returns the index of the next word to read.
std::size_t TakeWord(MountArgs& args, const std::vector<std::string>& words,
                     std::size_t at) {
  const std::string_view word = words[at];
  if (word.size() < 2 || word[0] != '-') {
    args.errors.push_back(
        fmt::format("Cannot mount: '{}' is one argument too many", word));
    return at + 1;
  }
  for (std::size_t i = 1; i < word.size(); ++i) {
    if (word[i] != 'o' && word[i] != 'N' && word[i] != 't') {
      TakeFlag(args, word[i]);
      continue;
    }
    if (i + 1 < word.size()) {
      TakeValue(args, word[i], word.substr(i + 1));
    } else if (at + 1 < words.size()) {
      TakeValue(args, word[i], words[++at]);
    } else {
      args.errors.push_back(
          fmt::format("Cannot use option '-{}': it needs a value", word[i]));
    }
    break;
  }
  return at + 1;
}

bool Has(const std::vector<std::string>& environment, std::string_view name) {
  return std::any_of(environment.begin(), environment.end(),
                     [name](std::string_view variable) {
                       return variable.substr(0, variable.find('=')) == name;
                     });
}

}  // namespace

MountArgs ParseMountArgs(const std::vector<std::string>& words) {
  MountArgs args;
  // Alone: after `mount -t sbxfs -- -V DIR` mount would take our 0 for a mount.
  if (words.size() == 1) {
    args.help = words[0] == "-h" || words[0] == "--help";
    args.version = words[0] == "-V" || words[0] == "--version";
    if (args.help || args.version) return args;
  }
  if (words.size() < 2) {
    args.errors.emplace_back(
        "Cannot mount: a libvirt URI and a directory are needed; say "
        "mount.sbxfs URI DIR");
    return args;
  }
  args.spec = words[0];
  args.dir = words[1];
  if (args.spec.empty() || args.spec[0] == '-') {
    args.errors.push_back(
        fmt::format("Cannot mount '{}': not a libvirt URI; the form is "
                    "qemu:///system",
                    args.spec));
  }
  for (std::size_t at = 2; at < words.size();) at = TakeWord(args, words, at);
  return args;
}

std::vector<std::string> DaemonCommand(const MountArgs& args,
                                       std::string_view daemon) {
  std::vector<std::string> options = args.options;
  if (args.sloppy) options.emplace_back("sloppy");
  std::vector<std::string> command = {std::string(daemon)};
  if (args.fake) command.emplace_back("--check");
  if (!options.empty()) {
    command.emplace_back("-o");
    command.push_back(fmt::format("{}", fmt::join(options, ",")));
  }
  command.insert(command.end(), {"--", args.spec, args.dir});
  return command;
}

std::vector<std::string> DaemonEnvironment(std::vector<std::string> environment,
                                           const Mounter& mounter) {
  const auto add = [&](std::string_view name, std::string_view value) {
    if (!value.empty() && !Has(environment, name)) {
      environment.push_back(fmt::format("{}={}", name, value));
    }
  };
  add("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  add("HOME", mounter.home);
  add("USER", mounter.name);
  add("LOGNAME", mounter.name);
  add("XDG_RUNTIME_DIR", mounter.runtime_dir);
  return environment;
}

std::string ShellLine(const std::vector<std::string>& command) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
      "@%+=:,./_-";
  std::string line;
  for (const std::string& word : command) {
    if (!line.empty()) line += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) {
      if (c == '\'') {
        line += "'\\''";
      } else {
        line += c;
      }
    }
    line += '\'';
  }
  return line;
}

}  // namespace sbxfs
