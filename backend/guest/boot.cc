#include "backend/guest/boot.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "backend/disk_names.h"
#include "backend/egress/proxy.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

using Mode = ProvisionStep::Mode;
using BootFiles = std::vector<std::pair<std::string, std::string>>;

constexpr char kHost[] = "192.168.5.2";  // as the guest sees it
constexpr char kHostName[] = "host.lima.internal";
constexpr char kGuest[] = "192.168.5.15";

// Of variables for login shells. Secrets are read here, not stored.
constexpr char kProfile[] =
    "# Made by sbxfs: env of config.yaml, and secrets while the guest runs.\n"
    "[ ! -r /var/lib/sbxfs/env.sh ] || . /var/lib/sbxfs/env.sh\n"
    "for _sbxfs in /run/sbxfs/[A-Za-z_]*; do\n"
    "  [ ! -r \"$_sbxfs\" ] ||\n"
    "    export \"${_sbxfs##*/}=$(cat \"$_sbxfs\")\"\n"
    "done\n"
    "unset _sbxfs\n";

const char* ModeName(Mode mode) {
  switch (mode) {
    case Mode::kBoot:
      return "boot";
    case Mode::kDependency:
      return "dependency";
    case Mode::kData:
      return "data";
    case Mode::kSystem:
      return "system";
    case Mode::kUser:
      return "user";
  }
  return "system";
}

bool IsWord(std::string_view text) {
  return !text.empty() && IsPlainLine(text) &&
         text.find(' ') == std::string_view::npos;
}

std::string EnvScript(const std::map<std::string, std::string>& env) {
  std::string text;
  for (const auto& [name, value] : env) {
    if (!IsVariable(name)) continue;
    text += fmt::format("export {}={}\n", name, ShellQuote(value));
  }
  return text;
}

// NAME=value lines, for sshd, which knows no quotes: what has several lines is
// in env.sh alone.
std::string EnvLines(const std::map<std::string, std::string>& env,
                     bool (*fits)(std::string_view value)) {
  std::string text;
  for (const auto& [name, value] : env) {
    if (IsVariable(name) && value.find('\n') == std::string::npos &&
        fits(value)) {
      text.append(name).append("=").append(value).append("\n");
    }
  }
  return text;
}

// PAM cuts at a number sign and at 1,024 bytes, takes quotes off and joins
// lines at a backslash: better no value there than another one.
bool FitsPam(std::string_view value) {
  return value.size() < 900 && value.find('#') == std::string_view::npos &&
         !value.starts_with('"') && !value.starts_with('\'') &&
         !value.ends_with('\\') && Trim(value) == value;
}

std::string LimaEnv(const BootInput& input) {
  std::map<std::string, std::string> env = {
      {"LIMA_CIDATA_NAME", input.name},
      {"LIMA_CIDATA_HOSTNAME", input.hostname},
      {"LIMA_CIDATA_IID", input.instance_id},
      {"LIMA_CIDATA_USER", input.user},
      {"LIMA_CIDATA_MNT", "/mnt/lima-cidata"},
      {"LIMA_CIDATA_VMTYPE", "qemu"},
      {"LIMA_CIDATA_PLAIN", input.spec.plain ? "1" : ""},
      {"LIMA_CIDATA_TIMEZONE", input.spec.timezone},
      {"LIMA_CIDATA_SLIRP_GATEWAY", kHost},
      {"LIMA_CIDATA_SLIRP_DNS", "192.168.5.3"},
      {"LIMA_CIDATA_SLIRP_IP_ADDRESS", kGuest}};
  for (const auto& [name, value] : input.spec.param) {
    env["PARAM_" + name] = value;
  }
  return EnvScript(env);
}

// A name's address, by way of other names.
std::string Follow(const std::map<std::string, std::string>& hosts,
                   std::string target) {
  for (size_t hops = 0; hops <= hosts.size(); ++hops) {
    if (IsAddress(target)) return target;
    const auto found = hosts.find(target);
    if (found == hosts.end()) break;
    target = found->second;
  }
  return target;
}

