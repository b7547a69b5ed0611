#include "backend/idle.h"

#include <fmt/format.h>
#include <libvirt/libvirt-qemu.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>
#include <vector>

#include "backend/libvirt_error.h"
#include "backend/mount/server.h"
#include "backend/run_dir.h"
#include "backend/user_network.h"
#include "backend/util/log.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// Each look is two calls of libvirt's.
constexpr auto kSeldom = 60s;
constexpr auto kOften = 1s;
// Of a processor, in all the time that nobody used it: a Debian at rest takes 1
// to 3 %, emulated. Now and then it has something to do, for a moment.
constexpr double kBusy = 0.08;
constexpr double kWorks = 0.5;  // since the last look

bool IsWatched(const Sandbox* sandbox) {
  return sandbox != nullptr && sandbox->ours && !sandbox->trashed &&
         sandbox->idle > 0s;
}

// The connections to it that are of our making: one of each process that serves
// its mounts and sockets, and lives.
int OwnConnections(const std::string& uuid) {
  const std::filesystem::path dir = RunDirectory(uuid);
  int count = 0;
  for (const std::string& name : SlipsIn(dir, "")) {
    if (ReadSlip(dir / name)) ++count;
  }
  return count;
}

}  // namespace

void Idle::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  std::set<Forward> ports;
  const bool watched = IsWatched(sandbox.get()) && !core_.test_driver;
  if (watched && sandbox->state == State::kSaved && core_.ReachesGuests()) {
    const auto facts = core_.Facts(uuid);
    for (const Forward& forward :
         facts ? facts->forwards : std::vector<Forward>()) {
      if (!forward.udp) ports.insert(forward);
    }
  }
  ports_.Set(uuid, ports);
  {
    MutexLock lock(mutex_);
    if (!watched || sandbox->state != State::kRunning) {
      watched_.erase(uuid);
      return;
    }
    watched_.try_emplace(uuid, Watched{Clock::now(), {}, 0, 0});
  }
  Plan();
}

void Idle::Plan() {
  std::chrono::milliseconds pause = kSeldom;
  {
    MutexLock lock(mutex_);
    if (planned_ || watched_.empty()) return;
    planned_ = true;
    for (const auto& [uuid, watched] : watched_) {
      const SandboxPtr sandbox = core_.catalog.Get(uuid);
      if (!IsWatched(sandbox.get())) continue;
      pause = std::min<std::chrono::milliseconds>(pause, sandbox->idle / 8);
    }
  }
  core_.timer.After(std::max<std::chrono::milliseconds>(pause, kOften),
                    [this] { core_.workers.Run([this] { Round(); }); });
}

void Idle::Round() {
  std::vector<std::string> uuids;
  {
    MutexLock lock(mutex_);
    for (const auto& entry : watched_) uuids.push_back(entry.first);
  }
  for (const auto& uuid : uuids) {
    const SandboxPtr sandbox = core_.catalog.Get(uuid);
    if (!IsWatched(sandbox.get()) || sandbox->state != State::kRunning) {
      continue;
    }
    try {
      LookAt(*sandbox);
    } catch (const Error& error) {
      spdlog::debug("{}", error.Sentence());
    }
  }
  {
    MutexLock lock(mutex_);
    planned_ = false;
  }
  Plan();
}

void Idle::LookAt(const Sandbox& sandbox) {
  Watched watched;
  {
    MutexLock lock(mutex_);
    const auto found = watched_.find(sandbox.uuid);
    if (found == watched_.end()) return;
    watched = found->second;
  }
  const bool used = IsUsed(sandbox, watched);
  watched.looked = Clock::now();
  if (used) {
    watched.used = watched.looked;
    watched.worked_at_use = watched.worked;
  }
  const bool due = watched.looked - watched.used >= sandbox.idle;
  // One that cannot be saved is asked again after that time.
  if (due) {
    watched.used = watched.looked;
    watched.worked_at_use = watched.worked;
  }
  {
    MutexLock lock(mutex_);
    const auto found = watched_.find(sandbox.uuid);
    if (found == watched_.end()) return;
    found->second = watched;
  }
  if (due) Save(sandbox);
}

bool Idle::IsUsed(const Sandbox& sandbox, Watched& watched) {
  constexpr char kWhat[] = "Cannot see whether a sandbox is used";
  const DomainPtr domain = core_.Domain(sandbox.uuid, kWhat);
  virDomainInfo info;
  if (virDomainGetInfo(domain.get(), &info) < 0) ThrowLibvirt(kWhat);
  const uint64_t before = std::exchange(watched.worked, info.cpuTime);
  const double seconds =
      std::chrono::duration<double>(Clock::now() - watched.looked).count();
  // The first look has nothing to compare with.
  if (watched.looked == Clock::time_point() || !sandbox.progress.empty()) {
    return true;
  }
  const auto worked_since = [&](uint64_t then) {
    return static_cast<double>(info.cpuTime - then) / 1e9;
  };
  if (worked_since(before) > kWorks * seconds ||
      worked_since(watched.worked_at_use) >
          kBusy * std::chrono::duration<double>(sandbox.idle).count()) {
    return true;
  }
  for (const JobPtr& job : exec_.List(sandbox.uuid)) {
    if (job->state == JobState::kRunning) return true;
  }
  char* answer = nullptr;
  if (virDomainQemuMonitorCommand(domain.get(), "info usernet", &answer,
                                  VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP) < 0) {
    ThrowLibvirt(kWhat);
  }
  return CountConnections(TakeString(answer), kNetdev) >
         OwnConnections(sandbox.uuid);
}

void Idle::Save(const Sandbox& sandbox) {
  spdlog::info("Nobody has used '{}' for {}: it is saved", sandbox.name,
               FormatDuration(sandbox.idle));
  core_.catalog.Report(
      "idle",
      fmt::format("nobody has used it for {}", FormatDuration(sandbox.idle)),
      &sandbox);
  actions_.Act(sandbox.uuid, Verb::kSave, false,
               Reply<Done>([this, uuid = sandbox.uuid](Outcome<Done> outcome) {
                 const auto* error = std::get_if<Error>(&outcome);
                 if (error != nullptr) core_.catalog.ReportEnd(uuid, error);
               }));
}

}  // namespace sbxfs
