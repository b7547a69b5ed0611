#include "backend/clones.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/foreign_disk.h"
#include "backend/libvirt_error.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/util/undo.h"
#include "backend/warm_xml.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// The settings that the clone cannot share with what it is made from.
std::string ConfigForClone(std::string config, const std::string& uuid,
                           const std::string& name) {
  for (const char* key :
       {"additionalDisks", "mounts", "portForwards", "ssh.localPort"}) {
    config = SetKey(config, key, "");
  }
  return RenewMacs(config, [&](std::size_t index) {
    return MacFor(fmt::format("{}/{}/{}", uuid, name, index));
  });
}

Error HoldsSecrets(const std::string& what) {
  return Error(EPERM,
               what +
                   ": it holds secrets, which the clone would have with its "
                   "memory; add a ! to the name to have them there too, or "
                   "set warm to false for a clone of the disk alone");
}

}  // namespace

void Clones::Make(const Caller& caller, const std::string& uuid,
                  const std::string& tag, const std::string& word, mode_t mode,
                  Reply<SandboxPtr> reply) {
  core_.workers.Run([this, caller, uuid, tag, word, mode, reply] {
    const bool with_secrets = word.ends_with('!');
    const std::string name =
        word.substr(0, word.size() - (with_secrets ? 1 : 0));
    const std::string source = core_.NameOf(uuid);
    const std::string what =
        tag.empty() ? fmt::format("Cannot clone '{}' to '{}'", source, name)
                    : fmt::format("Cannot clone '{}' at '{}' to '{}'", source,
                                  tag, name);
    reply.Guard(what, [&] {
      (void)core_.Reachable(uuid, what);
      const Turns::Turn turn = core_.Turn(uuid, what);
      reply.Ok(
          MakeNow(caller, uuid, tag, name, with_secrets, mode, what, reply));
    });
  });
}

SandboxPtr Clones::MakeNow(const Caller& caller, const std::string& uuid,
                           const std::string& tag, const std::string& name,
                           bool with_secrets, mode_t mode,
                           const std::string& what,
                           const Reply<SandboxPtr>& reply) {
  core_.Read(uuid);
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  if (!sandbox->ours)
    return MakeCopy(caller, *sandbox, name, mode, what, reply);
  const Metadata source = core_.Meta(uuid, what);
  const auto facts = core_.Facts(uuid);
  Provision::Origin origin;
  origin.uuid = uuid;
  origin.uefi = facts && facts->uefi;
  origin.user = source.user;
  origin.image = source.image;
  origin.authorized_keys = source.authorized_keys;
  origin.config = source.config;
  origin.bases = source.bases;
  const std::string record = fmt::format("~clone.{}", name);
  Undo undo;
  for (const auto& secret : sandbox->secrets) {
    origin.secrets += (origin.secrets.empty() ? "" : " ") + secret;
  }
  if (tag.empty()) {
    undo.Add([this, uuid, record, what] {
      snapshots_.TakeBack(uuid, record, what);
    });
    const bool memory =
        TakesMemory(*sandbox, core_.SpecOf(source), with_secrets, what);
    const Frozen frozen = FreezeNow(uuid, record, memory, what);
    origin.layer = frozen.layer;
    origin.memory = frozen.memory;
    // Of a clone that was not started yet it has what its source held.
    if (!memory && !origin.memory.empty()) {
      origin.secrets = source.origin_secrets;
    }
    if (!origin.memory.empty() && !origin.secrets.empty() && !with_secrets) {
      throw HoldsSecrets(what);
    }
  } else {
    const SnapshotFacts target = snapshots_.Target(uuid, tag, what);
    origin.layer = target.layer;
    if (snapshots_.HasMemory(target)) {
      origin.memory = LastPart(target.memory_file);
    }
    if (target.metadata) {
      origin.config = target.metadata->config;
      origin.bases = target.metadata->bases;
    }
  }
  origin.config = ConfigForClone(origin.config, uuid, name);
  // Another mount may have dropped it meanwhile: it looks for what stands on
  // it after it forgot the snapshot, we look for the snapshot after we stand.
  origin.check = [this, uuid, tag, layer = origin.layer, what] {
    if (!tag.empty()) (void)snapshots_.Target(uuid, tag, what);
    if (core_.storage.Has(layer)) return;
    throw Error(ENOENT, what + ": what it would stand on is gone just now");
  };
  return provision_.CreateFrom(caller, name, origin, mode, reply);
}