void AddHosts(const BootInput& input, BootFiles& files) {
  std::map<std::string, std::string> hosts = input.spec.hosts;
  hosts.emplace(kHostName, kHost);
  std::map<std::string, std::string> known = hosts;
  known.emplace(input.hostname, kGuest);
  std::string lines;
  std::string aliases;
  for (const auto& [name, target] : hosts) {
    // They become words of lines.
    if (!IsWord(name) || !IsWord(target)) continue;
    const std::string address = Follow(known, target);
    if (IsAddress(address)) {
      lines.append(address).append(" ").append(name).append("\n");
    } else {
      aliases.append(name).append(" ").append(address).append("\n");
    }
  }
  files.emplace_back("hosts", lines);
  files.emplace_back("aliases", aliases);
}

void AddDns(const std::vector<std::string>& servers, BootFiles& files) {
  if (servers.empty()) return;
  std::string line;
  std::string plain;
  for (const auto& server : servers) {
    line += (line.empty() ? "" : " ") + server;
    plain += "nameserver " + server + "\n";
  }
  // Before what the network's DHCP gives, for all names.
  files.emplace_back("resolved.conf",
                     "[Resolve]\nDNS=" + line + "\nDomains=~.\n");
  files.emplace_back("resolv.conf", plain);
}

// A certificate a file: that is what the tools in the guest want.
void AddCaCerts(const std::vector<std::string>& texts, BootFiles& files) {
  constexpr std::string_view kEnd = "-----END CERTIFICATE-----";
  int number = 0;
  for (const auto& text : texts) {
    size_t from = 0;
    while (true) {
      const auto begin = text.find("-----BEGIN CERTIFICATE-----", from);
      const auto end = text.find(kEnd, begin);
      if (begin == std::string::npos || end == std::string::npos) break;
      from = end + kEnd.size();
      files.emplace_back(fmt::format("ca-{}.crt", ++number),
                         text.substr(begin, from - begin) + "\n");
    }
  }
}

// The plan: two functions of boot.sh's words, and the steps' files.
class Planner {
 public:
  Planner(const Spec& spec, BootFiles& files) : spec_(spec), files_(files) {}

  void Write() {
    Disks();
    Settings();
    Scripts(Mode::kBoot);
    const std::string early = std::move(text_);
    text_.clear();
    if (!spec_.egress.empty()) text_ += "  AwaitProxy\n";
    if (spec_.upgrade_packages) {
      Step("package upgrade", "UpgradePackages");
    } else {
      text_ += "  rm -f $STATE/upgraded\n";
    }
    for (const Mode mode :
         {Mode::kDependency, Mode::kData, Mode::kSystem, Mode::kUser}) {
      Scripts(mode);
    }
    files_.emplace_back(
        "plan",
        fmt::format("STEPS={}\nEarlySteps() {{\n{}}}\nLateSteps() {{\n{}}}\n",
                    count_, early, text_));
  }

 private:
  std::string Next() { return fmt::format("{:03}", ++count_); }
  void Step(std::string_view what, std::string_view command) {
    text_ += fmt::format("  Step {} '{}' {}\n", Next(), what, command);
  }

  void Disks() {
    for (const DiskSpec& disk : spec_.additional_disks) {
      std::string words =
          fmt::format("{} {} {} {}", disk.name, DiskSerial(disk.name),
                      disk.format ? "yes" : "no",
                      ShellQuote(disk.fs_type.empty() ? "ext4" : disk.fs_type));
      for (const auto& arg : disk.fs_args) words += " " + ShellQuote(arg);
      Step("disk " + disk.name, "MountDisk " + words);
    }
  }

  void Settings() {
    if (!spec_.timezone.empty()) {
      Step("time zone", "Timezone " + ShellQuote(spec_.timezone));
    }
    // Without any, what an earlier boot installed has to go.
    const char* removal =
        spec_.remove_default_ca_certs ? "CaCerts yes" : "CaCerts no";
    if (spec_.remove_default_ca_certs || !spec_.ca_certs.empty()) {
      Step("CA certificates", removal);
    } else {
      text_ += fmt::format("  {} >/dev/null\n", removal);
    }
  }

