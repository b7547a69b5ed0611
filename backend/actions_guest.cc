#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <cerrno>
#include <utility>

#include "backend/actions.h"
#include "backend/libvirt_error.h"
#include "backend/limits.h"
#include "backend/util/log.h"

// The verbs that a guest boots and ends by.

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// What QEMU quotes: "Could not set up host forwarding rule 'tcp:…'".
std::string RefusedRule(const std::string& sentence) {
  const auto begin = sentence.find('\'', sentence.find("forwarding rule"));
  const auto end = sentence.find('\'', begin + 1);
  if (begin == std::string::npos || end == std::string::npos) return sentence;
  return sentence.substr(begin + 1, end - begin - 1);
}

constexpr auto kAnotherWakes = 30s;
constexpr auto kAnotherPause = 50ms;

// Whether QEMU did not end by itself, which has more to say.
bool WasEnded(const std::string& sentence) {
  return sentence.ends_with("process exited while connecting to monitor") ||
         sentence.find("terminating on signal") != std::string::npos;
}

Error EndedByOthers(const std::string& what) {
  return Error(ECANCELED,
               fmt::format("{}: its QEMU was ended by somebody else while it "
                           "began; write start again",
                           what));
}

// The same, where it is not the domain's own fault, with what to do.
Error ExplainedStart(const Error& error, const std::string& what) {
  const std::string& sentence = error.Sentence();
  if (sentence.find("host forwarding rule") != std::string::npos) {
    return Error(EADDRINUSE,
                 fmt::format("{}: a port of its is taken on the hypervisor "
                             "({}); write another to ssh_port or ports/",
                             what, RefusedRule(sentence)));
  }
  if (sentence.find("\"write\" lock") != std::string::npos) {
    return Error(EBUSY, fmt::format("{}: another guest runs with a disk of "
                                    "its; stop that first",
                                    what));
  }
  if (WasEnded(sentence)) return EndedByOthers(what);
  return error;
}

}  // namespace

void Actions::Start(Action& action) {
  const auto until = Clock::now() + core_.options.start_timeout;
  const SandboxPtr sandbox = core_.Reachable(action.uuid, action.what);
  switch (sandbox->state) {
    case State::kPaused: {
      const DomainPtr domain = core_.Domain(action.uuid, action.what);
      if (virDomainResume(domain.get()) < 0) ThrowLibvirt(action.what);
      core_.ReadDone(action.uuid);
      break;
    }
    case State::kRunning:
      break;
    default:
      Boot(action);
  }
  WaitReady(action, until);
  if (action.leaves_template) warm_.MakeSoon(action.uuid);
}

