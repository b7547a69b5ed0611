#include "backend/live_machine.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <atomic>
#include <chrono>

#include "backend/chain_pull.h"
#include "backend/disk_names.h"
#include "backend/guest_shell.h"
#include "backend/libvirt_error.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr char kCannotChange[] = "Cannot change the running guest";
// For a guest to follow.
constexpr auto kPlugPatience = 10s;

// What the hypervisor or the guest refuses waits for the next start.
bool Took(int result) {
  if (result >= 0) return true;
  const Error error = LibvirtError(kCannotChange);
  if (error.Errno() == EHOSTDOWN) throw error;
  spdlog::debug("{}", error.Sentence());
  return false;
}

// Plugged processors are there for ACPI, but not every system takes them into
// use by itself.
void BringOnline(Core& core, const std::string& uuid, unsigned count) {
  const ShellResult result = RunInGuest(
      core, uuid,
      fmt::format("s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; $s sh -c '"
                  "n=0; until [ $(getconf _NPROCESSORS_ONLN) -ge {} ] || "
                  "[ $((n += 1)) -gt 50 ]; do "
                  "for cpu in /sys/devices/system/cpu/cpu*/online; do "
                  "grep -q 1 $cpu || echo 1 >$cpu; done; sleep 0.1; done'",
                  count),
      "", 2 * kPlugPatience);
  if (result.status != 0) {
    spdlog::debug("the guest takes no processors into use: status {}",
                  result.status);
  }
}

bool SetCpus(virDomainPtr domain, const Sandbox& sandbox,
             const DomainFacts& facts, unsigned wanted) {
  // The guest has its part in it, which one that boots would miss.
  if (wanted == facts.cpus || wanted > facts.max_cpus || !sandbox.ready) {
    return false;
  }
  // An emulated guest that starts one more is reset by it now and then: on a
  // busy machine one in twenty lost what it was doing (QEMU 7.2, Linux 6.1).
  // And of one that is taken away libvirt is never told that it went.
  if (facts.type != "kvm") return false;
  return Took(virDomainSetVcpusFlags(
      domain, wanted, VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG));
}

bool SetMemory(virDomainPtr domain, const DomainFacts& facts, uint64_t wanted) {
  if (SameMemory(wanted, facts.memory) || wanted > facts.max_memory) {
    return false;
  }
  return Took(virDomainSetMemoryFlags(
      domain, wanted / 1024,
      VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG));
}

// Makes the root file system as large as its disk, by what the guest has for
// it: Debian's cloud images have growpart, ours has sfdisk. growpart's status 1
// says that there was nothing to do.
constexpr char kGrow[] = R"sh(
s=; [ "$(id -u)" = 0 ] || s='sudo -n'
$s sh -c '
set -e
root=$(findmnt -nvo SOURCE /)
part=/sys/class/block/${root#/dev/}
if [ -e "$part/partition" ]; then
  number=$(cat "$part/partition")
  disk=/dev/$(basename "$(readlink -f "$part/..")")
  if command -v growpart >/dev/null; then
    growpart "$disk" "$number" || [ $? = 1 ]
  else
    echo ", +" | sfdisk --no-reread --force -q -N "$number" "$disk"
    partx -u --nr "$number" "$disk"
  fi
fi
case $(findmnt -nvo FSTYPE /) in
  ext*) resize2fs "$root" ;;
  xfs) xfs_growfs / ;;
  btrfs) btrfs filesystem resize max / ;;
  *) exit 1 ;;
esac'
)sh";

// The snapshots' turn is held: a layer is not frozen in the middle.
void GrowDisk(Core& core, virDomainPtr domain, const Sandbox& sandbox,
              uint64_t wanted) {
  const std::string& uuid = sandbox.uuid;
  virDomainBlockInfo info;
  if (!sandbox.ready ||
      !Took(virDomainGetBlockInfo(domain, kRootDisk, &info, 0)) ||
      wanted < info.capacity) {
    return;
  }
  const auto facts = core.Facts(uuid);
  const std::string xml = TakeString(virDomainGetXMLDesc(domain, 0));
  // As it was started with, or grown already.
  if (!facts || ParseRun(xml).disk == wanted ||
      core.AppliedSpec(*facts->metadata).disk == wanted) {
    return;
  }
  if (wanted > info.capacity) {
    const Turns::Turn turn = core.Turn(uuid, kCannotChange);
    EndPull(domain);
    if (!Took(virDomainBlockResize(domain, kRootDisk, wanted,
                                   VIR_DOMAIN_BLOCK_RESIZE_BYTES))) {
      return;
    }
  }
  const ShellResult result =
      RunInGuest(core, uuid, kGrow, "", 6 * kPlugPatience);
  if (result.status != 0) {
    spdlog::debug("the guest does not grow its file system: status {}",
                  result.status);
    return;
  }
  core.ChangeRun(uuid, [&](RunInfo& run) { run.disk = wanted; });
}

}  // namespace

void ChangeMachine(Core& core, const std::string& uuid) {
  const Turns::Turn turn = core.turns.Take(
      "machine " + uuid, "change the machine", 2 * kPlugPatience);
  core.Read(uuid);
  const SandboxPtr sandbox = core.catalog.Get(uuid);
  const auto facts = core.Facts(uuid);
  if (sandbox == nullptr || !facts || !sandbox->ours ||
      sandbox->state != State::kRunning) {
    return;
  }
  const Spec spec = core.SpecOf(*sandbox);
  const DomainPtr domain = core.Domain(uuid, kCannotChange);
  const bool memory = SetMemory(domain.get(), *facts, spec.memory);
  const bool cpus = SetCpus(domain.get(), *sandbox, *facts, spec.cpus);
  if (cpus || memory) {
    const Turns::Turn definition = core.Turn(uuid, kCannotChange);
    core.RenewDefined(uuid, kCannotChange, {"cpus", "memory"});
  }
  if (cpus && spec.cpus > facts->cpus) BringOnline(core, uuid, spec.cpus);
  GrowDisk(core, domain.get(), *sandbox, spec.disk);
  core.Read(uuid);
  if (!memory || !sandbox->ready) return;
  // The balloon's progress comes as events.
  const std::atomic<bool> never = false;
  core.catalog.WaitUntil(
      uuid,
      [&](const Sandbox* now) {
        const auto at = core.Facts(uuid);
        return now == nullptr || now->state != State::kRunning || !at ||
               SameMemory(at->memory, spec.memory);
      },
      std::chrono::steady_clock::now() + kPlugPatience, never);
}

}  // namespace sbxfs
