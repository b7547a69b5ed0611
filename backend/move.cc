#include "backend/move.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "backend/domain_xml.h"
#include "backend/image/byte_source.h"
#include "backend/image/download.h"
#include "backend/images_incoming.h"
#include "backend/layers.h"
#include "backend/libvirt_error.h"
#include "backend/move_way.h"
#include "backend/snapshot_records.h"
#include "backend/snapshot_xml.h"
#include "backend/snapshots.h"
#include "backend/spec/layers.h"
#include "backend/util/undo.h"
#include "backend/warm_xml.h"

namespace sbxfs {
namespace {

constexpr size_t kHead = 65536;  // a cluster of ours
constexpr auto kTellPause = std::chrono::milliseconds(500);

// What the source has of it.
struct Parts {
  std::string name;
  std::string xml;             // the definition
  std::vector<Layer> records;  // of its snapshots
  bool autostart = false;
  std::vector<Volume> volumes;  // each after what it stands on
  std::string directory;        // that the volumes' paths begin with
};

// All volumes of the sandbox's own, and what they stand on.
std::vector<Volume> VolumesOf(const std::string& uuid,
                              const std::vector<Volume>& all) {
  std::map<std::string, const Volume*> by_name;
  for (const Volume& volume : all) by_name[volume.name] = &volume;
  std::vector<Volume> ordered;
  std::set<std::string> done;
  const std::function<void(const Volume&)> add = [&](const Volume& volume) {
    if (!done.insert(volume.name).second) return;
    if (!volume.backing.empty()) {
      const auto below = by_name.find(LastPart(volume.backing));
      if (below != by_name.end()) add(*below->second);
    }
    ordered.push_back(volume);
  };
  for (const Volume& volume : all) {
    if (UuidIn(volume.name) == uuid) add(volume);
  }
  return ordered;
}

Parts PartsOf(Core& core, const std::string& uuid, const std::string& what) {
  Parts parts;
  const DomainPtr domain = core.Domain(uuid, what);
  parts.name = virDomainGetName(domain.get());
  parts.xml = TakeString(virDomainGetXMLDesc(
      domain.get(), VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE));
  if (parts.xml.empty()) ThrowLibvirt(what);
  int autostart = 0;
  virDomainGetAutostart(domain.get(), &autostart);
  parts.autostart = autostart != 0;
  parts.records = RecordsOf(domain.get());
  parts.volumes = VolumesOf(uuid, core.storage.ListWhole());
  parts.directory = core.storage.Info().directory;
  return parts;
}

void CheckMovable(const Sandbox& sandbox, const std::string& what) {
  if (!sandbox.ours) {
    throw Error(EPERM, what + ": it was not made by sbxfs; use virsh migrate");
  }
  if (!IsOff(sandbox.state) && sandbox.state != State::kRunning) {
    throw Error(EBUSY,
                fmt::format("{}: it is {}; have it run, or be stopped, first",
                            what, StateName(sandbox.state)));
  }
  if (!sandbox.disks.empty()) {
    throw Error(EBUSY,
                fmt::format("{}: its additional disk '{}' would stay behind; "
                            "take it out of additionalDisks first",
                            what, *sandbox.disks.begin()));
  }
}

struct MigrationParams {
  MigrationParams() = default;
  ~MigrationParams() { virTypedParamsFree(list, count); }
  MigrationParams(const MigrationParams&) = delete;
  MigrationParams& operator=(const MigrationParams&) = delete;
  void Add(const char* name, const std::string& value) {
    if (value.empty()) return;
    virTypedParamsAddString(&list, &count, &room, name, value.c_str());
  }

  virTypedParameterPtr list = nullptr;
  int count = 0, room = 0;
};

class Mover {
 public:
  Mover(const MoveEnd& from, const MoveEnd& to, const std::string& uuid,
        const std::string& what, const Reply<Done>& reply)
      : from_(from), to_(to), uuid_(uuid), what_(what), reply_(reply) {}

  void Run() {
    from_.core.Read(uuid_);
    const SandboxPtr sandbox = from_.core.Reachable(uuid_, what_);
    CheckMovable(*sandbox, what_);
    live_ = sandbox->state == State::kRunning;
    // Of a daemon that was killed.
    if (from_.core.storage.Has(ProbeOf(uuid_))) {
      from_.core.storage.Delete(ProbeOf(uuid_));
    }
    parts_ = PartsOf(from_.core, uuid_, what_);
    directory_ = to_.core.storage.Info().directory;
    shared_ = IsShared();
    const Turns::Turn turn = to_.core.Turn(uuid_, what_);
    ForgetBrokenOff();
    before_.emplace(to_.core, what_);
    Undo undo;
    undo.Add([this] { TakeBack(); });
    Claim();
    if (!shared_) CopyAll();
    MustBeWanted(reply_.Answered());
    if (live_) {
      undo.Add([this] { Snapshots(from_.core).PutRecordsBack(uuid_, what_); });
      // Over there may be here.
      from_.relay.Withhold(uuid_);
      Undo open;
      open.Add([this] { from_.relay.Release(uuid_); });
      Migrate();
      // There is no way back from here.
      undo.Keep();
    } else if (shared_) {
      undo.Add([this] { Lend(false); });
      Lend(true);
    }
    Show();
    from_.provision.Leave(uuid_, !shared_, what_);
    undo.Keep();
    Tell("");
  }