  void Scripts(Mode mode) {
    for (size_t i = 0; i < spec_.provision.size(); ++i) {
      const ProvisionStep& step = spec_.provision[i];
      if (step.mode != mode) continue;
      const std::string sequence = Next();
      if (mode == Mode::kData) {
        text_ += fmt::format("  Data {} {} {} {} {} {}\n", sequence, i + 1,
                             ShellQuote(step.path), ShellQuote(step.owner),
                             ShellQuote(step.permissions),
                             step.overwrite ? "yes" : "no");
      } else {
        text_ +=
            fmt::format("  Script {} {} {}\n", sequence, ModeName(mode), i + 1);
      }
      files_.emplace_back("step-" + sequence,
                          mode == Mode::kData ? step.content : step.script);
    }
  }

  const Spec& spec_;
  BootFiles& files_;
  std::string text_;
  int count_ = 0;
};

// A proxy's address with loopback made the host's.
std::string ForGuest(const std::string& url) {
  size_t begin = url.find("://");
  begin = begin == std::string::npos ? 0 : begin + 3;
  const size_t end = std::min(url.find_first_of("/?#", begin), url.size());
  const size_t at = url.rfind('@', end);
  if (at != std::string::npos && at >= begin && at < end) begin = at + 1;
  size_t host_end =
      url[begin] == '[' ? url.find(']', begin) + 1 : url.find(':', begin);
  host_end = std::min(host_end, end);
  const std::string host = url.substr(begin, host_end - begin);
  if (host != "localhost" && host != "[::1]" &&
      !(host.starts_with("127.") && IsAddress(host))) {
    return url;
  }
  return url.substr(0, begin) + kHost + url.substr(host_end);
}

// The guest's words are not to be trusted.
std::optional<unsigned> ParseId(std::string_view text) {
  const auto id = ParseNumber(text);
  if (!id || *id > 2147483647) return std::nullopt;
  return static_cast<unsigned>(*id);
}

}  // namespace

const char kBootReportScript[] =
    "if [ ! -e /run/sbxfs.warm ] && { [ -e /run/cloud-init/result.json ] || "
    "! command -v cloud-init >/dev/null 2>&1; }; then echo cloud-init; fi; "
    "read -r id </proc/sys/kernel/random/boot_id; echo now \"$id\"; "
    "cat /var/lib/sbxfs/state 2>/dev/null; true";

const char kProvisionLogScript[] =
    "cat /var/lib/sbxfs/log/* 2>/dev/null | tail -c 262144";

std::string BootCommand() {
  return "d=/mnt/lima-cidata; mkdir -p $d; "
         "mountpoint -q $d || mount -o ro LABEL=cidata $d; "
         "sh $d/boot.sh early";
}

std::vector<std::pair<std::string, std::string>> BootDocuments(
    const BootInput& input) {
  BootFiles files = {
      {"boot.sh", kBootScript},
      {"lima.env", LimaEnv(input)},
      {"env.sh", EnvScript(input.env)},
      {"environment",
       EnvLines(input.env, [](std::string_view) { return true; })},
      {"etc_environment", EnvLines(input.env, FitsPam)},
      {"profile.sh", kProfile},
      {"sshd_config", "PermitUserEnvironment yes\n"}};
  // sudo gives apt nothing of the environment.
  std::string apt;
  for (const char* scheme : {"http", "https"}) {
    const auto proxy = input.env.find(fmt::format("{}_proxy", scheme));
    if (proxy == input.env.end() || !IsWord(proxy->second) ||
        proxy->second.find('"') != std::string::npos) {
      continue;
    }
    apt += fmt::format("Acquire::{}::Proxy \"{}\";\n", scheme, proxy->second);
  }
  if (!apt.empty()) files.emplace_back("apt.conf", std::move(apt));
  AddHosts(input, files);
  AddDns(input.spec.dns, files);
  AddCaCerts(input.spec.ca_certs, files);
  Planner(input.spec, files).Write();
  return files;
}

