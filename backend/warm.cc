#include "backend/warm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <vector>

#include "backend/guest/boot.h"
#include "backend/image/download.h"
#include "backend/images_incoming.h"
#include "backend/libvirt_error.h"
#include "backend/mounts.h"
#include "backend/save_image.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/warm_split.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// Of a template's making, layout and script: another number and older ones fit
// no more.
constexpr char kVersion[] = "1";

// A UUID of a name (version 5).
std::string NameUuid(std::string_view name) {
  const std::string digest = Sha1(name);
  std::string uuid;
  for (size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) uuid += '-';
    unsigned byte = static_cast<unsigned char>(digest[i]);
    if (i == 6) byte = (byte & 0x0f) | 0x50;
    if (i == 8) byte = (byte & 0x3f) | 0x80;
    uuid += fmt::format("{:02x}", byte);
  }
  return uuid;
}

}  // namespace

std::string Warm::Hypervisor() const {
  return core_.catalog.GetHost()->hypervisor +
         (core_.kvm ? " " + core_.cpu_model : "");
}

std::string Warm::DocumentsOf(const SeedInput& seed) {
  std::string all;
  for (const auto& [name, text] : seed.boot) {
    if (name == "lima.env") continue;  // read by boot.sh alone
    all.append(name).append(1, '\0').append(text).append(1, '\0');
  }
  return Base64Encode(Sha1(all));
}

std::string Warm::Scripts() {
  SeedInput seed;
  seed.boot = BootDocuments({});
  return DocumentsOf(seed);
}

Warm::Kind Warm::KindOf(const Metadata& meta, const Spec& spec) const {
  Kind kind;
  kind.image = meta.image;
  kind.user = meta.user;
  Spec& own = kind.spec;
  own.images = {ImageSource{meta.image, "", ""}};
  own.arch = core_.ArchOf(spec);
  own.cpus = spec.cpus;
  own.max_cpus = spec.max_cpus;
  own.memory = own.max_memory = spec.memory;
  own.disk = spec.disk;
  own.cpu_type = spec.cpu_type;
  own.user = meta.user;
  own.uid = spec.uid;
  own.home = spec.home;
  own.shell = spec.shell;
  own.comment = spec.comment;
  own.propagate_proxy_env = spec.propagate_proxy_env;
  kind.uuid = NameUuid(
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}",
                  kVersion, core_.options.pool, kind.image, own.arch, core_.kvm,
                  own.cpus, own.max_cpus, own.memory, own.disk, own.cpu_type,
                  own.user, own.uid ? fmt::to_string(*own.uid) : "", own.home,
                  own.shell + '\n' + own.comment));
  return kind;
}

std::string Warm::WhyNot(const Metadata& meta, const Spec& spec,
                         const DomainFacts& facts) const {
  if (!spec.warm) return "warm is false";
  if (meta.booted) return "it was started before";
  if (!meta.origin_layer.empty() && meta.origin_memory.empty()) {
    return "it is a clone of a disk";
  }
  if (core_.ArchOf(spec) != "x86_64" || core_.arch != "x86_64") {
    return "there are templates of x86_64 alone";
  }
  if (facts.uefi) return "there are templates of guests with a BIOS alone";
  if (spec.max_memory > spec.memory) {
    return "maxMemory needs a balloon, and templates have none";
  }
  if (spec.plain) return "it is plain";
  // QEMU plugs 9p in at no time, and virtiofs serves shared memory alone.
  if (!MountsOf(spec).empty() &&
      core_.WayOfMounts(spec, meta).type != MountType::kReverseSshfs) {
    return "its mounts are not of type reverse-sshfs";
  }
  const size_t nics = core_.NicsOf("", spec).size();
  if (!meta.origin_memory.empty()) {
    // They are for boot.sh to mount, which does not run again in a fork.
    if (!spec.additional_disks.empty()) return "it was given additional disks";
    if (nics != 0) return "it was given networks";
  }
  if (nics + spec.additional_disks.size() > kSparePorts) {
    return fmt::format(
        "templates have ports for {} networks and additional disks alone",
        kSparePorts);
  }
  if (core_.storage.Get(meta.seed_volume).size != kSeedUnit) {
    return "its provision scripts are large";
  }
  return "";
}

std::string Warm::WhyStale(const WarmNote& note) {
  if (note.hypervisor != Hypervisor()) {
    return fmt::format("was made by {}, and this is {}", note.hypervisor,
                       Hypervisor());
  }
  try {
    if (!note.image.empty() &&
        note.image_stamp != StampOf(core_, ImageVolume(note.image))) {
      return fmt::format("is of another image '{}'", note.image);
    }
    if (note.disk_stamp != StampOf(core_, note.disk) ||
        note.memory_stamp != StampOf(core_, note.memory)) {
      return "is damaged: somebody wrote to its volumes";
    }
  } catch (const Error& error) {
    if (error.Errno() != ENOENT) throw;
    return "is damaged: a volume of its is gone";
  }
  return "";
}

std::string Warm::WhyNotOf(const WarmNote& note, const Spec& spec) const {
  if (core_.NicsOf("", spec).empty() || !note.networks.empty()) return "";
  return note.scripts == Scripts()
             ? "it has networks, and its image no systemd-networkd"
             : "it has networks, and its template is another sbxfs's";
}