 private:
  // Whether what is put into the one pool is in the other.
  [[nodiscard]] bool IsShared() {
    const std::string probe = ProbeOf(uuid_);
    Storage& here = from_.core.storage;
    Storage& there = to_.core.storage;
    here.WriteNew(probe, "");
    Undo clean;
    clean.Add([&] { here.Delete(probe); });
    there.Refresh();
    if (!there.Has(probe)) return false;
    if (directory_ == parts_.directory) return true;
    throw Error(EXDEV, fmt::format("{}: both hypervisors have one pool, which "
                                   "is '{}' here and '{}' over there, and "
                                   "layers name each other by their paths; "
                                   "have it at one path",
                                   what_, parts_.directory, directory_));
  }

  // A sandbox of a shared pool whose definition alone goes when it is removed.
  void Lend(bool on) {
    from_.core.ChangeMeta(uuid_, what_,
                          [on](Metadata& meta) { meta.borrowed = on; });
  }

  void Tell(const std::string& progress) {
    from_.core.catalog.Change(
        uuid_, [&](Catalog::Overlay& overlay) { overlay.progress = progress; });
  }

  void TellNow() {
    const auto now = std::chrono::steady_clock::now();
    if (now - told_ < kTellPause) return;
    told_ = now;
    Tell(fmt::format("copying to the other hypervisor: {} of {} MiB",
                     done_ >> 20, all_ >> 20));
  }

  void CopyAll() {
    for (const Volume& volume : to_.core.storage.ListWhole()) {
      there_[volume.name] = volume;
    }
    uint64_t needed = 0;
    for (const Volume& volume : parts_.volumes) {
      if (there_.count(volume.name) != 0) continue;
      needed += std::min(volume.size, volume.allocation);
    }
    to_.core.storage.CheckRoom(what_, needed);
    for (const Volume& volume : parts_.volumes) {
      all_ += volume.size;
    }
    const auto facts = from_.core.Facts(uuid_);
    for (const Volume& volume : parts_.volumes) {
      if (live_ && facts && volume.name == facts->disk) {
        MakeTop(volume);
      } else {
        CopyOne(volume);
      }
    }
    // libvirt finds out what they are.
    to_.core.storage.Announce();
  }

  // The bytes of a volume as it is to be over there.
  void Bytes(const Volume& volume,
             const std::function<void(std::string_view)>& sink) {
    const std::string backing =
        volume.backing.empty() ? "" : directory_ + LastPart(volume.backing);
    std::string head;
    bool begun = backing == volume.backing;
    from_.core.storage.Download(volume.name, [&](std::string_view bytes) {
      MustBeWanted(reply_.Answered());
      done_ += bytes.size();
      TellNow();
      if (begun) {
        sink(bytes);
        return;
      }
      head += bytes;
      if (head.size() < kHead) return;
      begun = true;
      sink(WithBacking(head.substr(0, kHead), backing));
      sink(std::string_view(head).substr(kHead));
    });
    if (!begun) sink(WithBacking(head, backing));
  }

  void CopyOne(const Volume& volume) {
    if (there_.count(volume.name) != 0) {
      if (Same(volume)) return;
      // One of its own from long ago goes, unless a clone over there needs it.
      if (UuidIn(volume.name) != uuid_ ||
          before_->Unneeded({volume.name}).empty()) {
        const bool image = volume.name.starts_with(kImageVolume);
        throw Error(
            EEXIST,
            fmt::format(
                "{}: over there is another {} '{}', which differs from "
                "what its disk stands on; rename one of the two",
                what_, image ? "image" : "volume",
                image ? volume.name.substr(kImageVolume.size()) : volume.name));
      }
      to_.core.storage.Delete(volume.name);
    }
    to_.core.storage.Create(volume.name, "raw", volume.size);
    made_.insert(volume.name);
    if (volume.size == 0) return;
    const auto upload = to_.core.storage.Upload(volume.name);
    Bytes(volume, [&](std::string_view bytes) { upload->Send(bytes); });
    upload->Finish();
  }

