#ifndef SBXFS_BACKEND_DOMAIN_LIST_H_
#define SBXFS_BACKEND_DOMAIN_LIST_H_

#include <optional>
#include <string>
#include <vector>

#include "backend/libvirt_handle.h"

// What libvirt tells of all domains in a few calls, and what it must be asked
// for one by one. All of it blocks, and throws Error.

namespace sbxfs {

// What is known of a domain beside its XML.
struct DomainSummary {
  int state = 0;   // virDomainState
  int reason = 0;  // of that state's
  bool autostart = false;
  bool saved = false;      // it has a managed save image
  bool snapshots = false;  // it has some
};

struct ListedDomain {
  DomainPtr domain;
  std::string uuid;
  // Of one that was off; others change too much, and are asked.
  std::optional<DomainSummary> summary;
};

// All that libvirt says of a domain.
struct DomainTexts {
  DomainSummary summary;
  std::string xml;      // as it runs, or the definition
  std::string defined;  // the definition of one that runs; else empty
  std::vector<std::string> snapshots;  // parents first
  std::string snapshot;                // the current one's name, or empty
  [[nodiscard]] bool Off() const;
};

// Every domain there is.
[[nodiscard]] std::vector<DomainPtr> ListDomains(virConnectPtr connection);
[[nodiscard]] std::vector<ListedDomain> ListSummaries(virConnectPtr connection);
[[nodiscard]] std::string UuidOf(virDomainPtr domain);

// With a summary that is the XML's call alone, for a domain without snapshots.
[[nodiscard]] DomainTexts AskDomain(
    virDomainPtr domain, const std::optional<DomainSummary>& summary);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DOMAIN_LIST_H_
