// Provision's part for what takes a sandbox's name or the whole of it away, and
// for giving back what was begun: rmdir, mv, the trash, undoing.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/libvirt_error.h"
#include "backend/provision.h"
#include "backend/run_dir.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using SystemClock = std::chrono::system_clock;

void MustBeOff(const Sandbox& sandbox, std::string_view what) {
  if (IsOff(sandbox.state)) return;
  const bool saved = sandbox.state == State::kSaved;
  if (sandbox.trashed) {
    throw Error(
        EBUSY,
        fmt::format("{}: it is {}, which somebody did to it in the "
                    "trash; 'virsh {} {}' undoes that",
                    what, StateName(sandbox.state),
                    saved ? "managedsave-remove" : "destroy", sandbox.uuid));
  }
  if (saved) {
    throw Error(EBUSY, fmt::format("{}: its memory is saved; start it, or "
                                   "write kill to its status to drop that",
                                   what));
  }
  throw Error(EBUSY, fmt::format("{}: it is {}; write stop to its status first",
                                 what, StateName(sandbox.state)));
}

void MustBeOurs(const Sandbox& sandbox, std::string_view what) {
  if (sandbox.ours) return;
  throw Error(EPERM,
              fmt::format("{}: it was not made by sbxfs; use virsh", what));
}

void MustBeUnprotected(const Sandbox& sandbox, std::string_view what) {
  if ((sandbox.mode & 0222) != 0) return;
  throw Error(EPERM, fmt::format("{}: it is protected; chmod u+w '{}' first",
                                 what, sandbox.name));
}

// The disk of a template that was dropped, where a sandbox that goes stands on
// one: it may be the last.
std::string LeftTemplate(Core& core, const std::string& uuid,
                         const Metadata& meta) {
  std::string below = meta.disk_volume;
  try {
    while (IsLayerOf(below, uuid)) {
      below = LastPart(core.storage.Get(below).backing);
    }
  } catch (const Error& error) {
    if (error.Errno() != ENOENT) throw;
    return "";
  }
  const std::string owner = UuidIn(below);
  if (owner.empty() || !IsLayerOf(below, owner) || below == meta.origin_layer) {
    return "";
  }
  const std::string number =
      below.substr(owner.size() + std::string_view(".disk").size());
  return core.storage.Has(owner + ".warm" + number) ? "" : below;
}

}  // namespace

void Provision::Remove(const Caller&, const std::string& uuid,
                       Reply<Done> reply) {
  core_.Work(uuid, fmt::format("Cannot remove '{}'", core_.NameOf(uuid)), reply,
             [this, uuid, reply] { RemoveNow(uuid, reply); });
}

void Provision::RemoveNow(const std::string& uuid, const Reply<Done>& reply) {
  core_.Read(uuid);
  const std::string name = core_.NameOf(uuid);
  const std::string what = fmt::format("Cannot remove '{}'", name);
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  MustBeOurs(*sandbox, what);
  MustBeUnprotected(*sandbox, what);
  MustBeOff(*sandbox, what);
  const DomainPtr domain = core_.Domain(uuid, what);
  const Metadata before = core_.Meta(uuid, what);
  Undo undo;
  undo.Add([this, uuid, name, before] {
    Insist(uuid, [this, uuid, name, before] { PutBack(uuid, name, before); });
  });
  // All mounts shall know it by one name.
  const std::string trashed = core_.catalog.FreeInTrash(name);
  core_.ChangeMeta(uuid, what, [&](Metadata& meta) {
    meta.trashed_name = trashed;
    meta.trashed = SystemClock::now();
  });
  // The name is free from now on, whatever becomes of the rest; '~' is in no
  // sandbox's name.
  const std::string hidden = fmt::format("{}~{}", name, uuid.substr(0, 8));
  if (virDomainRename(domain.get(), hidden.c_str(), 0) < 0) ThrowLibvirt(what);
  if (!core_.test_driver) virDomainSetAutostart(domain.get(), 0);
  core_.Read(uuid);
  MustBeWanted(reply.Answered());
  undo.Keep();
  if (core_.options.trash.count() == 0) PurgeNow(uuid, what, {});
}

