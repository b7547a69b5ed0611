// Warm's part for the templates that are made.
#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

#include "backend/guest/boot.h"
#include "backend/guest/exec_script.h"
#include "backend/guest_shell.h"
#include "backend/images_incoming.h"
#include "backend/libvirt_error.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/util/undo.h"
#include "backend/warm.h"
#include "backend/warm_split.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// A user who waits for a first guest is not to wait for this one too.
constexpr auto kCalm = 2s;
constexpr auto kLook = 1s;
constexpr auto kBoots = 30min;
constexpr auto kSettles = 300s;
// With what Housekeeping takes less than a daemon has for its end.
constexpr auto kTidies = 4s;
constexpr char kHostname[] = "sbxfs-template";

// What lies in the guest's caches would be memory of each that goes on from
// here; its state of boot.sh would be taken for theirs.
constexpr char kSettle[] = R"sh(
grep -qs ': 0*:0016 ' /proc/net/tcp /proc/net/tcp6 || exit 1
timeout 120 systemctl is-system-running --wait >/dev/null
! grep -qs '^NETWORK_FILE=.' /run/systemd/netif/links/* || echo networkd
rm -f /var/lib/sbxfs/state /var/lib/sbxfs/log/*
sync
echo 3 >/proc/sys/vm/drop_caches
sync
exit 0
)sh";

}  // namespace

class Warm::Maker {
 public:
  Maker(Warm& warm, const Kind& kind)
      : warm_(warm),
        core_(warm.core_),
        kind_(kind),
        what_(fmt::format("Cannot make a template of '{}'", kind.image)) {}

  void Make() {
    Undo undo;
    undo.Add([this] { TakeBack(); });
    Boot();
    Settle();
    Save();
    Split();
    undo.Keep();
    core_.storage.Delete(seed_);
    core_.storage.Delete(save_);
    DropOlder();
    core_.storage.Announce();
  }

 private:
  void Tell(const std::string& how) {
    MutexLock lock(warm_.mutex_);
    warm_.making_[kind_.uuid] = {
        fmt::format("{}: cpus {}, memory {}: being made: {}", kind_.image,
                    kind_.spec.cpus, FormatSize(kind_.spec.memory), how),
        state_, domain_};
  }

  void MustGoOn() const {
    if (warm_.stopping_) throw Error(ECANCELED, what_ + ": the mount ends");
  }

  void TakeBack() {
    try {
      if (domain_ != nullptr && virDomainIsActive(domain_.get()) == 1) {
        virDomainDestroy(domain_.get());
      }
      virResetLastError();
      for (const auto& name : {state_, memory_, save_, seed_, disk_}) {
        core_.storage.Delete(name);
      }
    } catch (const Error& error) {
      spdlog::debug("{}", error.Sentence());  // the sweep finds them
    }
  }

  // A number that no volume of its kind has, not even another libvirt's, to
  // which a sandbox may move with the layer it stands on.
  void NameVolumes() {
    auto last = static_cast<uint64_t>(time(nullptr));
    for (const auto& name : core_.storage.Names()) {
      if (UuidIn(name) != kind_.uuid) continue;
      last = std::max(
          last, ParseNumber(name.substr(name.rfind('.') + 1)).value_or(0));
    }
    const auto name = [&](const char* kind) {
      return fmt::format("{}.{}.{}", kind_.uuid, kind, last + 1);
    };
    disk_ = name("disk");
    seed_ = name("seed");
    memory_ = name("memory");
    save_ = name("save");
    state_ = name("warm");
  }

  void Boot() {
    Tell("starting");
    NameVolumes();
    // Saved once, and split.
    core_.storage.CheckRoom(what_, 2 * kind_.spec.memory);
    const auto base =
        warm_.images_.Find(kind_.spec.images, core_.ArchOf(kind_.spec));
    if (!base) throw Error(ENOENT, what_ + ": the image is gone");
    note_.image = kind_.image;
    note_.image_stamp = StampOf(core_, ImageVolume(kind_.image));
    note_.hypervisor = warm_.Hypervisor();
    core_.storage.Create(disk_, "qcow2", kind_.spec.disk, base->path,
                         base->facts.format);
    Metadata meta;
    meta.pool = core_.options.pool;
    meta.user = kind_.user;
    meta.disk_volume = disk_;
    meta.seed_volume = seed_;
    SeedInput seed =
        warm_.provision_.SeedFor(meta, kind_.uuid, kHostname, kind_.spec);
    seed.hostname = kHostname;
    seed.authorized_keys = {core_.identity.public_key};
    seed.host_key = MakeKeyPair();
    note_.documents = DocumentsOf(seed);
    note_.scripts = Scripts();
    core_.storage.Write(seed_, MakeSeed(seed));
    DomainInput input = warm_.provision_.InputFor(
        kind_.uuid, kWarmDomain + kind_.uuid.substr(0, 8), meta, kind_.spec,
        /*uefi=*/false);
    input.is_template = true;
    input.forwards.clear();
    const ConnPtr connection = core_.connection.Get(what_);
    // It goes with whoever makes it.
    domain_ =
        DomainPtr(virDomainCreateXML(connection.get(), DomainXml(input).c_str(),
                                     VIR_DOMAIN_START_AUTODESTROY));
    if (domain_ == nullptr) ThrowLibvirt(what_);
    Tell("booting");
    const auto until = Clock::now() + kBoots;
    while (!HasBooted()) {
      if (Clock::now() > until) {
        throw Error(ETIMEDOUT,
                    what_ +
                        ": its guest does not end to boot; has the image "
                        "cloud-init and qemu-guest-agent?");
      }
      Rest();
    }
  }

  // Gives way to the guests that somebody waits for.
  void Rest() {
    MustGoOn();
    Connection::EndUse();
    for (auto slept = 0ms; slept < kLook && !warm_.stopping_; slept += 50ms) {
      std::this_thread::sleep_for(50ms);
    }
    MustGoOn();
    if (!core_.storage.Has(ImageVolume(kind_.image))) {
      throw Error(ENOENT, what_ + ": the image was removed");
    }
    bool busy = false;
    for (const auto& sandbox : core_.catalog.List(false)) {
      busy = busy || sandbox->state == State::kStarting;
    }
    if (busy == paused_) return;
    if ((busy ? virDomainSuspend(domain_.get())
              : virDomainResume(domain_.get())) < 0) {
      ThrowLibvirt(what_);
    }
    paused_ = busy;
  }

  bool HasBooted() {
    if (paused_) return false;
    if (virDomainIsActive(domain_.get()) != 1) {
      throw Error(EIO, what_ + ": its guest ended");
    }
    try {
      const BootReport report = ParseBootReport(
          RunByAgent(core_, kind_.uuid, kBootReportScript, "", 20s).output);
      return report.cloud_init_done && report.present && report.all;
    } catch (const Error& error) {
      if (error.Errno() == EHOSTDOWN) throw;
      return false;
    }
  }

  // What the agent says; nothing while it is too busy to say anything.
  template <typename Ask>
  auto Patiently(Clock::time_point until, const Ask& ask) -> decltype(ask()) {
    if (paused_) return std::nullopt;
    try {
      return ask();
    } catch (const Error& error) {
      if (Clock::now() > until ||
          (error.Errno() != ETIMEDOUT && error.Errno() != EBUSY)) {
        throw;
      }
      return std::nullopt;
    }
  }

  void Settle() {
    Tell("coming to rest");
    const auto until = Clock::now() + kSettles;
    ComeToRest(until);
    // What a first job makes in a guest, and the programs that it takes, are
    // there for each of theirs.
    JobWish wish;
    wish.words = {"true"};
    wish.user = kind_.user;
    const std::string job = kind_.uuid;
    for (const auto& script :
         {JobScript(job, wish), EndJobScript({job}), LoginScript()}) {
      while (!Patiently(until, [&] {
        return std::optional(
            RunByAgent(core_, kind_.uuid, script, "", kSettles));
      })) {
        Rest();
      }
    }
  }

  // The user's own service manager, which takes seconds to start, is what a
  // login waits for most. It ends, as ever, after the last one of them.
  [[nodiscard]] std::string LoginScript() const {
    return fmt::format(
        "uid=$(id -u {}) && systemctl start user@$uid.service\n"
        "cat /lib/*/security/pam_*.so >/dev/null\n"
        "exit 0\n",
        ShellQuote(kind_.user));
  }

  void ComeToRest(Clock::time_point until) {
    std::optional<int64_t> pid;
    for (;;) {
      if (!pid) {
        pid = Patiently(until, [&] {
          return std::optional(BeginByAgent(core_, kind_.uuid, kSettle, ""));
        });
      }
      const auto ended =
          pid ? Patiently(until,
                          [&] { return EndedByAgent(core_, kind_.uuid, *pid); })
              : std::nullopt;
      if (ended && ended->status == 0) {
        note_.networks = std::string(Trim(ended->output));
        return;
      }
      if (ended) throw Error(EIO, what_ + ": its guest has no sshd");
      if (Clock::now() > until) {
        throw Error(ETIMEDOUT, what_ + ": its guest does not come to rest");
      }
      Rest();
    }
  }

  void Save() {
    Tell("saving its memory");
    core_.storage.Write(save_, "");
    if (virDomainSave(domain_.get(), core_.storage.Path(save_).c_str()) < 0) {
      ThrowLibvirt(what_);
    }
    note_.disk = disk_;
    note_.disk_stamp = StampOf(core_, disk_);
  }

  // Guests that go on from one have its memory open and stand on its disk,
  // which stays as long as one does.
  void DropOlder() {
    for (const auto& name : core_.storage.Names()) {
      if (!IsWarmState(name) || UuidIn(name) != kind_.uuid || name == state_) {
        continue;
      }
      Template older;
      older.state = name;
      warm_.Drop(older, "it was made anew");
    }
  }

  void Split() {
    Tell("splitting its memory");
    SplitSaved(
        core_, save_, memory_, state_, note_, [this] { MustGoOn(); }, what_);
  }

  Warm& warm_;
  Core& core_;
  const Kind kind_;
  const std::string what_;
  std::string disk_, seed_, memory_, save_, state_;
  WarmNote note_;
  std::shared_ptr<virDomain> domain_;
  bool paused_ = false;
};