SandboxPtr Clones::MakeCopy(const Caller& caller, const Sandbox& source,
                            const std::string& name, mode_t mode,
                            const std::string& what,
                            const Reply<SandboxPtr>& reply) {
  if (core_.test_driver) {
    throw Error(EOPNOTSUPP, what + ": the test driver has no disks");
  }
  const bool runs =
      source.state == State::kRunning || source.state == State::kPaused;
  if (!IsOff(source.state) && !runs) {
    throw Error(EBUSY,
                fmt::format("{}: it is {}, and its disk is copied as a whole; "
                            "start or stop it first",
                            what, StateName(source.state)));
  }
  const ConnPtr connection = core_.connection.Get(what);
  const DomainPtr domain = core_.Domain(source.uuid, what);
  Provision::Origin origin;
  uint64_t capacity = 0;
  VolumePtr disk;
  if (runs) {
    const std::string target = ForeignTarget(source.domain_xml.Text(), what);
    virDomainBlockInfo info{};
    if (virDomainGetBlockInfo(domain.get(), target.c_str(), &info, 0) < 0) {
      ThrowLibvirt(what);
    }
    capacity = info.capacity;
    origin.copy = [&, target, capacity](const std::string& volume) {
      core_.storage.Create(volume, "qcow2", capacity);
      BackUpDisk(
          domain.get(), target, core_.storage.Path(volume),
          source.state == State::kRunning && HasAgent(source.domain_xml.Text()),
          what);
    };
  } else {
    disk = ForeignDisk(connection.get(), source.domain_xml.Text(), what);
    virStorageVolInfo info{};
    if (virStorageVolGetInfo(disk.get(), &info) < 0) ThrowLibvirt(what);
    capacity = info.capacity;
    origin.copy = [&](const std::string& volume) {
      core_.storage.CreateFrom(volume, "qcow2", connection.get(), disk.get());
    };
  }
  const auto facts = core_.Facts(source.uuid);
  origin.uuid = source.uuid;
  origin.user = GuestUser(caller.uid);
  origin.uefi = facts && facts->uefi;
  origin.config = fmt::format(
      "# A copy of the disk of '{}', which sbxfs did not make.\n"
      "cpus: {}\nmemory: {}\ndisk: {}\n",
      source.name, source.cpus, FormatSize(source.memory),
      FormatSize(capacity));
  origin.check = [] {};
  return provision_.CreateFrom(caller, name, origin, mode, reply);
}

bool Clones::TakesMemory(const Sandbox& source, const Spec& spec,
                         bool with_secrets, const std::string& what) const {
  if (core_.test_driver || core_.options.no_warm || !spec.warm) return false;
  const bool runs =
      source.state == State::kRunning || source.state == State::kPaused;
  if (!runs || !source.ready || !source.mounts.empty() ||
      !WhyNoFork(source.domain_xml.Text()).empty()) {
    return false;
  }
  if (!source.secrets.empty() && !with_secrets) {
    throw HoldsSecrets(what);
  }
  return true;
}

Clones::Frozen Clones::FreezeNow(const std::string& uuid,
                                 const std::string& record, bool memory,
                                 const std::string& what) {
  snapshots_.Repair(uuid);
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  const Metadata meta = core_.Meta(uuid, what);
  if (IsOff(sandbox->state) && !meta.disk_volume.empty()) {
    // Many clones of one that rests stand on one layer of it.
    const Volume top = core_.storage.Get(meta.disk_volume);
    const std::string below = LastPart(top.backing);
    if (IsUntouched(top) && !UuidIn(below).empty()) {
      // Of a clone that was not started yet, what it would go on from.
      const bool pristine = !meta.booted && below == meta.origin_layer;
      return {below, pristine ? meta.origin_memory : ""};
    }
  }
  Undo shown;
  if (memory) {
    core_.catalog.Change(uuid, [](Catalog::Overlay& overlay) {
      overlay.progress = "keeping its memory for a clone";
    });
    shown.Add([this, uuid] {
      core_.catalog.Change(
          uuid, [](Catalog::Overlay& overlay) { overlay.progress.clear(); });
    });
  }
  snapshots_.TakeOwn(uuid, record, what, /*quiesced=*/false, memory);
  const auto all = core_.SnapshotsOf(uuid);
  const auto found = std::find_if(
      all.begin(), all.end(),
      [&](const SnapshotFacts& one) { return one.name == record; });
  if (found == all.end()) {
    throw Error(EIO, what + ": libvirt lost the snapshot for it again");
  }
  return {found->layer, memory ? LastPart(found->memory_file) : ""};
}

void Clones::DropRecord(const std::string& uuid, const std::string& record,
                        const std::string& what) {
  const Turns::Turn turn = core_.turns.Take(uuid, what, 30s);
  core_.Read(uuid);
  snapshots_.TakeBack(uuid, record, what);
}

void Clones::Commit(const std::string& uuid, const std::string& image,
                    Reply<Done> reply) {
  core_.workers.Run([this, uuid, image, reply] {
    const std::string what = fmt::format("Cannot commit '{}' as image '{}'",
                                         core_.NameOf(uuid), image);
    reply.Guard(what, [&] {
      CommitNow(uuid, image, what);
      reply.Ok();
    });
  });
}

// The copying takes as long as the disk is large, so that nothing is held up
// by it: it reads a frozen layer, while the sandbox goes on.
void Clones::CommitNow(const std::string& uuid, const std::string& image,
                       const std::string& what) {
  (void)core_.Reachable(uuid, what);
  const std::string record = fmt::format("~commit.{}", image);
  images_.Adopt(image, [&](const std::string& volume) {
    std::string layer;
    {
      const Turns::Turn turn = core_.Turn(uuid, what);
      core_.Read(uuid);
      layer = FreezeNow(uuid, record, /*memory=*/false, what).layer;
    }
    Undo undo;
    undo.Add([&] { DropRecord(uuid, record, what); });
    core_.storage.CreateFrom(volume, "qcow2", layer);
  });
}

}  // namespace sbxfs
