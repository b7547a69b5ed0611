#include "backend/mounts.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <set>
#include <sstream>
#include <thread>

#include "backend/guest/boot.h"
#include "backend/guest_shell.h"
#include "backend/libvirt_error.h"
#include "backend/mount/server.h"
#include "backend/mount/sshfs.h"
#include "backend/run_dir.h"
#include "backend/util/log.h"
#include "backend/util/slip.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

// An element of ours in the live definition alone: it goes with the guest, and
// every mount of the tree sees it.
constexpr char kMountsUri[] = "https://sbxfs.org/xmlns/mounts/1";
constexpr char kMountsPrefix[] = "sbxfs-mounts";

constexpr char kMountPrefix[] = "mount.";
constexpr auto kMountPatience = 60s;  // for a mount to show in the guest

std::string MountSlipName(std::string_view mount_point) {
  return fmt::format("{}{:08x}", kMountPrefix, Hash32(mount_point));
}

}  // namespace

std::string MountsDigest(const Spec& spec) {
  std::string all;
  for (const auto& mount : MountsOf(spec)) all += DigestOf(mount) + '\n';
  return all.empty() ? "" : fmt::format("{:08x}", Hash32(all));
}

const std::vector<MountSpec>& MountsOf(const Spec& spec) {
  static const std::vector<MountSpec> kNone;
  return spec.plain ? kNone : spec.mounts;
}

std::string NotedMounts(std::string_view domain_xml) {
  return XmlText(domain_xml,
                 "/domain/metadata/*[local-name()='mounts']/@digest");
}

std::string Mounts::What(const Sandbox& sandbox, const MountSpec& mount) {
  return fmt::format("Cannot mount '{}' in '{}'", mount.name, sandbox.name);
}

Turns::Turn Mounts::TakeTurn(const std::string& uuid) const {
  return core_.turns.Take("mounts " + uuid, "change the mounts",
                          kMountPatience);
}

void Mounts::Note(const std::string& uuid, const std::string& digest) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr || NotedMounts(sandbox->domain_xml.Text()) == digest) {
    return;
  }
  constexpr char kWhat[] = "Cannot note the guest's mounts";
  const DomainPtr domain = core_.Domain(uuid, kWhat);
  const std::string xml = fmt::format("<mounts digest='{}'/>", digest);
  if (virDomainSetMetadata(domain.get(), VIR_DOMAIN_METADATA_ELEMENT,
                           xml.c_str(), kMountsPrefix, kMountsUri,
                           VIR_DOMAIN_AFFECT_LIVE) < 0) {
    ThrowLibvirt(kWhat);
  }
  core_.Read(uuid);
}

bool Mounts::Serves(const Sandbox* sandbox) const {
  return sandbox != nullptr && sandbox->ours && !core_.test_driver &&
         core_.ReachesGuests() && sandbox->ssh_port != 0 &&
         (geteuid() == 0 || geteuid() == sandbox->uid);
}

void Mounts::Check(const Caller& caller, const Owned& sandbox,
                   const Spec& before, const Spec& wanted,
                   std::string_view what) const {
  Sandbox place;
  place.uid = sandbox.uid;
  place.name = sandbox.name;
  const Spec was = core_.Expanded(before, place);
  const Spec will = core_.Expanded(wanted, place);
  const auto& old = MountsOf(was);
  for (const auto& mount : MountsOf(will)) {
    // Its name is no one's business but the tree's.
    const bool had =
        std::any_of(old.begin(), old.end(), [&mount](const MountSpec& one) {
          return DigestOf(one) == DigestOf(mount);
        });
    if (had) continue;
    if (!core_.ReachesGuests()) {
      throw Error(EOPNOTSUPP,
                  fmt::format("{}: the hypervisor is another machine, which "
                              "directories of this one reach by qemu+ssh "
                              "alone",
                              what));
    }
    if (caller.uid != sandbox.uid && caller.uid != 0) {
      throw Error(EPERM,
                  fmt::format("{}: mounts are served with the rights of user "
                              "{}, who owns '{}'; let them write it",
                              what, sandbox.uid, sandbox.name));
    }
    const Rights rights =
        caller.uid == sandbox.uid
            ? RightsOfProcess(caller.pid, caller.uid, caller.gid)
            : RightsOfUser(sandbox.uid);
    (void)OpenLocation(mount.location, mount.writable, rights, what);
  }
}

void Mounts::Settle(const std::string& uuid, const std::string* name) {
  const Turns::Turn turn = TakeTurn(uuid);
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  // A guest of a template is itself while its start goes on yet.
  if (!Serves(sandbox.get()) || (sandbox->state != State::kRunning &&
                                 sandbox->state != State::kStarting)) {
    return;
  }
  const Spec spec = core_.SpecFor(*sandbox);
  Failures failures;
  try {
    failures = SettleTurn(*sandbox, spec);
  } catch (...) {
    Note(uuid, "-");
    throw;
  }
  Note(uuid, failures.empty() ? MountsDigest(spec) : "-");
  const auto told = name == nullptr ? failures.begin() : failures.find(*name);
  if (told != failures.end()) throw Error(told->second);
}