void Actions::Boot(Action& action) {
  const std::string& uuid = action.uuid;
  const std::string& what = action.what;
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  const bool saved = sandbox->state == State::kSaved;
  if (sandbox->ours && !saved) {
    Doing(action, State::kStarting, "step 1 of 4: looking at the definition");
    {
      const Turns::Turn turn = core_.Turn(uuid, what);
      core_.Read(uuid);
      provision_.Apply(uuid, what);
    }
    const Metadata meta = core_.Meta(uuid, what);
    if (meta.disk_volume.empty() && !core_.test_driver) {
      const Spec spec = core_.SpecOf(meta);
      Doing(action, State::kStarting, "step 2 of 4: fetching the image");
      const auto base = images_.Fetch(
          spec.images, core_.ArchOf(spec), meta.uid,
          [&](const std::string& words) {
            Doing(action, State::kStarting, "step 2 of 4: " + words);
          },
          [&] { return !action.overtaken && !stopping_; });
      const Turns::Turn turn = core_.Turn(uuid, what);
      provision_.GiveDisk(uuid, base, what);
    }
  }
  MustGoOn(action);
  const std::string accelerator = core_.catalog.GetHost()->accelerator;
  Doing(action, State::kStarting,
        saved
            ? "step 3 of 4: restoring its memory"
            : fmt::format("step 3 of 4: starting the guest ({})", accelerator));
  const Turns::Turn turn = core_.Turn(uuid, what);
  const auto way = wake_ports_.GiveWay(uuid);
  std::vector<Turns::Turn> held;
  std::string cold;
  if (sandbox->ours) {
    held = provision_.disks().Hold(uuid, what);
    // Others may start in them while this one goes on from a template.
    (void)provision_.networks().Hold(uuid, what);
    if (!saved) snapshots_.CheckStart(uuid, what);
    const Metadata meta = core_.Meta(uuid, what);
    const Spec spec = core_.SpecOf(meta);
    const auto forwards = ForwardsOf(spec, meta.ssh_port);
    provision_.ports().CheckAddresses(spec, what);
    CheckMemory(core_, *sandbox, 0, spec.memory, what);
    try {
      provision_.ports().CheckStart(uuid, forwards, what);
    } catch (const Error& error) {
      if (!saved || sandbox->idle == 0s || !AnotherWakes(action, forwards)) {
        throw;
      }
      return;
    }
    provision_.mounts().CheckStart(uuid, what);
    // It may have been saved with others.
    if (saved) provision_.ports().Change(uuid, forwards, what);
    if (!saved && StartWarm(action, cold)) return;
    for (auto& turn : provision_.networks().Hold(uuid, what)) {
      held.push_back(std::move(turn));
    }
    if (!cold.empty()) {
      action.cold = kColdSince + cold;
      Doing(action, State::kStarting,
            fmt::format("step 3 of 4: starting the guest ({}){}", accelerator,
                        action.cold));
    }
    warm_.Unfork(uuid, what);
    core_.ChangeMeta(uuid, what, [](Metadata& changed) {
      changed.booted = true;
      changed.used = std::chrono::system_clock::now();
    });
  }
  const DomainPtr domain = core_.Domain(uuid, what);
  if (virDomainCreate(domain.get()) < 0) {
    const Error error = LibvirtError(what);
    core_.ReadSoon(uuid);
    throw ExplainedStart(error, what);
  }
  if (action.overtaken) {
    // kill came while libvirt was starting it.
    virDomainDestroy(domain.get());
  }
  core_.ReadDone(uuid);
}

// Another mount of this libvirt has the ports of a saved sandbox open, and
// starts it for who connects.
bool Actions::AnotherWakes(Action& action,
                           const std::vector<Forward>& forwards) {
  const auto until = Clock::now() + kAnotherWakes;
  const auto open = std::find_if(
      forwards.begin(), forwards.end(), [](const Forward& forward) {
        return !forward.udp && ConnectTo(forward).Valid();
      });
  if (open == forwards.end()) return false;
  const DomainPtr domain = core_.Domain(action.uuid, action.what);
  while (virDomainIsActive(domain.get()) != 1) {
    MustGoOn(action);
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(kAnotherPause);
  }
  core_.Read(action.uuid);
  return true;
}

