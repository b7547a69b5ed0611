#include "backend/readiness.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/facets.h"
#include "backend/guest/ssh_client.h"
#include "backend/guest_shell.h"
#include "backend/live_machine.h"
#include "backend/mounts.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr auto kProbeLimit = 60s;
// How often it is looked whether one that goes on is known to run.
constexpr auto kResumePause = 250ms;
constexpr int kResumeRounds = 40;

bool IsDue(const Core& core, const Sandbox* sandbox) {
  return sandbox != nullptr && sandbox->ours && !core.test_driver &&
         !sandbox->Booted() && sandbox->usage.started.has_value() &&
         sandbox->ssh_port != 0 &&
         // Who starts it sees to that first.
         !(sandbox->becoming && sandbox->state == State::kStarting) &&
         (sandbox->state == State::kRunning ||
          sandbox->state == State::kStarting);
}

std::string WaitedFor(const BootReport& report) {
  if (!report.present || report.begun.empty() ||
      report.begun.back().status.has_value()) {
    return "cloud-init";
  }
  return fmt::format("{} ({} of {} steps)", report.begun.back().what,
                     report.begun.size(), report.steps);
}

}  // namespace

void Readiness::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr || !sandbox->ours || core_.test_driver) return;
  if (sandbox->state == State::kRunning && !sandbox->usage.started) {
    // Seen running for the first time, by any mount.
    core_.workers.Run([this, uuid] {
      try {
        core_.ChangeRun(uuid, [](RunInfo& run) {
          if (run.started == Time()) {
            run.started = std::chrono::system_clock::now();
          }
        });
      } catch (const Error& error) {
        spdlog::debug("{}", error.Sentence());
      }
    });
    return;
  }
  if (!IsDue(core_, sandbox.get())) return;
  {
    MutexLock lock(mutex_);
    const auto [checked, fresh] = checking_.try_emplace(uuid);
    if (!fresh) return;
    checked->second.since = Clock::now();
  }
  core_.workers.Run([this, uuid] { Check(uuid); });
}

void Readiness::Rebooted(const std::string& uuid) {
  core_.workers.Run([this, uuid] {
    try {
      const SandboxPtr sandbox = core_.catalog.Get(uuid);
      if (sandbox == nullptr || !sandbox->ours || core_.test_driver) return;
      {
        MutexLock lock(mutex_);
        const auto checked = checking_.find(uuid);
        if (checked != checking_.end()) {
          checked->second = {};
          checked->second.since = Clock::now();
        }
      }
      core_.catalog.Change(uuid, [](Catalog::Overlay& overlay) {
        overlay.provision_log.reset();
      });
      core_.ChangeRun(uuid, [](RunInfo& run) {
        run = RunInfo();
        run.started = std::chrono::system_clock::now();
      });
    } catch (const Error& error) {
      spdlog::debug("{}", error.Sentence());
    }
    core_.ReadSoon(uuid);
  });
}

void Readiness::Check(const std::string& uuid) {
  Checked checked;
  {
    MutexLock lock(mutex_);
    checked = checking_[uuid];
  }
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (IsDue(core_, sandbox.get())) {
    try {
      CheckNow(*sandbox, checked);
    } catch (const Error& error) {
      WaitFor(uuid, error.Sentence());
    }
  }
  const SandboxPtr now = core_.catalog.Get(uuid);
  MutexLock lock(mutex_);
  if (!IsDue(core_, now.get())) {
    checking_.erase(uuid);
    return;
  }
  // The guest may have rebooted meanwhile: then it is looked at from the start.
  if (Checked& kept = checking_[uuid]; kept.since == checked.since) {
    kept = checked;
  } else {
    checked = kept;
  }
  // Each look takes time of a guest that boots, the more of it the slower it
  // is. A guest that has no ssh at all must not keep the machine awake, nor a
  // probe that fails the guest.
  const auto age = Clock::now() - checked.since;
  const auto quick = std::clamp(
      std::chrono::duration_cast<std::chrono::milliseconds>(age / 40),
      checked.probing ? 1000ms : 300ms, 2000ms);
  const auto pause = age < 900s ? quick : 15000ms;
  core_.timer.After(pause, [this, uuid] {
    core_.workers.Run([this, uuid] { Check(uuid); });
  });
}

