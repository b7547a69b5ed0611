#include "backend/housekeeping.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <set>

#include "backend/chain_pull.h"
#include "backend/util/log.h"
#include "backend/util/process_mark.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// Made by who works in the background, with a mark of its process and a number
// of its own in there; its time is the hypervisor's.
constexpr char kLease[] = "lease.background";
std::string NewHolder() {
  static std::atomic<unsigned> last = 0;
  return ThisProcessMark() + fmt::format("{}\n", ++last);
}
// It is held for seconds: after this time its holder was killed.
constexpr auto kForgotten = 10min;
// One without a word: it was killed as it took it, or the pool was full.
constexpr auto kHalfWritten = 12s;
constexpr auto kLeaseTaken = 5s;
constexpr auto kFailed = 10min;
constexpr auto kStep = 4s;
constexpr int kLeaseTries = 3;

}  // namespace

Housekeeping::Housekeeping(Core& core, Documents& documents, Images& images,
                           Provision& provision)
    : core_(core),
      documents_(documents),
      images_(images),
      provision_(provision),
      holder_(NewHolder()) {}

void Housekeeping::Plan(Chore chore, std::chrono::milliseconds delay) {
  MutexLock lock(mutex_);
  if (chore == kPull) pull_planned_ = true;
  core_.timer.Cancel(due_[chore]);
  due_[chore] = core_.timer.After(delay, [this, chore] {
    core_.workers.Run([this, chore] { Do(chore); });
  });
}

void Housekeeping::Do(Chore chore) {
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    // Whoever looks from now on may be too late for this time.
    if (chore == kPull) pull_planned_ = false;
    ++doing_;
  }
  Next next;
  try {
    next = chore == kTrash ? EmptyTrash() : chore == kSweep ? Sweep() : Pull();
  } catch (const Error& error) {
    // A new connection plans all anew.
    if (error.Errno() != EHOSTDOWN) {
      spdlog::error("{}", error.Sentence());
      next = kFailed;
    }
  }
  {
    MutexLock lock(mutex_);
    --doing_;
    done_.NotifyAll();
    if (stopping_) return;
  }
  if (next) Plan(chore, *next);
}

bool Housekeeping::Stopping() {
  MutexLock lock(mutex_);
  return stopping_;
}

void Housekeeping::Stop() {
  const auto until = std::chrono::steady_clock::now() + kStep;
  MutexLock lock(mutex_);
  stopping_ = true;
  while (doing_ > 0 && done_.WaitUntil(mutex_, until)) {
  }
}

void Housekeeping::WriteLease() {
  try {
    core_.storage.WriteNew(kLease, holder_);
  } catch (const Error& error) {
    // A full pool needs its housekeeping most.
    if (error.Errno() != ENOSPC) throw;
    core_.storage.WriteNew(kLease, "");
  }
}

bool Housekeeping::TakeLease() {
  Storage& storage = core_.storage;
  for (int tries = 0; tries < kLeaseTries; ++tries) {
    try {
      WriteLease();
      return true;
    } catch (const Error& error) {
      if (error.Errno() != EEXIST) throw;
    }
    Time made;
    bool dead = false;
    std::chrono::seconds patience = kForgotten;
    try {
      made = storage.Get(kLease).modified;
      const std::string holder = storage.Read(kLease, 0, 0);
      // Our own could not be given back on a connection that was lost.
      dead = holder == holder_ ||
             IsMarkOfTheDead(holder.substr(0, holder.find('\n')));
      // It is made with its size, of zeros, and written after that.
      if (!holder.ends_with('\n')) patience = kHalfWritten;
    } catch (const Error& error) {
      if (error.Errno() != ENOENT) throw;
      // Its holder is done just now, or took it away without telling libvirt,
      // which has it in its list until it looks again.
      storage.Refresh();
      continue;
    }
    const auto now = std::chrono::steady_clock::now();
    if (!dead) {
      MutexLock lock(mutex_);
      if (!theirs_ || theirs_->first != made) theirs_.emplace(made, now);
      if (now - theirs_->second < patience) return false;
      theirs_.reset();
    }
    storage.Delete(kLease);
  }
  return false;
}

bool Housekeeping::WithLease(const std::function<void(Time)>& work) {
  {
    MutexLock lock(mutex_);
    if (holding_) return false;
    holding_ = true;
  }
  Undo release;
  release.Add([this] {
    MutexLock lock(mutex_);
    holding_ = false;
  });
  if (!TakeLease()) return false;
  release.Add([this] {
    try {
      core_.storage.Delete(kLease);
    } catch (const Error& error) {
      // We take it for ours the next time, others forget it by and by.
      if (error.Errno() != EHOSTDOWN) throw;
      spdlog::debug("{}", error.Sentence());
    }
  });
  work(core_.storage.Get(kLease).modified);
  return true;
}