Mounts::Failures Mounts::SettleTurn(const Sandbox& sandbox, const Spec& spec) {
  const stdfs::path dir = MakeRunDirectory(sandbox.uuid);
  // What was told to the last guest is of no use to this one.
  const std::string run = fmt::format(
      ".{:x}",
      sandbox.usage.started.value_or(Time()).time_since_epoch().count());
  std::map<std::string, const MountSpec*> wanted;  // by their slips' names
  for (const auto& mount : MountsOf(spec)) {
    wanted.emplace(MountSlipName(mount.mount_point), &mount);
  }
  std::set<std::string> ended;
  for (const std::string& name : SlipsIn(dir, kMountPrefix)) {
    const auto found = wanted.find(name);
    const auto slip = ReadSlip(dir / name);
    if (slip && found != wanted.end() &&
        slip->digest == DigestOf(*found->second) + run) {
      wanted.erase(found);
    } else {
      StopMountServer(dir / name);
      ended.insert(name);
    }
  }
  Failures failures;
  if (wanted.empty() && ended.empty() && Tags(sandbox.uuid).empty()) {
    return failures;
  }
  Guest guest = AwaitEnd(sandbox, ended);
  SettleDirectories(sandbox, guest, wanted, failures);
  if (!wanted.empty() && !guest.has_sshfs) {
    InstallSshfs(sandbox);
    guest = AskGuest(sandbox);
  }
  std::map<std::string, const MountSpec*> begun;
  for (const auto& [name, mount] : wanted) {
    // Another daemon of the same owner's serves it.
    if (guest.mounted.count(mount->mount_point) != 0) continue;
    try {
      Start(sandbox, *mount, guest, dir / name, DigestOf(*mount) + run);
      begun.emplace(name, mount);
    } catch (const Error& error) {
      failures.emplace(mount->name, error);
    }
  }
  for (const auto& [name, mount] : begun) {
    try {
      Await(sandbox, *mount, dir / name);
    } catch (const Error& error) {
      StopMountServer(dir / name);
      failures.emplace(mount->name, error);
    }
  }
  return failures;
}

// As Lima does: images that know nothing of us have none.
void Mounts::InstallSshfs(const Sandbox& sandbox) const {
  (void)RunInGuest(
      core_, sandbox.uuid,
      std::string(kAsRoot) +
          "has() { command -v \"$1\"; }; "
          "exec >/dev/null 2>&1; "
          "if has apt-get; then $s apt-get -q update; "
          "$s env DEBIAN_FRONTEND=noninteractive apt-get -qy install sshfs; "
          "elif has dnf; then $s dnf -qy install fuse-sshfs; "
          "elif has zypper; then $s zypper -nq install sshfs; "
          "elif has apk; then $s apk add -q sshfs; "
          "elif has pacman; then $s pacman -Sy --noconfirm sshfs; fi",
      "", 300s);
}

// sshfs unmounts by itself when its connection ends.
Mounts::Guest Mounts::AwaitEnd(const Sandbox& sandbox,
                               const std::set<std::string>& ended) const {
  for (int round = 0;; ++round) {
    Guest guest = AskGuest(sandbox);
    const auto still = std::find_if(
        guest.mounted.begin(), guest.mounted.end(), [&](const auto& point) {
          return ended.count(MountSlipName(point)) != 0;
        });
    if (still == guest.mounted.end() || round == 20) return guest;
    if (round == 10) {
      (void)RunInGuest(core_, sandbox.uuid,
                       UnmountScript(*still, /*lazily=*/true), "", 30s);
    }
    std::this_thread::sleep_for(200ms);
  }
}

Mounts::Guest Mounts::AskGuest(const Sandbox& sandbox) const {
  const ShellResult result = RunInGuest(
      core_, sandbox.uuid,
      fmt::format("id -u {0} && id -g {0} && "
                  "{{ command -v sshfs >/dev/null && echo yes || echo no; }} "
                  "&& cat /proc/mounts",
                  ShellQuote(sandbox.user)),
      "", 30s);
  Guest guest;
  std::istringstream lines(result.output);
  std::string uid, gid, sshfs;
  std::getline(lines, uid);
  std::getline(lines, gid);
  std::getline(lines, sshfs);
  if (const auto id = ParseNumber(uid)) guest.uid = static_cast<uid_t>(*id);
  if (const auto id = ParseNumber(gid)) guest.gid = static_cast<gid_t>(*id);
  guest.has_sshfs = sshfs == "yes";
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string source, point, type;
    words >> source >> point >> type;
    if (type == "fuse.sshfs") guest.mounted.insert(Unescape(point));
    if ((type == "9p" || type == "virtiofs") && IsTag(source)) {
      guest.tags.emplace(Unescape(point), source);
    }
  }
  return guest;
}