bool Actions::StartWarm(Action& action, std::string& why) {
  const std::string& uuid = action.uuid;
  const std::string& what = action.what;
  if (core_.test_driver || core_.options.no_warm) return false;
  const Metadata meta = core_.Meta(uuid, what);
  if (meta.booted || meta.disk_volume.empty()) return false;
  if (!meta.origin_memory.empty()) {
    Doing(action, State::kStarting, "step 3 of 4: splitting its memory");
  }
  const Warm::Fit fit = warm_.Look(uuid);
  why = fit.why;
  action.leaves_template = fit.wanted;
  if (fit.found == nullptr) return false;
  Doing(action, State::kStarting,
        fmt::format("step 3 of 4: going on from {}",
                    meta.origin_memory.empty() ? "a template" : "its memory"));
  Error failure(0, "");
  bool begun = false;
  try {
    warm_.Start(uuid, *fit.found, what);
    begun = true;
    MustGoOn(action);
    warm_.Become(uuid, what);
    return true;
  } catch (...) {
    const Error error = CurrentError();
    if (error.Errno() == EHOSTDOWN) throw;
    MustGoOn(action);
    failure = ExplainedStart(error, what);
  }
  const DomainPtr domain = core_.Domain(uuid, what);
  int state = 0;
  int reason = 0;
  if (virDomainGetState(domain.get(), &state, &reason, 0) < 0) {
    ThrowLibvirt(what);
  }
  // Of one that did not begin it is of the time before.
  if ((begun || failure.Errno() == ECANCELED) && state == VIR_DOMAIN_SHUTOFF &&
      reason == VIR_DOMAIN_SHUTOFF_DESTROYED) {
    core_.Read(uuid);
    throw EndedByOthers(what);
  }
  if (virDomainIsActive(domain.get()) == 1 &&
      virDomainDestroy(domain.get()) < 0) {
    ThrowLibvirt(what);
  }
  core_.Read(uuid);
  const bool fork = !meta.origin_memory.empty();
  if (fork) {
    provision_.Reset(uuid, nullptr, what);
  } else {
    const auto base = images_.Find({ImageSource{meta.image, "", ""}},
                                   core_.ArchOf(core_.SpecOf(meta)));
    if (!base) throw failure;
    provision_.Reset(uuid, &*base, what);
  }
  if (failure.Errno() == EADDRINUSE) throw failure;
  why = fmt::format("its {} failed: {}", fork ? "memory" : "template",
                    failure.Sentence());
  action.leaves_template = !fork && warm_.Fail(*fit.found, failure, why);
  return false;
}

void Actions::WaitReady(Action& action, Clock::time_point until) {
  action.waiting = true;
  const SandboxPtr sandbox = core_.Reachable(action.uuid, action.what);
  if (!sandbox->ours) return;
  Doing(action, std::nullopt,
        "step 4 of 4: waiting for the guest" + action.cold);
  if (!sandbox->failed.empty()) {
    // Asked again: it may have been mended in the guest.
    core_.ChangeRun(action.uuid, [](RunInfo& run) { run.failed.clear(); });
    core_.Read(action.uuid);
  }
  // While it was `starting` nobody looked for its readiness.
  core_.ReadSoon(action.uuid);
  AwaitReady(action, until);
  const SandboxPtr now = core_.catalog.Get(action.uuid);
  if (now != nullptr && now->ready) return;
  if (now != nullptr && !now->failed.empty()) {
    throw Error(EIO,
                fmt::format("{}: it runs, but {}", action.what, now->failed));
  }
  if (now != nullptr &&
      (now->state == State::kPaused || now->state == State::kSaved)) {
    throw Error(ECANCELED,
                fmt::format("{}: it was {} meanwhile by somebody else; write "
                            "start again",
                            action.what, StateName(now->state)));
  }
  throw Error(EIO,
              fmt::format("{}: the guest ended while it was booting ({}); "
                          "see console.log",
                          action.what, now == nullptr ? "gone" : now->reason));
}

void Actions::AwaitReady(Action& action, Clock::time_point until) {
  try {
    Await(
        action,
        [](const Sandbox* now) {
          return now == nullptr || now->Booted() ||
                 (now->state != State::kRunning &&
                  now->state != State::kStarting);
        },
        until, "");
  } catch (const Error& error) {
    if (error.Errno() != ETIMEDOUT) throw;
    const SandboxPtr now = core_.catalog.Get(action.uuid);
    throw Error(
        ETIMEDOUT,
        fmt::format("{}: it runs, but could not be used within {} s, "
                    "waiting for {}; see its console.log, or write "
                    "kill",
                    action.what, core_.options.start_timeout.count(),
                    now == nullptr || now->ready_for.empty() ? "the guest"
                                                             : now->ready_for));
  }
}