Housekeeping::Next Housekeeping::EmptyTrash() {
  Next next;
  auto again = [&next](std::chrono::milliseconds wait) {
    next = std::min(next.value_or(wait), wait);
  };
  std::vector<std::string> due;
  for (const auto& sandbox : core_.catalog.List(true)) {
    const auto age = std::chrono::system_clock::now() - *sandbox->trashed;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        core_.options.trash - age);
    if (left.count() > 0) {
      // A second's slack: expiry is no alarm clock.
      again(std::min<std::chrono::milliseconds>(left + 1s, 1h));
    } else {
      due.push_back(sandbox->uuid);
    }
  }
  auto expire = [&](Time) {
    for (const auto& uuid : due) {
      if (Stopping()) return;
      try {
        provision_.Expire(uuid);
      } catch (const Error& error) {
        spdlog::error("{}", error.Sentence());
        again(kFailed);
      }
    }
  };
  if (due.empty()) return next;
  if (core_.test_driver) {
    expire({});
  } else if (!WithLease(expire)) {
    again(kLeaseTaken);
  }
  return next;
}

// Whether it may be a layer or seed that a sandbox made on its way to another.
bool Housekeeping::IsSpare(const std::string& volume, const std::string& uuid) {
  if (!IsLayerOf(volume, uuid) && !IsSeedOf(volume, uuid) &&
      !IsMemoryOf(volume, uuid) && !IsForkOf(volume, uuid) &&
      volume != ProbeOf(uuid)) {
    return false;
  }
  const auto facts = core_.Facts(uuid);
  if (!facts || facts->disk == volume || facts->seed == volume) return false;
  if (facts->metadata && facts->metadata->borrowed) return false;
  for (const auto& one : core_.SnapshotsOf(uuid)) {
    if (one.layer == volume || one.seed == volume ||
        LastPart(one.memory_file) == volume) {
      return false;
    }
  }
  return true;
}

std::vector<std::string> Housekeeping::WithoutDomain(
    const std::vector<std::string>& volumes) {
  const ConnPtr connection = core_.connection.Get("Cannot sweep the pool");
  std::set<std::string> known;
  for (const auto& domain : ListDomains(connection.get())) {
    known.insert(UuidOf(domain.get()));
  }
  const bool alone = Storage::SharedWith(core_.pool_uuid, volumes).empty();
  std::set<std::string> templates;
  for (const auto& volume : volumes) {
    if (IsWarmState(volume)) templates.merge(WarmVolumes(volume));
  }
  std::vector<std::string> without;
  for (const auto& volume : volumes) {
    const std::string uuid = UuidIn(volume);
    if (uuid.empty() || templates.contains(volume)) continue;
    if (known.contains(uuid) ? IsSpare(volume, uuid) : alone) {
      without.push_back(volume);
    }
  }
  return without;
}

// What a kill -9 in the middle of mkdir, rmdir, a document or an image left.
// A mkdir of another mount looks the same while it lasts: its volumes are
// young.
Housekeeping::Next Housekeeping::Sweep() {
  Storage& storage = core_.storage;
  auto old = [&](const std::vector<std::string>& names) {
    auto left = WithoutDomain(names);
    const auto halves = documents_.Leftovers(names);
    left.insert(left.end(), halves.begin(), halves.end());
    return left;
  };
  const auto names = storage.Names();
  const bool uploads =
      std::any_of(names.begin(), names.end(),
                  [](const std::string& name) { return Images::IsMark(name); });
  if (old(names).empty() && !uploads) return std::nullopt;
  Next next;
  auto remove = [&](const std::string& name) {
    try {
      storage.Delete(name);
    } catch (const Error& error) {
      if (error.Errno() == EHOSTDOWN) throw;
      // libvirt deletes nothing that somebody reads just now.
      spdlog::debug("{}", error.Sentence());
      next = 2000ms;
      return;
    }
    spdlog::info("Removed the abandoned volume '{}'", name);
    core_.catalog.Report("abandoned", name);
  };
  const bool done = WithLease([&](Time now) {
    // Somebody's own pull is news to libvirt's pool too.
    storage.Refresh();
    const auto fresh = storage.Names();
    const Uses uses(core_, "Cannot sweep the pool");
    const auto left = old(fresh);
    for (const auto& name : uses.Unneeded({left.begin(), left.end()})) {
      if (Stopping()) return;
      if (now - uses.Find(name)->modified >= core_.options.orphan_age) {
        remove(name);
      } else {
        next = next.value_or(std::max<std::chrono::milliseconds>(
            core_.options.orphan_age, 100ms));
      }
    }
    for (const auto& name : images_.Abandoned(fresh, now)) remove(name);
  });
  if (!done) return kLeaseTaken;
  if (uploads && !next) next = 1h;
  return next;
}

