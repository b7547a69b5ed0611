#ifndef SBXFS_BACKEND_FLEET_VIEW_H_
#define SBXFS_BACKEND_FLEET_VIEW_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

namespace sbxfs {

// One hypervisor of a fleet.
struct FleetMember {
  std::string name;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Observer> observer;  // of this one
};

// The sandboxes of all members as one tree shows them. Any thread; never waits.
class FleetView {
 public:
  using List = std::vector<SandboxPtr> (Backend::*)() const;
  using Find = SandboxPtr (Backend::*)(std::string_view) const;

  // `members` must outlive it.
  explicit FleetView(const std::vector<FleetMember>& members)
      : members_(members) {}
  // Those of that list of each, by name.
  [[nodiscard]] std::vector<SandboxPtr> Merged(List list) const;
  // The one that has that name there; null when none has.
  [[nodiscard]] SandboxPtr Found(std::string_view name, Find find) const;
  // The one of that uuid; null when nobody has it.
  [[nodiscard]] SandboxPtr Get(const std::string& uuid) const;
  // Whoever has it: one that is being moved is in the trash where it goes.
  // Their number when nobody has.
  [[nodiscard]] std::size_t Holder(const std::string& uuid) const;
  // The same. Throws Error(ENOENT) when nobody has it.
  [[nodiscard]] Backend& Of(const std::string& uuid) const;

 private:
  // As it is to be seen: one of a name that an earlier member has too is
  // NAME@HYPERVISOR.
  [[nodiscard]] SandboxPtr Shown(std::size_t member, SandboxPtr sandbox) const;
  [[nodiscard]] SandboxPtr As(std::size_t member, SandboxPtr sandbox) const;

  const std::vector<FleetMember>& members_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FLEET_VIEW_H_
