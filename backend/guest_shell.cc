#include "backend/guest_shell.h"

#include <fmt/format.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "backend/guest/boot.h"
#include "backend/guest/ssh_client.h"
#include "backend/libvirt_error.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr char kCannotRun[] = "Cannot run a command in the guest";
constexpr int kAgentSeconds = 5;

// The guest answers: whatever it says is checked, never trusted.
json Ask(virDomainPtr domain, const json& command) {
  std::string text;
  try {
    text = command.dump();
  } catch (const json::type_error&) {
    // Words of a user's may be any bytes, JSON's may not.
    throw Error(EILSEQ, fmt::format("{}: it is not UTF-8, and its agent takes "
                                    "nothing else",
                                    kCannotRun));
  }
  const std::string reply = TakeString(
      virDomainQemuAgentCommand(domain, text.c_str(), kAgentSeconds, 0));
  if (reply.empty()) ThrowLibvirt(kCannotRun);
  json parsed = json::parse(reply, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("return") ||
      !parsed["return"].is_object()) {
    throw Error(EPROTO,
                fmt::format("{}: its agent answers nonsense", kCannotRun));
  }
  return parsed["return"];
}

// Begins a shell; its number in the guest. Throws where no agent answers.
int64_t Begin(virDomainPtr domain, json arguments, const std::string& input) {
  arguments["path"] = "/bin/sh";
  arguments["capture-output"] = true;
  if (!input.empty()) arguments["input-data"] = Base64Encode(input);
  const json started =
      Ask(domain, {{"execute", "guest-exec"}, {"arguments", arguments}});
  const json pid = started.value("pid", json());
  if (!pid.is_number_integer()) {
    throw Error(EPROTO,
                fmt::format("{}: its agent answers nonsense", kCannotRun));
  }
  return pid.get<int64_t>();
}

int64_t Begin(virDomainPtr domain, const std::string& script,
              const std::string& input) {
  return Begin(domain, json{{"arg", {"-c", script}}}, input);
}

std::optional<ShellResult> Ended(virDomainPtr domain, int64_t pid) {
  const json status = Ask(domain, {{"execute", "guest-exec-status"},
                                   {"arguments", {{"pid", pid}}}});
  if (status.value("exited", json(false)) != json(true)) return std::nullopt;
  ShellResult result;
  const json code = status.value("exitcode", json(255));
  result.status = code.is_number_integer() ? code.get<int>() : 255;
  const json output = status.value("out-data", json(""));
  if (output.is_string()) {
    result.output = Base64Decode(output.get<std::string>()).value_or("");
  }
  return result;
}

ShellResult Finish(virDomainPtr domain, int64_t pid,
                   std::chrono::seconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (auto pause = 20ms;; pause = std::min(pause * 2, 320ms)) {
    std::this_thread::sleep_for(pause);
    if (auto result = Ended(domain, pid)) return *result;
    if (std::chrono::steady_clock::now() > deadline) {
      throw Error(ETIMEDOUT, fmt::format("{}: it did not end within {} s",
                                         kCannotRun, timeout.count()));
    }
  }
}

std::optional<SshTarget> WayBySsh(Core& core, const std::string& uuid) {
  const SandboxPtr sandbox = core.catalog.Get(uuid);
  if (!core.ReachesGuests() || sandbox == nullptr || sandbox->ssh_port == 0)
    return {};
  return SshTarget{sandbox->ssh_port, sandbox->user, sandbox->host_key,
                   core.identity};
}

ShellResult BySsh(const SshTarget& target, const std::string& script,
                  const std::string& input, std::chrono::seconds timeout) {
  // sshd gives it to the user's shell, which may be any.
  const SshResult result =
      SshRun(target, "/bin/sh -c " + ShellQuote(script), input, timeout);
  return {result.status, result.output};
}

}  // namespace

ShellResult RunInGuest(Core& core, const std::string& uuid,
                       const std::string& script, const std::string& input,
                       std::chrono::seconds timeout) {
  const DomainPtr domain = core.Domain(uuid, kCannotRun);
  int64_t pid = 0;
  try {
    pid = Begin(domain.get(), script, input);
  } catch (const Error&) {
    const auto target = WayBySsh(core, uuid);
    if (!target) throw;
    return BySsh(*target, script, input, timeout);
  }
  // Begun: another way would do it twice.
  return Finish(domain.get(), pid, timeout);
}

ShellResult RunInGuestPrivately(Core& core, const std::string& uuid,
                                const std::string& script,
                                const std::string& input,
                                std::chrono::seconds timeout) {
  if (const auto target = WayBySsh(core, uuid)) {
    return BySsh(*target, script, input, timeout);
  }
  return RunByAgent(core, uuid, script, input, timeout);
}

ShellResult RunByAgent(Core& core, const std::string& uuid,
                       const std::string& script, const std::string& input,
                       std::chrono::seconds timeout) {
  const DomainPtr domain = core.Domain(uuid, kCannotRun);
  return Finish(domain.get(), Begin(domain.get(), script, input), timeout);
}

int64_t BeginByAgent(Core& core, const std::string& uuid,
                     const std::string& script, const std::string& input) {
  const DomainPtr domain = core.Domain(uuid, kCannotRun);
  // Other users of the guest see a command line, but no environment.
  return Begin(domain.get(),
               json{{"arg", {"-c", "eval \"$SBXFS_JOB\""}},
                    {"env",
                     {"SBXFS_JOB=" + script,
                      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"
                      "/sbin:/bin"}}},
               input);
}

int64_t BeginPlainly(Core& core, const std::string& uuid,
                     const std::string& script, const std::string& input) {
  return Begin(core.Domain(uuid, kCannotRun).get(), script, input);
}

std::optional<ShellResult> EndedByAgent(Core& core, const std::string& uuid,
                                        int64_t pid) {
  return Ended(core.Domain(uuid, kCannotRun).get(), pid);
}

ShellResult RunBySshAsRoot(Core& core, const std::string& uuid,
                           const std::string& script, const std::string& input,
                           std::chrono::seconds timeout) {
  const auto target = WayBySsh(core, uuid);
  if (!target) {
    throw Error(EHOSTUNREACH, fmt::format("{}: no agent answers, and there is "
                                          "no way to it by ssh",
                                          kCannotRun));
  }
  const std::string command = fmt::format(
      "exec sudo -n env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c {}",
      ShellQuote(fmt::format("eval \"$(dd bs=1 count={} 2>/dev/null)\"",
                             script.size())));
  const SshResult result = SshRun(*target, "/bin/sh -c " + ShellQuote(command),
                                  script + input, timeout);
  return {result.status, result.output};
}

void Wipe(std::string& secret) {
  explicit_bzero(secret.data(), secret.size());
  secret.clear();
}

}  // namespace sbxfs