std::set<std::string> Housekeeping::FrozenLayers(const Sandbox& sandbox) {
  std::set<std::string> layers = VolumesIn(sandbox.domain_xml.Text());
  if (const auto facts = core_.Facts(sandbox.uuid)) layers.erase(facts->disk);
  std::erase_if(layers, [](const std::string& name) {
    return !IsLayerOf(name, UuidIn(name));
  });
  return layers;
}

std::set<std::string> Housekeeping::UnnamedLayers(const Sandbox& sandbox) {
  std::set<std::string> layers = FrozenLayers(sandbox);
  for (const auto& one : core_.SnapshotsOf(sandbox.uuid)) {
    layers.erase(one.layer);
  }
  return layers;
}

// That a snapshot goes is no event, so whoever has a chain is looked at again
// and again; most have none.
void Housekeeping::LookAtChain(const Sandbox& sandbox) {
  if (core_.test_driver || !sandbox.ours || IsOff(sandbox.state)) return;
  {
    MutexLock lock(mutex_);
    if (pull_planned_ || stopping_) return;
  }
  if (!FrozenLayers(sandbox).empty()) Plan(kPull, core_.options.pull_pause);
}

bool Housekeeping::MayBeShorter(const Sandbox& sandbox) {
  if (!sandbox.ours || sandbox.state != State::kRunning) return false;
  const std::set<std::string> layers = UnnamedLayers(sandbox);
  MutexLock lock(mutex_);
  if (layers.empty() || pulls_.contains(sandbox.uuid)) return false;
  const auto needed = needed_.find(sandbox.uuid);
  return needed == needed_.end() || needed->second != layers;
}

bool Housekeeping::FinishPulls() {
  constexpr char kWhat[] = "Cannot look after a pull";
  std::map<std::string, std::set<std::string>> pulls;
  {
    MutexLock lock(mutex_);
    pulls = pulls_;
  }
  bool left = false;
  for (const auto& [uuid, spare] : pulls) {
    const SandboxPtr sandbox = core_.catalog.Get(uuid);
    if (sandbox != nullptr && sandbox->state == State::kRunning) {
      try {
        if (IsPulling(core_.Domain(uuid, kWhat).get(), kWhat)) {
          left = true;
          continue;
        }
      } catch (const Error& error) {
        spdlog::debug("{}", error.Sentence());  // it stopped just now
      }
    }
    {
      MutexLock lock(mutex_);
      pulls_.erase(uuid);
    }
    // libvirt's pool goes on saying what the disk stood on before, until it is
    // looked at anew.
    core_.storage.Refresh();
    // Those that are stood on yet, since it was ended early, stay.
    layers_.DropSoon(uuid, spare);
    // What libvirt has in use for a moment yet.
    Plan(kSweep, 2s);
    core_.ReadSoon(uuid);
  }
  return left;
}

Housekeeping::Next Housekeeping::Pull() {
  constexpr char kWhat[] = "Cannot shorten a chain";
  const std::chrono::milliseconds often = 1s;
  const std::chrono::milliseconds seldom = core_.options.pull_pause;
  Next next;
  if (FinishPulls()) next = std::min(often, seldom);
  std::vector<SandboxPtr> long_ones;
  for (const auto& sandbox : core_.catalog.List(false)) {
    if (IsOff(sandbox->state)) continue;
    if (!next && !FrozenLayers(*sandbox).empty()) next = seldom;
    if (MayBeShorter(*sandbox)) long_ones.push_back(sandbox);
  }
  if (long_ones.empty()) return next;
  const bool done = WithLease([&](Time) {
    const auto cut_of = [this](const Uses& uses, const std::string& uuid) {
      const auto facts = core_.Facts(uuid);
      return facts ? CutOf(uses, facts->disk) : std::nullopt;
    };
    const Uses uses(core_, kWhat);
    for (const auto& sandbox : long_ones) {
      if (Stopping()) return;
      const std::string& uuid = sandbox->uuid;
      if (!cut_of(uses, uuid)) {
        auto layers = UnnamedLayers(*sandbox);
        MutexLock lock(mutex_);
        needed_[uuid] = std::move(layers);
        continue;
      }
      try {
        // A snapshot since that look would have the pull go beyond its layer.
        const Turns::Turn turn = core_.Turn(uuid, kWhat);
        core_.Read(uuid);
        const auto cut = cut_of(Uses(core_, kWhat), uuid);
        if (!cut) continue;
        BeginPull(core_.Domain(uuid, kWhat).get(),
                  cut->base.empty() ? "" : core_.storage.Path(cut->base),
                  kWhat);
        spdlog::info("Shortening the chain of '{}'", sandbox->name);
        MutexLock lock(mutex_);
        pulls_[uuid] = cut->spare;
        next = std::min(often, seldom);
      } catch (const Error& error) {
        if (error.Errno() == EHOSTDOWN) throw;
        spdlog::debug("{}", error.Sentence());
      }
    }
  });
  return done ? next : Next(kLeaseTaken);
}

}  // namespace sbxfs