  // What a running guest writes to: its migration fills it.
  void MakeTop(const Volume& volume) {
    const std::string below = LastPart(volume.backing);
    const std::string format =
        below.empty() ? "" : from_.core.storage.Get(below).format;
    to_.core.storage.Delete(volume.name);
    to_.core.storage.Create(volume.name, volume.format, volume.capacity,
                            below.empty() ? "" : directory_ + below, format);
    made_.insert(volume.name);
  }

  // Frozen layers and images of one name are one, unless somebody made two.
  bool Same(const Volume& volume) {
    if (there_.at(volume.name).size != volume.size) return false;
    Digest here, over_there;
    Bytes(volume, [&](std::string_view bytes) { here.Add(bytes); });
    to_.core.storage.Download(
        volume.name, [&](std::string_view bytes) { over_there.Add(bytes); });
    return here.Take() == over_there.Take();
  }

  // XML with the volumes' paths as they are over there.
  [[nodiscard]] std::string Translated(std::string xml) const {
    const std::string& from = parts_.directory;
    for (size_t at = 0; (at = xml.find(from, at)) != xml.npos;) {
      xml.replace(at, from.size(), directory_);
      at += directory_.size();
    }
    return xml;
  }

  // A crash in the middle of a move left it in the trash over there.
  void ForgetBrokenOff() {
    const SandboxPtr other = to_.core.catalog.Get(uuid_);
    if (other == nullptr) return;
    if (!other->trashed) {
      throw Error(
          EEXIST,
          fmt::format("{}: it is there too, since a move was broken off "
                      "at its very end; mount each of the two by itself, "
                      "look which is the good one, and rmdir the other",
                      what_));
    }
    to_.provision.Leave(
        uuid_, !shared_ && !to_.core.Meta(uuid_, what_).borrowed, what_);
  }

  // Volumes that no definition or snapshot names are swept. Until all is there
  // it lies in the trash, which is where a crash leaves it.
  void Claim() {
    Metadata meta = from_.core.Meta(uuid_, what_);
    meta.trashed_name = parts_.name;
    meta.trashed = std::chrono::system_clock::now();
    meta.pool = to_.core.options.pool;
    meta.borrowed = shared_;
    const ConnPtr conn = to_.core.connection.Get(what_);
    const DomainPtr domain(virDomainDefineXML(
        conn.get(), DomainOnLayer(Translated(parts_.xml), meta).c_str()));
    if (domain == nullptr) ThrowLibvirt(what_);
    defined_ = true;
    std::vector<Layer> records = parts_.records;
    for (Layer& record : records) record.text = Translated(record.text);
    RestoreRecords(domain.get(), records, what_);
  }

  // libvirt migrates no domain with snapshots: their records go along in our
  // metadata, which also keep their layers from being swept.
  void TakeRecordsOff() {
    if (parts_.records.empty()) return;
    std::set<std::string> kept;
    for (const auto& record : parts_.records)
      kept.merge(VolumesIn(record.text));
    from_.core.ChangeMeta(uuid_, what_, [&](Metadata& meta) {
      meta.records = PackLayers(parts_.records);
      meta.keeps = fmt::format("{}", fmt::join(kept, " "));
    });
    ForgetRecords(from_.core.Domain(uuid_, what_).get(), what_);
  }

  void Migrate() {
    to_.core.Read(uuid_);
    const auto networks = to_.provision.networks().Hold(uuid_, what_);
    TakeRecordsOff();
    Tell("moving its memory and its disk's last layer");
    const ConnPtr target = to_.core.connection.Own(what_);
    const DomainPtr domain = from_.core.Domain(uuid_, what_);
    const MoveWay way(from_.core, to_.core, what_);
    MigrationParams params;
    Describe(domain.get(), way, params);
    unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PERSIST_DEST |
                     VIR_MIGRATE_UNDEFINE_SOURCE;
    // libvirt knows shared storage by the names of file systems. That this is
    // one has been seen, and QEMU drops its cache of it (drop-cache of
    // BlockdevOptionsFile).
    flags |= shared_ ? VIR_MIGRATE_UNSAFE : VIR_MIGRATE_NON_SHARED_INC;
    auto moving = std::async(std::launch::async, [&]() -> std::optional<Error> {
      const DomainPtr moved(
          virDomainMigrate3(domain.get(), target.get(), params.list,
                            static_cast<unsigned>(params.count), flags));
      if (moved != nullptr) return std::nullopt;
      return LibvirtError(what_);
    });
    while (moving.wait_for(kTellPause) != std::future_status::ready) {
      virDomainJobInfo job{};
      if (virDomainGetJobInfo(domain.get(), &job) < 0 || job.dataTotal == 0) {
        continue;
      }
      Tell(fmt::format("moving the running guest: {} of {} MiB",
                       job.dataProcessed >> 20, job.dataTotal >> 20));
    }
    if (const auto failure = moving.get()) throw *failure;
  }

