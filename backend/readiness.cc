#include "backend/readiness.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/guest/ssh_client.h"
#include "backend/guest_shell.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// Done, or not there at all.
constexpr char kCloudInitDone[] =
    "[ -e /run/cloud-init/result.json ] || "
    "! command -v cloud-init >/dev/null 2>&1";

bool IsDue(const Core& core, const Sandbox* sandbox) {
  return sandbox != nullptr && sandbox->ours && !core.test_driver &&
         !sandbox->ready && sandbox->usage.started.has_value() &&
         sandbox->ssh_port != 0 &&
         (sandbox->state == State::kRunning ||
          sandbox->state == State::kStarting);
}

}  // namespace

void Readiness::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr || !sandbox->ours || core_.test_driver) return;
  if (sandbox->state == State::kRunning && !sandbox->usage.started) {
    // Seen running for the first time, by any mount.
    core_.workers.Run([this, uuid] {
      try {
        core_.NoteRun(uuid, {-1, std::chrono::system_clock::now()});
      } catch (const Error& error) {
        spdlog::debug("{}", error.Sentence());
      }
    });
    return;
  }
  if (!IsDue(core_, sandbox.get())) return;
  {
    MutexLock lock(mutex_);
    if (!checking_.emplace(uuid, Clock::now()).second) return;
  }
  core_.workers.Run([this, uuid] { Check(uuid); });
}

void Readiness::Check(const std::string& uuid) {
  Clock::time_point since;
  {
    MutexLock lock(mutex_);
    since = checking_[uuid];
  }
  const auto age = Clock::now() - since;
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (IsDue(core_, sandbox.get())) {
    try {
      CheckNow(*sandbox, age);
    } catch (const Error& error) {
      core_.catalog.Change(uuid, [&](Catalog::Overlay& overlay) {
        overlay.ready_for = error.Sentence();
      });
    }
  }
  const SandboxPtr now = core_.catalog.Get(uuid);
  if (!IsDue(core_, now.get())) {
    MutexLock lock(mutex_);
    checking_.erase(uuid);
    return;
  }
  // A guest that has no ssh at all must not keep the machine awake.
  const auto pause = age < 120s ? 300ms : age < 900s ? 2000ms : 15000ms;
  core_.timer.After(pause, [this, uuid] {
    core_.workers.Run([this, uuid] { Check(uuid); });
  });
}

void Readiness::CheckNow(const Sandbox& sandbox, Clock::duration age) {
  const std::string& uuid = sandbox.uuid;
  auto waiting = [&](std::string what) {
    core_.catalog.Change(uuid, [&](Catalog::Overlay& overlay) {
      overlay.ready_for = std::move(what);
    });
  };
  if (core_.local && !SshAnswers(sandbox.ssh_port, 1000ms)) {
    if (core_.kvm && age > 20s && IsSilent(uuid)) {
      waiting(
          "the guest's console, which is silent: KVM may not work on this "
          "machine; set cpuType, or take /dev/kvm away to use tcg");
    } else {
      waiting(fmt::format("ssh on port {}", sandbox.ssh_port));
    }
    return;
  }
  waiting("cloud-init");
  if (RunInGuest(core_, uuid, kCloudInitDone, "", 20s).status != 0) return;
  PushKeys(uuid);
  waiting("its mounts");
  try {
    provision_.mounts().Settle(uuid);
  } catch (const Error& error) {
    core_.catalog.ReportEnd(uuid, &error);
  }
  const auto now = std::chrono::system_clock::now();
  const Time started = sandbox.usage.started.value_or(now);
  const double seconds = std::chrono::duration<double>(now - started).count();
  core_.NoteRun(uuid, {std::max(seconds, 0.0), started});
  core_.Read(uuid);
}

void Readiness::PushKeysSoon(const std::string& uuid) {
  core_.workers.Run([this, uuid] {
    try {
      const SandboxPtr sandbox = core_.catalog.Get(uuid);
      if (sandbox != nullptr && sandbox->ready &&
          sandbox->state == State::kRunning && !core_.test_driver) {
        PushKeys(uuid);
      }
    } catch (const Error& error) {
      core_.catalog.ReportEnd(uuid, &error);
    }
  });
}

void Readiness::PushKeys(const std::string& uuid) {
  constexpr char kWhat[] = "Cannot give the guest its keys";
  const Metadata meta = core_.Meta(uuid, kWhat);
  const auto keys = provision_.Keys(meta);
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