std::map<std::string, std::string> GuestEnv(
    const Spec& spec, const std::function<const char*(const char* name)>& get) {
  constexpr std::array<std::pair<const char*, const char*>, 4> kNames{
      {{"ftp_proxy", "FTP_PROXY"},
       {"http_proxy", "HTTP_PROXY"},
       {"https_proxy", "HTTPS_PROXY"},
       {"no_proxy", "NO_PROXY"}}};
  std::map<std::string, std::string> env;
  if (spec.propagate_proxy_env) {
    for (const auto& [lower, upper] : kNames) {
      for (const char* name : {lower, upper}) {
        if (const char* value = get(name); value != nullptr && *value != '\0') {
          env[name] = value;
        }
      }
    }
  }
  for (const auto& [name, value] : spec.env) env[name] = value;
  for (const auto& [lower, upper] : kNames) {
    const bool list = std::string_view(lower) == "no_proxy";
    for (const char* name : {lower, upper}) {
      const auto found = env.find(name);
      if (found != env.end() && !list) found->second = ForGuest(found->second);
    }
    // Programs disagree on the case; what config.yaml names counts.
    const bool by_lower = spec.env.count(lower) != 0 ||
                          (spec.env.count(upper) == 0 && env.count(lower) != 0);
    const char* from = by_lower ? lower : upper;
    if (env.count(from) != 0) env[by_lower ? upper : lower] = env[from];
  }
  if (!spec.egress.empty()) {
    // There is no other way out, whatever the host's own is.
    for (const auto& [lower, upper] : kNames) {
      if (spec.env.count(lower) != 0 || spec.env.count(upper) != 0) continue;
      const std::string value = std::string_view(lower) == "no_proxy"
                                    ? "localhost,127.0.0.1,::1"
                                    : fmt::format("http://{}", kEgressInGuest);
      env[lower] = env[upper] = value;
    }
  }
  return env;
}

BootReport ParseBootReport(std::string_view text) {
  BootReport report;
  std::string_view now;
  for (const std::string_view line : Split(text, '\n')) {
    const auto parts = Split(line, ' ');
    const std::string_view word = parts[0];
    if (word == "cloud-init") {
      report.cloud_init_done = true;
    } else if (word == "now" && parts.size() == 2) {
      now = parts[1];
    } else if (word == "boot" && parts.size() == 2) {
      report.present = parts[1] == now && !now.empty();
    }
    if (!report.present) continue;
    if (word == "steps" && parts.size() == 2) {
      report.steps = ParseNumber(parts[1]).value_or(0);
    } else if (word == "uid" && parts.size() == 2) {
      report.uid = ParseId(parts[1]);
    } else if (word == "run" && parts.size() >= 3 &&
               ParseNumber(parts[1]).has_value()) {
      report.begun.push_back({std::string(parts[1]),
                              OneLine(line.substr(parts[1].size() + 5)),
                              std::nullopt});
    } else if (word == "end" && parts.size() == 3 && !report.begun.empty() &&
               report.begun.back().sequence == parts[1]) {
      report.begun.back().status =
          static_cast<int>(ParseNumber(parts[2]).value_or(255));
    } else if (word == "all") {
      report.all = true;
    }
  }
  return report;
}

std::string LastWords(std::string_view log) {
  constexpr size_t kLines = 3;
  constexpr size_t kBytes = 300;
  std::vector<std::string> lines;
  for (const std::string_view part : Split(log, '\n')) {
    if (part.starts_with("== ")) continue;
    std::string line = OneLine(part);
    if (!line.empty()) lines.push_back(std::move(line));
  }
  std::string words;
  const size_t first = lines.size() > kLines ? lines.size() - kLines : 0;
  for (size_t i = first; i < lines.size(); ++i) {
    words += (words.empty() ? "" : " | ") + lines[i];
  }
  if (words.size() <= kBytes) return words;
  size_t cut = words.size() - kBytes;
  while (cut < words.size() && (words[cut] & 0xc0) == 0x80) ++cut;
  return "…" + words.substr(cut);
}

std::string OneLine(std::string_view text) {
  std::string line(text);
  size_t at = 0;
  for (size_t next; (next = FindNotPlain(std::string_view(line).substr(at))) !=
                    std::string_view::npos;) {
    at += next;
    line[at] = ' ';
  }
  std::replace_if(
      line.begin(), line.end(),
      [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return std::string(Trim(line));
}

std::string ProbeCommand(const std::string& script, const std::string& user) {
  std::string interpreter = "/bin/sh";
  if (script.starts_with("#!")) {
    const std::string first = script.substr(2, script.find('\n') - 2);
    if (!Trim(first).empty()) interpreter = Trim(first);
  }
  const std::string run = "exec " + interpreter;
  return fmt::format(
      "exec 2>&1; [ \"$(id -u)\" != 0 ] || exec runuser -l {} -c {}; {}",
      ShellQuote(user), ShellQuote(run), run);
}

}  // namespace sbxfs
