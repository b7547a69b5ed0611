#include "backend/domain_list.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <set>

#include "backend/libvirt_error.h"
#include "backend/snapshot_records.h"

namespace sbxfs {
namespace {

constexpr char kCannotAsk[] = "Cannot read a domain";

std::vector<DomainPtr> ListThose(virConnectPtr connection, unsigned flags) {
  virDomainPtr* raw = nullptr;
  const int count = virConnectListAllDomains(connection, &raw, flags);
  if (count < 0) ThrowLibvirt("Cannot list the domains");
  std::vector<DomainPtr> domains(raw, raw + count);
  std::free(raw);
  return domains;
}

std::set<std::string> UuidsOf(virConnectPtr connection, unsigned flags) {
  std::set<std::string> uuids;
  for (const auto& domain : ListThose(connection, flags)) {
    uuids.insert(UuidOf(domain.get()));
  }
  return uuids;
}

bool IsOffState(int state) {
  return state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_NOSTATE;
}

struct FreeStats {
  void operator()(virDomainStatsRecordPtr* stats) const {
    virDomainStatsRecordListFree(stats);
  }
};

// State and reason of all that are off, by uuid. Empty where a hypervisor or an
// old libvirt has no such call, or has too many domains for it.
std::map<std::string, DomainSummary> ListStates(virConnectPtr connection) {
  std::map<std::string, DomainSummary> states;
  virDomainStatsRecordPtr* raw = nullptr;
  const int count =
      virConnectGetAllDomainStats(connection, VIR_DOMAIN_STATS_STATE, &raw, 0);
  if (count < 0) {
    virResetLastError();
    return states;
  }
  const std::unique_ptr<virDomainStatsRecordPtr, FreeStats> stats(raw);
  for (int i = 0; i < count; ++i) {
    DomainSummary summary;
    virDomainStatsRecord& one = *raw[i];
    if (virTypedParamsGetInt(one.params, one.nparams, "state.state",
                             &summary.state) == 1 &&
        virTypedParamsGetInt(one.params, one.nparams, "state.reason",
                             &summary.reason) == 1 &&
        IsOffState(summary.state)) {
      states.emplace(UuidOf(one.dom), summary);
    }
  }
  return states;
}

}  // namespace

bool DomainTexts::Off() const { return IsOffState(summary.state); }

std::string UuidOf(virDomainPtr domain) {
  char uuid[VIR_UUID_STRING_BUFLEN] = "";
  virDomainGetUUIDString(domain, uuid);
  return uuid;
}

std::vector<DomainPtr> ListDomains(virConnectPtr connection) {
  return ListThose(connection, 0);
}

std::vector<ListedDomain> ListSummaries(virConnectPtr connection) {
  std::vector<ListedDomain> listed;
  for (auto& domain : ListDomains(connection)) {
    std::string uuid = UuidOf(domain.get());
    listed.push_back({std::move(domain), std::move(uuid), {}});
  }
  auto states = ListStates(connection);
  if (states.empty()) return listed;
  try {
    const auto autostart =
        UuidsOf(connection, VIR_CONNECT_LIST_DOMAINS_AUTOSTART);
    const auto saved =
        UuidsOf(connection, VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE);
    const auto snapshots =
        UuidsOf(connection, VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT);
    for (auto& one : listed) {
      const auto found = states.find(one.uuid);
      if (found == states.end()) continue;
      one.summary = found->second;
      one.summary->autostart = autostart.contains(one.uuid);
      one.summary->saved = saved.contains(one.uuid);
      one.summary->snapshots = snapshots.contains(one.uuid);
    }
  } catch (const Error&) {
    // A driver without these filters; all are asked one by one.
    for (auto& one : listed) one.summary.reset();
  }
  return listed;
}

DomainTexts AskDomain(virDomainPtr domain,
                      const std::optional<DomainSummary>& summary) {
  DomainTexts texts;
  DomainSummary& now = texts.summary;
  if (summary) {
    now = *summary;
  } else if (virDomainGetState(domain, &now.state, &now.reason, 0) < 0) {
    ThrowLibvirt(kCannotAsk);
  }
  texts.xml = TakeString(virDomainGetXMLDesc(domain, 0));
  if (texts.xml.empty()) ThrowLibvirt(kCannotAsk);
  if (!summary) {
    int autostart = 0;
    virDomainGetAutostart(domain, &autostart);
    now.autostart = autostart != 0;
    now.saved = texts.Off() && virDomainHasManagedSaveImage(domain, 0) == 1;
    now.snapshots = true;  // perhaps
  }
  if (!texts.Off()) {
    texts.defined =
        TakeString(virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE));
  }
  if (now.snapshots) {
    texts.snapshots = SnapshotTexts(domain);
    now.snapshots = !texts.snapshots.empty();
  }
  if (now.snapshots) texts.snapshot = CurrentSnapshot(domain);
  return texts;
}

}  // namespace sbxfs