void Readiness::WaitFor(const std::string& uuid, const std::string& what) {
  core_.catalog.Change(uuid, [&](Catalog::Overlay& overlay) {
    overlay.ready_for = what;
    constexpr std::string_view kLast = "step 4 of 4";
    if (overlay.progress.starts_with(kLast)) {
      const auto cold = overlay.progress.find(kColdSince);
      overlay.progress = fmt::format(
          "{}: waiting for {}{}", kLast, what,
          cold == std::string::npos ? "" : overlay.progress.substr(cold));
    }
  });
}

void Readiness::CheckNow(const Sandbox& sandbox, Checked& checked) {
  const std::string& uuid = sandbox.uuid;
  if (sandbox.becoming) {
    constexpr char kWhat[] = "Cannot make a guest of a template its own";
    const Turns::Turn turn = core_.Turn(uuid, kWhat);
    warm_.Become(uuid, kWhat);
    return;
  }
  if (!sandbox.settled && !HasSsh(sandbox, checked)) return;
  if (!std::exchange(checked.ssh, true)) provision_.tunnels().LookEarly(uuid);
  if (!checked.booted) checked.booted = HasBooted(sandbox);
  if (!checked.booted || !ProbesPass(sandbox, checked)) return;
  NoteReady(sandbox);
}

bool Readiness::HasSsh(const Sandbox& sandbox, const Checked& checked) {
  if (checked.ssh || !core_.ReachesGuests()) return true;
  const std::string& uuid = sandbox.uuid;
  const auto age = Clock::now() - checked.since;
  // QEMU brings each connection to a guest whose sshd comes up later, which
  // makes a process for it though we are gone: not too many of them.
  const auto patience =
      std::clamp(std::chrono::duration_cast<std::chrono::milliseconds>(age / 8),
                 1000ms, 4000ms);
  if (SshAnswers(sandbox.ssh_port, patience)) return true;
  if (core_.kvm && age > 20s && IsSilent(uuid)) {
    WaitFor(uuid,
            "the guest's console, which is silent: KVM may not work on this "
            "machine; set cpuType, or take /dev/kvm away to use tcg");
  } else {
    WaitFor(uuid, fmt::format("ssh on port {}", sandbox.ssh_port));
  }
  return false;
}

bool Readiness::HasBooted(const Sandbox& sandbox) {
  const std::string& uuid = sandbox.uuid;
  BootReport report;
  if (!sandbox.settled) {
    report = ParseBootReport(
        RunInGuest(core_, uuid, kBootReportScript, "", 20s).output);
    if (!report.cloud_init_done) {
      WaitFor(uuid, WaitedFor(report));
      return false;
    }
    NoteUid(uuid, report);
  }
  PushKeys(uuid);
  WaitFor(uuid, "its mounts");
  std::string mount_failed;
  try {
    provision_.mounts().Settle(uuid);
  } catch (const Error& error) {
    mount_failed = kMountFailed + OneLine(error.Sentence());
  }
  std::string failure;
  if (!sandbox.settled) {
    FetchLog(uuid);
    failure = FailureOf(uuid, report);
  }
  if (failure.empty()) failure = mount_failed;
  if (failure.empty()) return true;
  core_.ChangeRun(uuid, [&](RunInfo& run) { run.failed = failure; });
  core_.Read(uuid);
  return false;
}

// Only the guest knows whether its image had a user already.
void Readiness::NoteUid(const std::string& uuid, const BootReport& report) {
  constexpr char kWhat[] = "Cannot note the uid of the guest's user";
  if (!report.uid || core_.Meta(uuid, kWhat).guest_uid == report.uid) return;
  {
    const Turns::Turn turn = core_.Turn(uuid, kWhat);
    core_.ChangeMeta(uuid, kWhat,
                     [&](Metadata& meta) { meta.guest_uid = report.uid; });
  }
  core_.Read(uuid);
}