// On a worker of its own: libvirt waits a minute for an agent that is silent
// (VIR_DOMAIN_QEMU_AGENT_COMMAND_SHUTDOWN), longer than a stop may take.
void Actions::AskToShutDown(const std::string& uuid, const std::string& what,
                            bool agent) {
  const unsigned way = agent ? VIR_DOMAIN_SHUTDOWN_GUEST_AGENT
                             : VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN;
  try {
    const DomainPtr domain = core_.Domain(uuid, what);
    if (virDomainShutdownFlags(domain.get(), core_.test_driver ? 0 : way) < 0) {
      ThrowLibvirt(what);
    }
  } catch (const Error& error) {
    spdlog::debug("{}", error.Sentence());
    core_.ReadSoon(uuid);
  }
}

void Actions::StopGuest(Action& action) {
  const std::string& uuid = action.uuid;
  const auto until = Clock::now() + core_.options.stop_timeout;
  if (core_.Reachable(uuid, action.what)->state == State::kPaused) {
    const DomainPtr domain = core_.Domain(uuid, action.what);
    if (virDomainResume(domain.get()) < 0) {
      const Error error = LibvirtError(action.what);
      if (!EndedMeanwhile(uuid, error)) throw error;
    }
  }
  Doing(action, State::kStopping, "waiting for the guest to shut down");
  // libvirt's view, not the one with this action's own word on top.
  auto gone = [this, &uuid](const Sandbox* now) {
    return now == nullptr || core_.catalog.IsOff(uuid);
  };
  // A guest in its early boot ignores the button, so press it again; the
  // agent, where there is one, is asked later.
  const auto asking = std::make_shared<std::atomic<bool>>(false);
  for (int round = 0;; ++round) {
    if (!asking->exchange(true)) {
      const bool agent = round % 2 == 1;
      core_.workers.Run([this, asking, agent, uuid, what = action.what] {
        AskToShutDown(uuid, what, agent);
        *asking = false;
      });
    }
    const auto next = std::min(until, Clock::now() + 5s);
    try {
      Await(action, gone, next,
            fmt::format("the guest did not shut down within {} s; write kill "
                        "to end it at once",
                        core_.options.stop_timeout.count()));
      break;
    } catch (const Error& error) {
      if (error.Errno() != ETIMEDOUT || Clock::now() >= until) throw;
    }
  }
  if (core_.catalog.Get(uuid) == nullptr) return;
  const SandboxPtr now = core_.catalog.Get(uuid);
  if (!now->ours) return;
  const Turns::Turn turn = core_.Turn(uuid, action.what);
  core_.ChangeMeta(uuid, action.what, [](Metadata& meta) {
    meta.used = std::chrono::system_clock::now();
  });
  core_.ReadDone(uuid);
}

void Actions::Kill(Action& action) {
  const std::string& uuid = action.uuid;
  Doing(action, State::kStopping, "killing it");
  for (int round = 0; round < 2; ++round) {
    const DomainPtr domain = core_.Domain(uuid, action.what);
    if (virDomainIsActive(domain.get()) == 1) {
      if (virDomainDestroy(domain.get()) < 0 &&
          !LastLibvirtErrorIs(VIR_ERR_OPERATION_INVALID)) {
        ThrowLibvirt(action.what);
      }
    } else if (virDomainHasManagedSaveImage(domain.get(), 0) == 1) {
      if (virDomainManagedSaveRemove(domain.get(), 0) < 0) {
        ThrowLibvirt(action.what);
      }
      // libvirt has no event for that.
      core_.ReadSoon(uuid);
    }
    if (action.before == nullptr || action.before->ended) break;
    // What was overtaken may be in the middle of virDomainCreate: look again
    // when it has ended.
    core_.catalog.WaitUntil(
        uuid, [&](const Sandbox*) { return action.before->ended.load(); },
        Clock::now() + 10s, stopping_);
  }
  core_.ReadDone(uuid);
}

}  // namespace sbxfs