void Provision::PutBack(const std::string& uuid, const std::string& name,
                        const Metadata& before) {
  const std::string what = fmt::format("Cannot put '{}' back", name);
  const DomainPtr domain = core_.Domain(uuid, what);
  if (virDomainGetName(domain.get()) != name &&
      virDomainRename(domain.get(), name.c_str(), 0) < 0) {
    ThrowLibvirt(what);
  }
  core_.ChangeMeta(uuid, what, [&before](Metadata& meta) {
    meta.trashed_name = before.trashed_name;
    meta.trashed = before.trashed;
  });
  SetAutostart(domain.get(), before);
  core_.ReadDone(uuid);
}

void Provision::SetAutostart(virDomainPtr domain, const Metadata& meta) {
  if (core_.test_driver) return;
  const bool on = meta.trashed_name.empty() && core_.SpecOf(meta).autostart;
  virDomainSetAutostart(domain, on ? 1 : 0);
}

void Provision::Purge(const std::string& uuid, Reply<Done> reply) {
  const std::string what =
      fmt::format("Cannot remove '{}'", core_.NameOf(uuid));
  core_.Work(uuid, what, reply,
             [this, uuid, what, reply] { PurgeNow(uuid, what, reply); });
}

// Volumes first: what fails leaves a domain in the trash that names them, and
// the same call again goes on where this one ended.
void Provision::PurgeNow(const std::string& uuid, const std::string& what,
                         const Reply<Done>& reply) {
  core_.Read(uuid);
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  MustBeOurs(*sandbox, what);
  if (sandbox->state != State::kSaved) MustBeOff(*sandbox, what);
  const DomainPtr domain = core_.Domain(uuid, what);
  MustBeWanted(reply.Answered());  // there is no way back from here
  const Metadata meta = core_.Meta(uuid, what);
  const bool borrowed = meta.borrowed;
  const std::string left = borrowed ? "" : LeftTemplate(core_, uuid, meta);
  if (!borrowed) layers_.DropAll(uuid);
  unsigned flags =
      VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
  if (!core_.test_driver) {
    flags |= (borrowed ? VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
                       : VIR_DOMAIN_UNDEFINE_NVRAM) |
             VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
  }
  if (virDomainUndefineFlags(domain.get(), flags) < 0) ThrowLibvirt(what);
  core_.ReadDone(uuid);
  if (core_.test_driver) return;
  RemoveRunDirectory(uuid);
  if (borrowed) return;
  // A clone may have been the last to need a layer of one that is gone.
  const std::string& below = sandbox->origin_layer;
  if (!below.empty() && UuidIn(below) != uuid) {
    std::set<std::string> needed = {below};
    if (IsMemoryOf(meta.origin_memory, UuidIn(below))) {
      needed.merge(ForkVolumes(meta.origin_memory));
    }
    layers_.DropNow(UuidIn(below), std::move(needed));
  }
  if (!left.empty()) layers_.DropNow(UuidIn(left), {left});
  core_.on_volumes();
}

void Provision::Leave(const std::string& uuid, bool with_volumes,
                      const std::string& what) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  try {
    const DomainPtr domain = core_.Domain(uuid, what);
    if (virDomainUndefineFlags(
            domain.get(), VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                              VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA |
                              (with_volumes ? VIR_DOMAIN_UNDEFINE_NVRAM
                                            : VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)) <
        0) {
      ThrowLibvirt(what);
    }
  } catch (const Error& error) {
    // A migration has undefined it.
    if (error.Errno() != ENOENT) throw;
  }
  try {
    core_.ReadDone(uuid);
    if (!with_volumes) return;
    layers_.DropAll(uuid);
    const std::string below = sandbox ? sandbox->origin_layer : "";
    if (!below.empty() && UuidIn(below) != uuid) {
      layers_.DropNow(UuidIn(below), {below});
    }
    core_.on_volumes();
  } catch (const Error& error) {
    spdlog::warn("{}", error.Sentence());
  }
}