void Mounts::Start(const Sandbox& sandbox, const MountSpec& mount,
                   const Guest& guest, const stdfs::path& slip,
                   const std::string& digest) {
  const std::string what = What(sandbox, mount);
  if (!guest.uid || !guest.gid) {
    throw Error(EPROTO, fmt::format("{}: the guest does not know its user '{}'",
                                    what, sandbox.user));
  }
  if (!guest.has_sshfs) {
    throw Error(EOPNOTSUPP, what +
                                ": the guest has no sshfs, and none could be "
                                "installed; install it there");
  }
  MountServer server;
  server.rights =
      sandbox.uid == geteuid() ? OwnRights() : RightsOfUser(sandbox.uid);
  server.root =
      OpenLocation(mount.location, mount.writable, server.rights, what);
  server.label = fmt::format("{}{} for {}", mount.location,
                             mount.writable ? ":w" : "", sandbox.name);
  server.digest = digest;
  server.writable = mount.writable;
  server.guest_uid = *guest.uid;
  server.guest_gid = *guest.gid;
  server.ssh = SshWords({sandbox.ssh_port, sandbox.user, sandbox.host_key,
                         core_.data_dir + "/id_ed25519"},
                        GuestCommand(mount));
  StartMountServer(slip, std::move(server));
}

void Mounts::Await(const Sandbox& sandbox, const MountSpec& mount,
                   const stdfs::path& slip) const {
  const auto until = std::chrono::steady_clock::now() + kMountPatience;
  for (auto pause = 100ms;; pause = std::min(pause * 2, 1000ms)) {
    std::this_thread::sleep_for(pause);
    if (!ReadSlip(slip)) {
      const std::string said = LastLogLine(slip);
      throw Error(
          EIO, fmt::format("{}: {}", What(sandbox, mount),
                           said.empty() ? "sshfs ended in the guest" : said));
    }
    const Guest guest = AskGuest(sandbox);
    if (guest.mounted.count(mount.mount_point) != 0) return;
    if (std::chrono::steady_clock::now() > until) {
      throw Error(ETIMEDOUT,
                  fmt::format("{}: it did not appear in the guest within {} s",
                              What(sandbox, mount), kMountPatience.count()));
    }
  }
}

// Nothing to serve and nothing served.
bool Mounts::IsIdle(const Sandbox& sandbox) const {
  if (!NotedMounts(sandbox.domain_xml.Text()).empty()) return false;
  try {
    return MountsOf(core_.SpecOf(sandbox)).empty();
  } catch (const Error&) {
    return true;
  }
}

void Mounts::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (!Serves(sandbox.get()) || !sandbox->Booted() ||
      sandbox->state != State::kRunning || IsIdle(*sandbox)) {
    return;
  }
  {
    MutexLock lock(mutex_);
    if (!watched_.emplace(uuid, Watched()).second) return;
  }
  core_.workers.Run([this, uuid] { Watch(uuid); });
}

// The servers ended with the connections to their guest.
void Mounts::Forget(const std::string& uuid) {
  const stdfs::path dir = RunDirectory(uuid);
  StopServersIn(dir, kMountPrefix);
  std::error_code error;
  stdfs::remove(dir, error);  // empty or not at all
}

void Mounts::Watch(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  const bool over = !Serves(sandbox.get()) || IsOff(sandbox->state) ||
                    sandbox->state == State::kSaved || !sandbox->Booted() ||
                    IsIdle(*sandbox);
  if (over) {
    if (sandbox == nullptr || IsOff(sandbox->state)) Forget(uuid);
    MutexLock lock(mutex_);
    watched_.erase(uuid);
    return;
  }
  std::optional<Error> failure;
  try {
    Settle(uuid);
    if (sandbox->failed.starts_with(kMountFailed)) {
      // It was mended; what else makes it ready is looked for again.
      core_.ChangeRun(uuid, [](RunInfo& run) { run.failed.clear(); });
      core_.ReadSoon(uuid);
    }
  } catch (...) {
    failure = CurrentError();
  }
  bool news = false;
  auto pause = 3000ms;
  {
    MutexLock lock(mutex_);
    Watched& watched = watched_[uuid];
    const std::string sentence = failure ? failure->Sentence() : "";
    news = !sentence.empty() && sentence != watched.failure;
    watched.failure = sentence;
    watched.failures = failure ? watched.failures + 1 : 0;
    pause *= std::min(watched.failures + 1, 20U);
  }
  if (news) core_.catalog.ReportEnd(uuid, &*failure);
  core_.timer.After(pause, [this, uuid] {
    core_.workers.Run([this, uuid] { Watch(uuid); });
  });
}

}  // namespace sbxfs