std::string Readiness::FailureOf(const std::string& uuid,
                                 const BootReport& report) {
  const Metadata meta = core_.Meta(uuid, "Cannot look at the guest");
  if (!report.all) {
    // A guest of the user's own making may do without.
    const bool none = core_.AppliedSpec(meta).provision.empty();
    if (!report.present && none) return "";
    return "its boot ended before all provision scripts had run; see "
           "console.log, and whether the guest has cloud-init, enabled";
  }
  const BootStep* first = nullptr;
  int others = -1;
  for (const BootStep& step : report.begun) {
    if (step.status == 0) continue;
    if (first == nullptr) first = &step;
    ++others;
  }
  if (first == nullptr) return "";
  const std::string words =
      LastWords(RunInGuest(core_, uuid,
                           "cat /var/lib/sbxfs/log/" + first->sequence, "", 20s)
                    .output);
  return fmt::format(
      "{} ended with status {}{}{}; see provision.log, mend config.yaml and "
      "write restart",
      first->what, first->status.value_or(255),
      words.empty() ? "" : fmt::format(", having said '{}'", words),
      others == 0 ? "" : fmt::format("; so did {} more", others));
}

bool Readiness::ProbesPass(const Sandbox& sandbox, Checked& checked) {
  const std::string& uuid = sandbox.uuid;
  const Metadata meta = core_.Meta(uuid, "Cannot probe the guest");
  const std::vector<Probe> probes =
      core_.Expanded(core_.AppliedSpec(meta), sandbox, meta.guest_uid).probes;
  checked.probing = true;
  while (checked.probes < probes.size()) {
    const Probe& probe = probes[checked.probes];
    const std::string name =
        fmt::format("probe {} of {}{}", checked.probes + 1, probes.size(),
                    probe.description.empty()
                        ? ""
                        : fmt::format(" ({})", OneLine(probe.description)));
    // What it said last time stays until it says something else.
    if (checked.probed != checked.probes) WaitFor(uuid, name);
    checked.probed = checked.probes;
    const ShellResult result =
        RunInGuest(core_, uuid, ProbeCommand(probe.script, meta.user),
                   probe.script, kProbeLimit);
    if (result.status != 0) {
      const std::string words = LastWords(result.output);
      WaitFor(uuid,
              fmt::format(
                  "{}, which ended with status {}{}{}", name, result.status,
                  words.empty() ? "" : fmt::format(", having said '{}'", words),
                  probe.hint.empty() ? "" : "; " + OneLine(probe.hint)));
      return false;
    }
    ++checked.probes;
  }
  return true;
}

void Readiness::NoteReady(const Sandbox& sandbox) {
  const std::string& uuid = sandbox.uuid;
  constexpr char kWhat[] = "Cannot note that the guest is ready";
  const bool first = !core_.Meta(uuid, kWhat).seeded;
  if (first) {
    const Turns::Turn turn = core_.Turn(uuid, kWhat);
    core_.ChangeMeta(uuid, kWhat, [](Metadata& meta) { meta.seeded = true; });
  }
  const auto now = std::chrono::system_clock::now();
  const Time started = sandbox.usage.started.value_or(now);
  const double seconds = std::chrono::duration<double>(now - started).count();
  core_.ChangeRun(uuid, [&](RunInfo& run) {
    run.started = started;
    run.ready_seconds = std::max(seconds, 0.0);
  });
  core_.Read(uuid);
  if (first) DropSeedKeySoon(uuid);
  // Its agent may take longer than who reads `ip` waits.
  core_.workers.Run([this, uuid] {
    try {
      RefreshFacet(core_, uuid, Facet::kAddresses);
    } catch (const Error&) {  // it is looked for again when it is read
    }
  });
  // What was changed while it booted.
  ChangeMachine(core_, uuid);
}