void Provision::Expire(const std::string& uuid) {
  const std::string what =
      fmt::format("Cannot empty the trash of '{}'", core_.NameOf(uuid));
  const Turns::Turn turn = core_.Turn(uuid, what);
  PurgeNow(uuid, what, {});
}

void Provision::Rename(const std::string& uuid, const std::string& name,
                       Reply<Done> reply) {
  const std::string what =
      fmt::format("Cannot rename '{}' to '{}'", core_.NameOf(uuid), name);
  core_.Work(uuid, what, reply, [this, uuid, name, what, reply] {
    core_.Read(uuid);
    const SandboxPtr sandbox = core_.Reachable(uuid, what);
    MustBeOurs(*sandbox, what);
    MustBeUnprotected(*sandbox, what);
    MustBeOff(*sandbox, what);
    CheckName(uuid, name, what);
    const DomainPtr domain = core_.Domain(uuid, what);
    const std::string old = virDomainGetName(domain.get());
    Metadata meta = core_.Meta(uuid, what);
    Undo undo;
    undo.Add([this, uuid, old, meta] {
      Insist(uuid, [this, uuid, old, meta] { PutBack(uuid, old, meta); });
    });
    if (virDomainRename(domain.get(), name.c_str(), 0) < 0) {
      ThrowLibvirt(what);
    }
    meta.trashed_name.clear();
    meta.trashed = Time();
    core_.ChangeMeta(uuid, what, [&meta](Metadata& changed) {
      changed.trashed_name = meta.trashed_name;
      changed.trashed = meta.trashed;
    });
    SetAutostart(domain.get(), meta);
    core_.Read(uuid);
    MustBeWanted(reply.Answered());
    undo.Keep();
  });
}

void Provision::Insist(const std::string& uuid, std::function<void()> step) {
  const uint64_t number = core_.Works(uuid);
  try {
    step();
  } catch (const Error& error) {
    spdlog::warn("Undoing: {}; trying again", error.Sentence());
    InsistAgain(uuid, std::move(step), number, 1s, false);
  }
}

void Provision::InsistAgain(const std::string& uuid, std::function<void()> step,
                            uint64_t number, std::chrono::milliseconds pause,
                            bool last) {
  auto again = [this, uuid, step = std::move(step), number, pause, last] {
    try {
      const Turns::Turn turn = core_.Turn(uuid, "Cannot undo");
      if (core_.Works(uuid) != number) return;
      step();
      // A libvirtd that hung may do now what it was asked before the
      // connection ended.
      if (!last) InsistAgain(uuid, step, number, 5s, true);
    } catch (const Error& error) {
      spdlog::debug("Undoing: {}; trying again", error.Sentence());
      InsistAgain(uuid, step, number,
                  std::min<std::chrono::milliseconds>(pause * 2, 30s), false);
    }
  };
  core_.timer.After(
      pause, [this, again = std::move(again)] { core_.workers.Run(again); });
}

void Provision::TakeBack(const std::string& uuid) {
  const std::string what = "Cannot undo the making of " + uuid;
  try {
    const DomainPtr domain = core_.Domain(uuid, what);
    if (virDomainUndefineFlags(
            domain.get(), core_.test_driver ? 0 : VIR_DOMAIN_UNDEFINE_NVRAM) <
        0) {
      ThrowLibvirt(what);
    }
    core_.ReadSoon(uuid);
  } catch (const Error& error) {
    if (error.Errno() != ENOENT) throw;
  }
  layers_.DropAll(uuid);
}

}  // namespace sbxfs
