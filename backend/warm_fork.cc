// Warm's part for clones that go on from the memory of the guest that they were
// made from.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "backend/save_image.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/util/undo.h"
#include "backend/warm.h"
#include "backend/warm_split.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// For another that goes on from the same memory, and splits it.
constexpr auto kSplitPatience = 600s;

// Of the memory that it goes on from, as it was saved.
std::string SavedXmlOf(Core& core, const Metadata& meta,
                       const std::string& what) {
  const std::string& saved = meta.origin_memory;
  if (!core.storage.Has(saved)) throw Error(ENOENT, what + ": it is gone");
  const std::string header = core.storage.Read(saved, 0, kSaveHeader);
  return SavedXml(core.storage.Read(saved, 0, SaveHeadSize(header)));
}

}  // namespace

// A machine is as it was; its disk may be larger alone.
std::string Warm::WhyNotFork(std::string_view xml, const Metadata& meta,
                             const Spec& spec) {
  const DomainFacts was = ParseDomain(xml);
  if (!SameMemory(was.memory, spec.memory) || was.cpus != spec.cpus ||
      was.max_cpus != std::max(spec.max_cpus, spec.cpus)) {
    return fmt::format(
        "the memory to go on from is of a guest with cpus {} and memory {}",
        was.cpus, FormatSize(was.memory));
  }
  if (spec.disk > core_.storage.Get(meta.origin_layer).capacity) {
    return "its disk is larger than that of the memory to go on from";
  }
  return "";
}

Warm::Fit Warm::LookAtFork(const Metadata& meta, const Spec& spec) {
  constexpr char kWhat[] = "Cannot go on from the memory";
  Fit fit;
  const std::string state = ForkVolume(meta.origin_memory, "fork");
  try {
    if (!IsUntouched(core_.storage.Get(meta.disk_volume))) {
      fit.why = "its disk was written to";
      return fit;
    }
    {
      const Turns::Turn turn =
          core_.turns.Take("fork " + meta.origin_memory, kWhat, kSplitPatience);
      if (!core_.storage.Has(state)) {
        // It takes as long as writing the memory does.
        fit.why = WhyNotFork(SavedXmlOf(core_, meta, kWhat), meta, spec);
        if (!fit.why.empty()) return fit;
        SplitFork(meta, kWhat);
      }
    }
    const TemplatePtr found = Read(state);
    const std::string stale = WhyStale(found->note);
    fit.why = stale.empty() ? WhyNotFork(found->xml, meta, spec)
                            : "the memory to go on from " + stale;
    if (fit.why.empty()) fit.found = found;
  } catch (const Error& error) {
    if (error.Errno() == EHOSTDOWN) throw;
    fit.why = error.Sentence();
  }
  return fit;
}

void Warm::SplitFork(const Metadata& meta, const std::string& what) {
  const std::string& saved = meta.origin_memory;
  const std::string why = WhyNoFork(SavedXmlOf(core_, meta, what));
  if (!why.empty()) throw Error(EOPNOTSUPP, what + ": " + why);
  const std::string ram = ForkVolume(saved, "ram");
  const std::string state = ForkVolume(saved, "fork");
  // A daemon was killed in it; another mount that is at it now fails, and its
  // clone boots.
  core_.storage.Delete(ram);
  Undo undo;
  undo.Add([this, ram, state] {
    core_.storage.Delete(state);
    core_.storage.Delete(ram);
  });
  WarmNote note;
  note.hypervisor = Hypervisor();
  note.disk = meta.origin_layer;
  note.disk_stamp = StampOf(core_, note.disk);
  SplitSaved(
      core_, saved, ram, state, note,
      [this, &what] {
        if (stopping_) throw Error(ECANCELED, what + ": the mount ends");
      },
      what);
  undo.Keep();
  {
    // One of that name may have been here before.
    MutexLock lock(mutex_);
    read_.erase(state);
  }
  // The two have all of it, but for who goes back to a snapshot.
  for (const auto& one : core_.SnapshotsOf(UuidIn(saved))) {
    if (LastPart(one.memory_file) == saved) return;
  }
  core_.storage.Delete(saved);
}

void Warm::Unfork(const std::string& uuid, const std::string& what) {
  const std::string memory = core_.Meta(uuid, what).origin_memory;
  if (memory.empty()) return;
  core_.ChangeMeta(uuid, what, [](Metadata& meta) {
    meta.origin_memory.clear();
    meta.origin_secrets.clear();
  });
  {
    MutexLock lock(mutex_);
    read_.erase(ForkVolume(memory, "fork"));
  }
  layers_.DropSoon(UuidIn(memory), ForkVolumes(memory));
}

}  // namespace sbxfs
