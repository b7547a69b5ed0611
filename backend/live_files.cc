#include "backend/live_files.h"

#include <fmt/format.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "backend/disk_files.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// For one answer of a guest's, with what is before it in the line.
constexpr auto kAnswersWithin = 30s;
constexpr auto kKept = 60s;
constexpr auto kTick = 1s;
// A guest under emulation takes a second or two to let somebody in.
constexpr auto kLoginWithin = 20s;
constexpr auto kEarlyLoginWithin = 5s;

Error TakesTooLong(const std::string& name) {
  return {ETIMEDOUT,
          fmt::format("Cannot reach the files of '{}': it did not answer "
                      "within {} s; try again, and see console.log",
                      name, kAnswersWithin.count())};
}

// As far as is known: while the hypervisor is away, it may.
bool HasNoGuest(State state) {
  return IsOff(state) || state == State::kSaved ||
         state == State::kProvisioning || state == State::kDestroying;
}

void FailAsEnding(const GuestFiles::Job& job) {
  job.fail(Error(EHOSTDOWN, "Cannot go on: the mount ends"));
}

}  // namespace

std::shared_ptr<SftpFiles> LiveFiles::Running(const Sandbox& sandbox) {
  const std::string what =
      fmt::format("Cannot reach the files of '{}'", sandbox.name);
  if (!core_.ReachesGuests() || sandbox.ssh_port == 0) {
    throw Error(EHOSTUNREACH,
                fmt::format("{}: there is no way to it by ssh; see ssh_port, "
                            "and .host/uri.explain",
                            what));
  }
  // The connection is made by whoever asks first.
  const bool booted = sandbox.Booted();
  const auto limit =
      std::chrono::milliseconds(booted ? kLoginWithin : kEarlyLoginWithin);
  return std::make_shared<SftpFiles>(
      [what, limit, booted,
       target = SshTarget{sandbox.ssh_port, sandbox.user, sandbox.host_key,
                          core_.identity}](const std::atomic<bool>& given_up) {
        try {
          return std::make_unique<SftpClient>(target, limit, given_up);
        } catch (const Error& error) {
          if (booted) throw error.As(what);
          throw Error(EHOSTUNREACH,
                      fmt::format("{}: it has not booted yet; wait until "
                                  "`ready` says yes",
                                  what));
        }
      });
}

std::shared_ptr<FileTree> LiveFiles::Choose(const FilesOf& whose,
                                            const Sandbox& sandbox) {
  if (whose.tag.empty() && IsOn(sandbox.state)) return Running(sandbox);
  return OpenDiskFiles(core_, whose.uuid, whose.tag);
}

std::shared_ptr<FileTree> LiveFiles::TreeOf(const FilesOf& whose) {
  const SandboxPtr known = core_.catalog.Get(whose.uuid);
  // One that is paused for a moment, for a snapshot, is waited for.
  if (whose.tag.empty() && known && known->state == State::kPaused &&
      known->progress.empty()) {
    throw Error(EHOSTDOWN, fmt::format("Cannot reach the files of '{}': it is "
                                       "paused; echo resume > status",
                                       known->name));
  }
  if (known && HasNoGuest(known->state)) Look(whose.uuid);
  std::shared_ptr<FileTree> had;
  {
    MutexLock lock(mutex_);
    had = places_[whose].tree;
  }
  if (had && had->IsCurrent()) return had;
  const SandboxPtr sandbox = core_.Reachable(whose.uuid, "Cannot go on");
  const auto made = Choose(whose, *sandbox);
  MutexLock lock(mutex_);
  Place& place = places_[whose];
  place.tree = made;
  place.sftp = std::dynamic_pointer_cast<SftpFiles>(made);
  return made;
}

void LiveFiles::Run(const FilesOf& whose, Job job) {
  bool first = false;
  {
    MutexLock lock(mutex_);
    if (!stopped_) {
      Place& place = places_[whose];
      first = place.waiting.empty() && !place.running;
      place.waiting.push_back(
          std::make_shared<Asked>(Asked{std::move(job), Clock::now()}));
      job = {};
    }
  }
  if (job.fail) {
    FailAsEnding(job);
    return;
  }
  Tick();
  if (first) core_.workers.Run([this, whose] { Work(whose); });
}

