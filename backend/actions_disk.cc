// The actions that put a disk on another layer: the guest must be down for it.
#include <fmt/format.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include <future>
#include <optional>
#include <thread>

#include "backend/actions.h"
#include "backend/guest_freeze.h"
#include "backend/libvirt_error.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

constexpr std::chrono::milliseconds kQuits(500), kLook(5);

}  // namespace

void Actions::WithGuestDown(Action& action,
                            const std::function<void(bool quiesced)>& work,
                            const std::function<void(bool paused)>& resume) {
  const auto until =
      std::chrono::steady_clock::now() + core_.options.start_timeout;
  const SandboxPtr before = core_.Reachable(action.uuid, action.what);
  if (IsOff(before->state)) {
    const Turns::Turn turn = core_.Turn(action.uuid, action.what);
    work(false);
    return;
  }
  Doing(action, State::kStopping, "step 1 of 2: ending the guest");
  try {
    const Turns::Turn turn = core_.Turn(action.uuid, action.what);
    const DomainPtr domain = core_.Domain(action.uuid, action.what);
    // Killed and not shut down: what its memory holds beyond the disk is given
    // up in any case.
    std::optional<GuestFreeze> frozen;
    if (before->state != State::kPaused &&
        HasAgent(before->domain_xml.Text())) {
      frozen.emplace(domain.get());
    }
    EndQemu(action, domain.get());
    core_.Read(action.uuid);
    work(frozen && frozen->Holds());
  } catch (...) {
    const Error error = CurrentError();
    try {
      BringBack(action, *before, until);
    } catch (const Error& second) {
      spdlog::warn("{}", second.Sentence());
    }
    throw error;
  }
  BringBack(action, *before, until, resume);
}

// virDomainDestroy of a QEMU that lives looks for its end at once and again
// after 0.2 s (virProcessKillPainfully): most of what going back would take.
// One that is told `quit` has ended by then.
void Actions::EndQemu(Action& action, virDomainPtr domain) {
  const auto until = std::chrono::steady_clock::now() + kQuits;
  // A monitor that answers nobody holds this up until the destroy below.
  const std::shared_future<bool> quit =
      std::async(std::launch::async, [domain] {
        char* answer = nullptr;
        const int result = virDomainQemuMonitorCommand(
            domain, R"({"execute": "quit"})", &answer, 0);
        (void)TakeString(answer);
        // It may be gone before its answer was read.
        return result == 0 || !LastLibvirtErrorIs(VIR_ERR_NO_SUPPORT);
      });
  while (!core_.catalog.IsOff(action.uuid) &&
         std::chrono::steady_clock::now() < until) {
    if (quit.wait_for(kLook) == std::future_status::ready && !quit.get()) break;
    std::this_thread::sleep_for(kLook);
  }
  if (virDomainDestroy(domain) < 0 && virDomainIsActive(domain) == 1) {
    ThrowLibvirt(action.what);
  }
  // Waits for `quit`, which must not reach the guest that is started next.
}

void Actions::BringBack(Action& action, const Sandbox& before,
                        std::chrono::steady_clock::time_point until,
                        const std::function<void(bool paused)>& resume) {
  MustGoOn(action);
  if (!core_.catalog.IsOff(action.uuid)) return;
  if (resume) {
    resume(before.state == State::kPaused);
    return;
  }
  Boot(action);
  if (before.state == State::kPaused) {
    const DomainPtr domain = core_.Domain(action.uuid, action.what);
    if (virDomainSuspend(domain.get()) < 0) ThrowLibvirt(action.what);
    core_.ReadDone(action.uuid);
  } else if (before.ready) {
    WaitReady(action, until);
  }
}

void Actions::Revert(Action& action) {
  const std::string& uuid = action.uuid;
  std::string tag = action.argument;
  const bool forced = tag.ends_with('!');
  if (forced) tag.pop_back();
  const std::string what = fmt::format("{} to '{}'", action.what, tag);
  const SnapshotFacts target = snapshots_.Target(uuid, tag, what);
  std::function<void(bool)> resume;
  if (!IsOff(core_.Reachable(uuid, what)->state) &&
      snapshots_.HasMemory(target)) {
    resume = [&](bool paused) {
      Doing(action, State::kStarting, "going on from " + tag);
      const Turns::Turn turn = core_.Turn(uuid, what);
      snapshots_.Resume(uuid, target, paused, what);
    };
  }
  const auto go_back = [&](bool quiesced) {
    // Memory goes with its own disk alone.
    if (!forced && !resume && snapshots_.IsAt(uuid, target)) return;
    Doing(action, State::kStopping, "step 2 of 2: going back to " + tag);
    Undo undo;
    if (!forced) {
      undo.Add(
          [this, uuid, what, name = snapshots_.KeepUndo(uuid, quiesced, what)] {
            snapshots_.TakeBack(uuid, name, what);
          });
    }
    snapshots_.PutOn(uuid, target, what, resume != nullptr);
    undo.Keep();
    if (!forced) snapshots_.DropOldUndos(uuid, what);
  };
  WithGuestDown(action, go_back, resume);
}

void Actions::FactoryReset(Action& action) {
  const std::string& uuid = action.uuid;
  const std::string& what = action.what;
  core_.Read(uuid);
  const Metadata meta = core_.Meta(uuid, what);
  std::optional<Images::Base> base;
  if (meta.origin_layer.empty()) {
    const Spec spec = core_.SpecOf(meta);
    base = images_.Fetch(
        spec.images, core_.ArchOf(spec), meta.uid,
        [&](const std::string& words) {
          Doing(action, std::nullopt, "fetching the image: " + words);
        },
        [&] { return !action.overtaken && !stopping_; });
  }
  WithGuestDown(action, [&](bool quiesced) {
    Doing(action, State::kStopping, "step 2 of 2: making its disk anew");
    Undo undo;
    if (!meta.disk_volume.empty()) {
      undo.Add(
          [this, uuid, what, name = snapshots_.KeepUndo(uuid, quiesced, what)] {
            snapshots_.TakeBack(uuid, name, what);
          });
    }
    provision_.Reset(uuid, base ? &*base : nullptr, what);
    undo.Keep();
    snapshots_.MakeCurrent(uuid, "", what);
    core_.ReadDone(uuid);
    snapshots_.DropOldUndos(uuid, what);
  });
}

}  // namespace sbxfs