bool Warm::IsMade(const Kind& kind) {
  const std::string state = StateOf(kind.uuid);
  try {
    if (state.empty()) return false;
    const WarmNote& note = Read(state)->note;
    return note.scripts == Scripts() && WhyStale(note).empty();
  } catch (const Error& error) {
    if (error.Errno() == EHOSTDOWN) throw;
    return false;
  }
}

void Warm::Make(const Kind& kind) {
  {
    MutexLock lock(mutex_);
    if (stopping_ || failed_.contains(kind.uuid)) return;
    if (!making_.try_emplace(kind.uuid).second) return;
  }
  std::string failed;
  try {
    if (!IsMade(kind)) {
      Maker(*this, kind).Make();
      spdlog::info("Made a template of '{}'", kind.image);
    }
  } catch (const Error& error) {
    spdlog::info("{}", error.Sentence());
    // What comes of the guest itself would come again; a pool that is full
    // will not be full for ever.
    constexpr std::array<int, 6> kPass = {EHOSTDOWN, ECANCELED, ENOENT,
                                          ENOSPC,    EDQUOT,    EBUSY};
    if (std::find(kPass.begin(), kPass.end(), error.Errno()) == kPass.end()) {
      failed = error.Sentence();
    }
  }
  MutexLock lock(mutex_);
  making_.erase(kind.uuid);
  if (!failed.empty()) failed_[kind.uuid] = failed;
}

void Warm::Stop() {
  stopping_ = true;
  const auto until = Clock::now() + kTidies;
  std::vector<std::shared_ptr<virDomain>> guests;
  {
    MutexLock lock(mutex_);
    for (const auto& [uuid, making] : making_) guests.push_back(making.guest);
  }
  // Nothing else ends the saving of its memory.
  for (const auto& guest : guests) {
    if (guest != nullptr) virDomainDestroy(guest.get());
  }
  for (;;) {
    {
      MutexLock lock(mutex_);
      if (making_.empty()) return;
    }
    if (Clock::now() > until) return;  // the next mount's sweep finds it
    std::this_thread::sleep_for(20ms);
  }
}

void Warm::MakeSoon(const std::string& uuid) {
  if (core_.test_driver || core_.options.no_warm) return;
  try {
    // Now: the sandbox may be gone by then.
    const Metadata meta = core_.Meta(uuid, "Cannot make a template");
    core_.timer.After(kCalm, [this, kind = KindOf(meta, core_.SpecOf(meta))] {
      core_.workers.Run([this, kind] { Make(kind); });
    });
  } catch (const Error& error) {
    spdlog::debug("{}", error.Sentence());
  }
}

}  // namespace sbxfs