void LiveFiles::Work(const FilesOf& whose) {
  AskedPtr asked;
  while (true) {
    // What a job keeps may be a file that is open: it is closed with no lock
    // held.
    const AskedPtr done = std::move(asked);
    {
      MutexLock lock(mutex_);
      Place& place = places_[whose];
      place.running = nullptr;
      place.used = Clock::now();
      if (place.waiting.empty()) return;
      asked = std::move(place.waiting.front());
      place.waiting.pop_front();
      place.running = asked;
    }
    if (!asked->job.wanted()) continue;
    try {
      const auto tree = TreeOf(whose);
      asked->job.work(*tree);
    } catch (...) {
      asked->job.fail(CurrentError());
    }
  }
}

void LiveFiles::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  std::vector<std::shared_ptr<FileTree>> dropped;  // freed outside the lock
  std::vector<std::shared_ptr<SftpFiles>> ended;
  MutexLock lock(mutex_);
  for (auto at = places_.lower_bound({uuid, ""});
       at != places_.end() && at->first.uuid == uuid;) {
    Place& place = at->second;
    // A snapshot's do not change with the state.
    const bool stale =
        !sandbox ||
        (at->first.tag.empty() &&
         (place.sftp ? HasNoGuest(sandbox->state) : IsOn(sandbox->state)));
    if (place.tree && stale) {
      if (place.sftp) ended.push_back(place.sftp);
      dropped.push_back(std::move(place.tree));
      place.tree = nullptr;
      place.sftp = nullptr;
    }
    const bool idle = !place.tree && !place.running && place.waiting.empty();
    at = idle ? places_.erase(at) : std::next(at);
  }
  for (const auto& sftp : ended) sftp->End();
}

void LiveFiles::Tick() {
  MutexLock lock(mutex_);
  if (ticking_ || stopped_) return;
  ticking_ = true;
  core_.timer.After(kTick, [this] { Tend(); });
}

void LiveFiles::Tend() {
  std::vector<std::pair<AskedPtr, std::string>> late;
  std::vector<std::shared_ptr<SftpFiles>> unused;
  std::vector<std::shared_ptr<FileTree>> dropped;  // freed outside the lock
  bool left = false;
  {
    const auto now = Clock::now();
    MutexLock lock(mutex_);
    ticking_ = false;
    for (auto at = places_.begin(); at != places_.end();) {
      Place& place = at->second;
      const auto tell = [&](const AskedPtr& asked) {
        if (!asked || asked->told || now - asked->since < kAnswersWithin)
          return;
        asked->told = true;
        late.emplace_back(asked, at->first.uuid);
      };
      tell(place.running);
      for (const auto& asked : place.waiting) tell(asked);
      const bool used = place.running || !place.waiting.empty() ||
                        now - place.used < kKept ||
                        (place.sftp && !place.sftp->Idle());
      if (!used && place.sftp) unused.push_back(place.sftp);
      if (!used) dropped.push_back(std::move(place.tree));
      left = left || used;
      at = used ? std::next(at) : places_.erase(at);
    }
  }
  for (const auto& sftp : unused) sftp->HangUp();
  for (const auto& [asked, uuid] : late) {
    asked->job.fail(TakesTooLong(core_.NameOf(uuid)));
  }
  if (left) Tick();
}

void LiveFiles::Stop() {
  std::vector<AskedPtr> waiting;
  std::vector<std::shared_ptr<SftpFiles>> ended;
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    for (auto& [whose, place] : places_) {
      for (auto& asked : place.waiting) waiting.push_back(asked);
      if (place.sftp) ended.push_back(place.sftp);
    }
  }
  for (const auto& asked : waiting) {
    FailAsEnding(asked->job);
  }
  for (const auto& sftp : ended) sftp->End();
}

}  // namespace sbxfs
