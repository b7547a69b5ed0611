#ifndef SBXFS_BACKEND_NETWORKS_H_
#define SBXFS_BACKEND_NETWORKS_H_

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

#include "backend/core.h"
#include "backend/network_xml.h"
#include "backend/util/look_order.h"

namespace sbxfs {

// libvirt networks that sandboxes are in, as config.yaml's networks have them.
// Those of ours begin with their first running member and end with the last; a
// network of others is used and never changed.
class Networks {
 public:
  explicit Networks(Core& core) : core_(core) {}

  // Blocks: lists them all into the catalog's host. Hypervisors that have none
  // list none.
  void Refresh();
  // Soon, on another thread, and once however often it is asked for.
  void RefreshSoon();
  // As in Backend.
  void Make(const std::string& name, Reply<Done> reply);
  void Set(const std::string& name, const std::string& config,
           Reply<Done> reply);
  void Remove(const std::string& name, Reply<Done> reply);

  // Throws Error(EINVAL) for networks that would be another way out.
  static void Check(const Spec& spec, std::string_view what);
  // Blocks: has every network of a stopped sandbox's definition run, and its
  // NICs known there. Nobody of this mount ends one while the result lives.
  // Throws Error: ENOENT for a network that is not there, EHOSTDOWN for one of
  // others that does not run, ENOSPC for one without a free address.
  [[nodiscard]] std::vector<Turns::Turn> Hold(const std::string& uuid,
                                              std::string_view what);
  // The same for NICs that a guest which runs already is to be given.
  [[nodiscard]] std::vector<Turns::Turn> Hold(
      const std::string& uuid, const std::string& name,
      const std::vector<NetworkNic>& nics, std::string_view what);
  // Ends, soon, those of ours that have no running member. Returns at once.
  void Look(const std::string& uuid);

 private:
  [[nodiscard]] Turns::Turn TurnOf(const std::string& name,
                                   std::string_view what);
  // Made where it is one of ours that need not be made.
  [[nodiscard]] NetworkPtr Find(const std::string& name, std::string_view what);
  void Join(virNetworkPtr network, const std::string& mac,
            const std::string& name, std::string_view what);
  // What keeps members of it from going further, as they are to have it.
  void DefineFilter(const NetworkFacts& network, std::string_view what);
  void LookLater();
  void EndUnused();
  void DropFilters();  // those that no guest has
  void Define(const std::string& name, const NetworkPlan& plan,
              std::string_view what);
  // Throws Error(ENOENT), or Error(EPERM) when it is of others.
  [[nodiscard]] NetworkFacts Ours(const std::string& name,
                                  std::string_view what);

  Core& core_;
  LookOrder looks_;
  std::atomic<bool> looking_{false};
  std::atomic<bool> refreshing_{false};
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_NETWORKS_H_