// Nobody has to wait for that; where it fails the next start does it.
void Readiness::DropSeedKeySoon(const std::string& uuid) {
  core_.workers.Run([this, uuid] {
    constexpr char kWhat[] = "Cannot make the seed without the host key";
    try {
      const Turns::Turn turn = core_.Turn(uuid, kWhat);
      provision_.DropSeedKey(uuid, kWhat);
    } catch (const Error& error) {
      spdlog::debug("{}", error.Sentence());
    }
  });
}

void Readiness::FetchLog(const std::string& uuid) {
  const ShellResult result =
      RunInGuest(core_, uuid, kProvisionLogScript, "", 20s);
  const auto text = std::make_shared<const std::string>(result.output);
  core_.catalog.Change(
      uuid, [&](Catalog::Overlay& overlay) { overlay.provision_log = text; });
}

void Readiness::Resumed(const std::string& uuid, int round) {
  if (core_.test_driver) return;
  core_.workers.Run([this, uuid, round] {
    const SandboxPtr sandbox = core_.catalog.Get(uuid);
    if (sandbox == nullptr || !sandbox->ours || IsOff(sandbox->state)) return;
    try {
      if (sandbox->ready && sandbox->state == State::kRunning) {
        PushKeys(uuid);
        return;
      }
    } catch (const Error& error) {
      // Its agent answers a moment later than it runs.
      spdlog::debug("{}", error.Sentence());
      if (round == kResumeRounds) core_.catalog.ReportEnd(uuid, &error);
    }
    if (round == kResumeRounds) return;
    core_.timer.After(kResumePause,
                      [this, uuid, round] { Resumed(uuid, round + 1); });
  });
}

void Readiness::PushKeysNow(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox != nullptr && sandbox->ours && sandbox->ready &&
      sandbox->state == State::kRunning && !core_.test_driver) {
    PushKeys(uuid);
  }
}

void Readiness::PushKeysSoon(const std::string& uuid) {
  core_.workers.Run([this, uuid] {
    try {
      PushKeysNow(uuid);
    } catch (const Error& error) {
      core_.catalog.ReportEnd(uuid, &error);
    }
  });
}

void Readiness::PushKeys(const std::string& uuid) {
  constexpr char kWhat[] = "Cannot give the guest its keys";
  const Metadata meta = core_.Meta(uuid, kWhat);
  const auto keys = provision_.Keys(meta, uuid);
  const std::string digest = Provision::KeysDigest(keys);
  if (meta.guest_keys == digest) return;
  std::string text;
  for (const auto& key : keys) text += key + "\n";
  const std::string script = fmt::format(
      "set -e; home=$(getent passwd '{0}' | cut -d: -f6); umask 077; "
      "mkdir -p \"$home/.ssh\"; cat > \"$home/.ssh/authorized_keys.new\"; "
      "mv \"$home/.ssh/authorized_keys.new\" \"$home/.ssh/authorized_keys\"; "
      "if [ \"$(id -u)\" = 0 ]; then chown -R '{0}:' \"$home/.ssh\"; fi",
      meta.user);
  const ShellResult result = RunInGuest(core_, uuid, script, text, 30s);
  if (result.status != 0) {
    throw Error(EIO, fmt::format("{}: the guest's shell ended with status {}",
                                 kWhat, result.status));
  }
  const Turns::Turn turn = core_.Turn(uuid, kWhat);
  core_.ChangeMeta(uuid, kWhat,
                   [&](Metadata& changed) { changed.guest_keys = digest; });
  core_.ReadSoon(uuid);
}

bool Readiness::IsSilent(const std::string& uuid) {
  const Metadata meta = core_.Meta(uuid, "Cannot look at the console");
  return !meta.console_volume.empty() &&
         core_.storage.Read(meta.console_volume, 0, 1).empty();
}

}  // namespace sbxfs