  void Describe(virDomainPtr domain, const MoveWay& way,
                MigrationParams& params) const {
    params.Add(VIR_MIGRATE_PARAM_URI, way.uri);
    params.Add(VIR_MIGRATE_PARAM_LISTEN_ADDRESS, way.listen_address);
    if (way.disks_port != 0 && !shared_) {
      virTypedParamsAddInt(&params.list, &params.count, &params.room,
                           VIR_MIGRATE_PARAM_DISKS_PORT, way.disks_port);
    }
    if (shared_) return;
    const auto there = [&](unsigned flags) {
      const std::string xml = Translated(TakeString(virDomainGetXMLDesc(
          domain, flags | VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_SECURE)));
      if (xml.empty()) ThrowLibvirt(what_);
      return WithOwnMemory(
          DomainOnFile(xml, directory_ + ParseDomain(xml).disk));
    };
    // libvirt looks whether the disk that it is to fill is there before it
    // looks volumes up, and so takes one that is not given by its path for
    // missing (qemuMigrationDstPrecreateStorage). In both definitions: a
    // snapshot changes the second only if it has the disk of the first.
    params.Add(VIR_MIGRATE_PARAM_DEST_XML, there(0));
    params.Add(VIR_MIGRATE_PARAM_PERSIST_XML, there(VIR_DOMAIN_XML_INACTIVE));
  }

  void Show() {
    to_.core.ChangeMeta(uuid_, what_, [](Metadata& meta) {
      meta.trashed_name.clear();
      meta.trashed = {};
      meta.records.clear();
      meta.keeps.clear();
      meta.borrowed = false;
      // Its next start makes the definition anew, as this hypervisor has it.
      meta.defined.clear();
    });
    const DomainPtr domain = to_.core.Domain(uuid_, what_);
    if (parts_.autostart && virDomainSetAutostart(domain.get(), 1) < 0) {
      ThrowLibvirt(what_);
    }
    to_.core.Read(uuid_);
  }

  void TakeBack() {
    Tell("");
    if (defined_) {
      const DomainPtr domain = to_.core.Domain(uuid_, what_);
      if (virDomainUndefineFlags(domain.get(),
                                 VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                                     VIR_DOMAIN_UNDEFINE_KEEP_NVRAM) < 0) {
        ThrowLibvirt(what_);
      }
      to_.core.ReadSoon(uuid_);
    }
    // Overlays before what they stand on.
    for (auto one = parts_.volumes.rbegin(); one != parts_.volumes.rend();
         ++one) {
      if (made_.count(one->name) != 0) to_.core.storage.Delete(one->name);
    }
  }

  const MoveEnd from_, to_;
  const std::string uuid_, what_;
  const Reply<Done> reply_;
  Parts parts_;
  std::optional<Uses> before_;  // what is needed over there
  std::map<std::string, Volume> there_;
  std::set<std::string> made_;
  std::string directory_;  // that paths over there begin with
  uint64_t done_ = 0, all_ = 0;
  bool live_ = false;
  bool shared_ = false;  // the two have one pool
  bool defined_ = false;
  std::chrono::steady_clock::time_point told_;
};

}  // namespace

void MoveSandbox(const MoveEnd& from, const MoveEnd& to,
                 const std::string& uuid, const std::string& what,
                 const Reply<Done>& reply) {
  if (from.core.test_driver || to.core.test_driver) {
    throw Error(EOPNOTSUPP, what + ": the test driver has no disks");
  }
  Mover(from, to, uuid, what, reply).Run();
}

// The name lies behind the header's extensions, with nothing after it in the
// first cluster (QEMU's docs/interop/qcow2.txt).
std::string WithBacking(std::string head, const std::string& backing) {
  constexpr size_t kLongest = 1023;
  const auto refuse = [](std::string_view why) {
    return Error(EIO, fmt::format("Cannot rename what a disk stands on: {}; "
                                  "give both hypervisors' pools one path",
                                  why));
  };
  if (head.size() < 20 || head.substr(0, 4) != "QFI\xfb") {
    throw refuse("it is no qcow2");
  }
  const auto offset = BigEndian<uint64_t>(head, 8);
  const auto length = BigEndian<uint32_t>(head, 16);
  if (offset == 0 || offset > head.size() || length > head.size() - offset) {
    throw refuse("its header names none");
  }
  if (backing.size() > kLongest || backing.size() > head.size() - offset) {
    throw refuse("the new name is too long");
  }
  const size_t room = std::max<size_t>(length, backing.size());
  head.replace(offset, room, backing + std::string(room - backing.size(), 0));
  for (size_t i = 0; i < 4; ++i) {
    head[16 + i] = static_cast<char>(backing.size() >> (24 - 8 * i) & 0xff);
  }
  return head;
}

}  // namespace sbxfs
