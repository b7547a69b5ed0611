#include "backend/chain_pull.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>

#include "backend/disk_names.h"
#include "backend/libvirt_error.h"

namespace sbxfs {
namespace {

// The guest has the rest of the hypervisor's disk; MiB/s.
constexpr unsigned long kBandwidth = 100;

int JobOf(virDomainPtr domain, virDomainBlockJobInfo& job) {
  return virDomainGetBlockJobInfo(domain, kRootDisk, &job, 0);
}

}  // namespace

std::optional<ChainCut> CutOf(const Uses& uses, const std::string& top) {
  const Volume* above = uses.Find(top);
  ChainCut cut;
  while (above != nullptr && !above->backing.empty()) {
    const std::string below = LastPart(above->backing);
    const auto standing = std::count_if(
        uses.Volumes().begin(), uses.Volumes().end(),
        [&](const Volume& one) { return LastPart(one.backing) == below; });
    cut.base = below;
    if (UuidIn(below).empty() || uses.IsNamed(below) || standing != 1) break;
    cut.spare.insert(below);
    cut.base.clear();
    above = uses.Find(below);
  }
  if (cut.spare.empty()) return std::nullopt;
  return cut;
}

void BeginPull(virDomainPtr domain, const std::string& base,
               std::string_view what) {
  if (virDomainBlockRebase(domain, kRootDisk,
                           base.empty() ? nullptr : base.c_str(), kBandwidth,
                           0) < 0) {
    ThrowLibvirt(what);
  }
}

bool IsPulling(virDomainPtr domain, std::string_view what) {
  virDomainBlockJobInfo job;
  const int there = JobOf(domain, job);
  if (there < 0) ThrowLibvirt(what);
  return there == 1 && job.type == VIR_DOMAIN_BLOCK_JOB_TYPE_PULL;
}

void EndPull(virDomainPtr domain) {
  virDomainBlockJobInfo job;
  if (JobOf(domain, job) == 1 && job.type == VIR_DOMAIN_BLOCK_JOB_TYPE_PULL) {
    virDomainBlockJobAbort(domain, kRootDisk, 0);
  }
  virResetLastError();
}

}  // namespace sbxfs
