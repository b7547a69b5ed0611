#include "backend/limits.h"

#include <fmt/format.h>

#include <cerrno>

#include "backend/forwards.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

// What a user's sandboxes take.
struct Taken {
  uint64_t sandboxes = 0, disk = 0, ports = 0, memory = 0;
};

bool IsLimited(Core& core, uid_t uid) {
  return uid != 0 && uid != core.catalog.GetHost()->uid;
}

// Each snapshot holds as much of a disk at most as the disk has room for.
uint64_t DiskOf(const Sandbox& sandbox, uint64_t disk) {
  return disk * (sandbox.snapshots.size() + 1);
}

Taken TakenBy(Core& core, const Sandbox& sandbox) {
  Taken taken{1, DiskOf(sandbox, sandbox.disk), 0,
              IsOn(sandbox.state) ? sandbox.memory : 0};
  if (const auto facts = core.Facts(sandbox.uuid)) {
    taken.ports = facts->forwards.size();
  }
  return taken;
}

// Of all of that user's but for `uuid`.
Taken TakenByOthers(Core& core, uid_t uid, const std::string& uuid) {
  Taken all;
  for (const auto& sandbox : core.catalog.All()) {
    if (!sandbox->ours || sandbox->uid != uid || sandbox->uuid == uuid) {
      continue;
    }
    const Taken one = TakenBy(core, *sandbox);
    all.sandboxes += one.sandboxes;
    all.disk += one.disk;
    all.ports += one.ports;
    all.memory += one.memory;
  }
  return all;
}

// `before`: what it takes now; `after`: what it would.
void Check(std::string_view option, uint64_t limit, uint64_t others,
           uint64_t before, uint64_t after, bool bytes, std::string_view advice,
           std::string_view what) {
  if (limit == 0 || after <= before || others + after <= limit) return;
  const auto text = [bytes](uint64_t number) {
    return bytes ? FormatSize(number) : fmt::to_string(number);
  };
  throw Error(EDQUOT,
              fmt::format("{}: the mount's {}={} is for all that a user has, "
                          "which is {} already, and this would make it {}; {}",
                          what, option, text(limit), text(others + before),
                          text(others + after), advice));
}

}  // namespace

void CheckSettings(Core& core, uid_t uid, const std::string& uuid,
                   const Spec& spec, int ssh_port, std::string_view what) {
  if (!IsLimited(core, uid)) return;
  const UserLimits& limits = core.options.limits;
  const Taken others = TakenByOthers(core, uid, uuid);
  const SandboxPtr sandbox = core.catalog.Get(uuid);
  const Taken before = sandbox == nullptr ? Taken() : TakenBy(core, *sandbox);
  Check("user_sandboxes", limits.sandboxes, others.sandboxes, before.sandboxes,
        1, false, "rmdir one, from .host/trash too", what);
  Check("user_disk", limits.disk, others.disk, before.disk,
        sandbox == nullptr ? spec.disk : DiskOf(*sandbox, spec.disk), true,
        "say a smaller disk, or rmdir sandboxes or snapshots", what);
  Check("user_ports", limits.ports, others.ports, before.ports,
        ForwardsOf(spec, ssh_port).size(), false, "rm some of ports/", what);
  if (sandbox != nullptr && IsOn(sandbox->state)) {
    CheckMemory(core, *sandbox, before.memory, spec.memory, what);
  }
}

void CheckMemory(Core& core, const Sandbox& sandbox, uint64_t before,
                 uint64_t memory, std::string_view what) {
  if (!IsLimited(core, sandbox.uid)) return;
  Check("user_memory", core.options.limits.memory,
        TakenByOthers(core, sandbox.uid, sandbox.uuid).memory, before, memory,
        true, "stop one, or say less memory", what);
}

void CheckSnapshot(Core& core, const Sandbox& sandbox, std::string_view what) {
  if (!IsLimited(core, sandbox.uid)) return;
  const uint64_t before = DiskOf(sandbox, sandbox.disk);
  Check("user_disk", core.options.limits.disk,
        TakenByOthers(core, sandbox.uid, sandbox.uuid).disk, before,
        before + sandbox.disk, true, "rmdir sandboxes or snapshots", what);
}

void CheckJobs(Core& core, const Sandbox& sandbox, size_t jobs,
               std::string_view what) {
  if (!IsLimited(core, sandbox.uid)) return;
  Check("user_jobs", core.options.limits.jobs, jobs, 0, 1, false,
        "rmdir some of exec/", what);
}

}  // namespace sbxfs