Warm::TemplatePtr Warm::Read(const std::string& state) {
  {
    MutexLock lock(mutex_);
    const auto known = read_.find(state);
    if (known != read_.end()) return known->second;
  }
  const std::string bytes = core_.storage.Read(state, 0, 0);
  auto read = std::make_shared<Template>();
  read->state = state;
  const uint64_t head = SaveHeadSize(bytes);
  read->xml = SavedXml(bytes);
  auto note = ParseWarmNote(read->xml);
  const bool own = IsWarmState(state);
  if (!note || head >= bytes.size() || own == note->image.empty() ||
      (own && (note->disk != WarmVolume(state, "disk") ||
               note->memory != WarmVolume(state, "memory")))) {
    throw Error(EIO, "Cannot read a template: it is none");
  }
  read->note = std::move(*note);
  read->rest = bytes.substr(head);
  read->memory = core_.storage.Get(read->note.memory).capacity;
  MutexLock lock(mutex_);
  // Each is as large as the state of a guest's devices.
  constexpr size_t kMost = 4;
  if (read_.size() >= kMost) read_.clear();
  read_[state] = read;
  return read;
}

// It is there before all of it is: what cannot be read then is not damaged.
bool Warm::IsBeingWritten(const std::string& state) {
  {
    MutexLock lock(mutex_);
    const auto making = making_.find(UuidIn(state));
    if (making != making_.end() && making->second.state == state) return true;
  }
  try {
    (void)Read(state);
    return false;
  } catch (const Error& error) {
    if (error.Errno() == EHOSTDOWN) throw;
    if (!core_.storage.Has(state)) return true;
    // By another mount, and the hypervisor's clock.
    return std::chrono::system_clock::now() -
               core_.storage.Get(state).modified <
           1min;
  }
}

std::string Warm::StateOf(const std::string& kind) {
  std::string state;
  for (const auto& name : core_.storage.Names()) {
    if (IsWarmState(name) && UuidIn(name) == kind && name > state &&
        !IsBeingWritten(name)) {
      state = name;
    }
  }
  return state;
}

Warm::Fit Warm::Look(const std::string& uuid) {
  constexpr char kWhat[] = "Cannot look for a template";
  const Metadata meta = core_.Meta(uuid, kWhat);
  const auto facts = core_.Facts(uuid);
  const Spec spec = core_.SpecOf(meta);
  Fit fit;
  fit.why = WhyNot(meta, spec, *facts);
  if (!fit.why.empty()) return fit;
  if (!meta.origin_memory.empty()) return LookAtFork(meta, spec);
  const Kind kind = KindOf(meta, spec);
  const std::string state = StateOf(kind.uuid);
  if (state.empty()) {
    MutexLock lock(mutex_);
    const auto failed = failed_.find(kind.uuid);
    fit.wanted = failed == failed_.end();
    fit.why = making_.contains(kind.uuid) ? "its template is being made"
              : fit.wanted                ? "there is no template of its yet"
                                          : failed->second;
    return fit;
  }
  try {
    const TemplatePtr found = Read(state);
    const std::string stale = WhyStale(found->note);
    if (stale.empty()) {
      fit.why = WhyNotOf(found->note, spec);
      if (fit.why.empty()) fit.found = found;
      // All of boot.sh would run in each of its guests.
      fit.wanted = found->note.scripts != Scripts();
      return fit;
    }
    fit.why = "its template " + stale;
    Drop(*found, fit.why);
  } catch (const Error& error) {
    if (error.Errno() == EHOSTDOWN) throw;
    fit.why = "its template is damaged: " + error.Sentence();
    Template damaged;
    damaged.state = state;
    Drop(damaged, fit.why);
  }
  fit.wanted = true;
  return fit;
}

void Warm::Drop(const Template& one, const std::string& why) {
  spdlog::info("Dropped the template {}: {}", one.state, why);
  {
    MutexLock lock(mutex_);
    read_.erase(one.state);
  }
  // The state first: without it the others are nobody's.
  core_.storage.Delete(one.state);
  core_.storage.Delete(WarmVolume(one.state, "memory"));
  layers_.DropSoon(UuidIn(one.state), {WarmVolume(one.state, "disk")});
}

bool Warm::Fail(const Template& one, const Error& error,
                const std::string& why) {
  for (const int own : {ENOSPC, EDQUOT, ENOMEM}) {
    if (error.Errno() == own) return false;
  }
  Drop(one, why);
  const std::string kind = UuidIn(one.state);
  MutexLock lock(mutex_);
  if (dropped_.insert(kind).second) return true;
  failed_[kind] = why;
  return false;
}

void Warm::DropOf(const std::string& image) {
  for (const auto& name : core_.storage.Names()) {
    if (!IsWarmState(name)) continue;
    Template one;
    one.state = name;
    try {
      const TemplatePtr read = Read(name);
      if (read->note.image != image) continue;
    } catch (const Error& error) {
      if (error.Errno() == EHOSTDOWN) throw;
    }
    Drop(one, "its image is removed");
    // Nobody stands on it: the image would not go otherwise.
    layers_.DropNow(UuidIn(name), {WarmVolume(name, "disk")});
  }
}

std::string Warm::List() {
  std::string text;
  for (const auto& name : core_.storage.Names()) {
    if (!IsWarmState(name) || IsBeingWritten(name)) continue;
    try {
      const TemplatePtr read = Read(name);
      const DomainFacts facts = ParseDomain(read->xml);
      const std::string stale = WhyStale(read->note);
      text += fmt::format(
          "{}: cpus {}, memory {}, {}{}\n", read->note.image, facts.cpus,
          FormatSize(read->memory),
          FormatSize(core_.storage.Get(read->note.memory).allocation),
          !stale.empty()                    ? ", " + stale
          : read->note.scripts == Scripts() ? ""
                                            : ", of another sbxfs");
    } catch (const Error& error) {
      if (error.Errno() == EHOSTDOWN) throw;
      text += fmt::format("{}: {}\n", name, error.Sentence());
    }
  }
  MutexLock lock(mutex_);
  for (const auto& [uuid, making] : making_) text += making.how + "\n";
  for (const auto& [uuid, why] : failed_) text += why + "\n";
  return text;
}

}  // namespace sbxfs
