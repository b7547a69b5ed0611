#include "backend/fleet_view.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <set>
#include <utility>

namespace sbxfs {

SandboxPtr FleetView::As(std::size_t member, SandboxPtr sandbox) const {
  auto other = std::make_shared<Sandbox>(*sandbox);
  other->name += '@' + members_[member].name;
  return other;
}

SandboxPtr FleetView::Shown(std::size_t member, SandboxPtr sandbox) const {
  const auto same = sandbox->trashed ? &Backend::FindTrash : &Backend::Find;
  for (std::size_t i = 0; i < member; ++i) {
    if (((*members_[i].backend).*same)(sandbox->name)) {
      return As(member, std::move(sandbox));
    }
  }
  return sandbox;
}

std::vector<SandboxPtr> FleetView::Merged(List list) const {
  std::vector<SandboxPtr> all;
  std::set<std::string> names;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    std::set<std::string> own;
    for (auto& sandbox : ((*members_[i].backend).*list)()) {
      own.insert(sandbox->name);
      all.push_back(names.count(sandbox->name) == 0
                        ? std::move(sandbox)
                        : As(i, std::move(sandbox)));
    }
    names.insert(own.begin(), own.end());
  }
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a->name < b->name; });
  return all;
}

SandboxPtr FleetView::Found(std::string_view name, Find find) const {
  const auto at = name.rfind('@');
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const auto look = [&](std::string_view own) {
      const auto found = ((*members_[i].backend).*find)(own);
      if (!found) return found;
      auto shown = Shown(i, found);
      return shown->name == name ? shown : SandboxPtr();
    };
    if (auto sandbox = look(name)) return sandbox;
    if (at != name.npos && name.substr(at + 1) == members_[i].name) {
      if (auto sandbox = look(name.substr(0, at))) return sandbox;
    }
  }
  return nullptr;
}

SandboxPtr FleetView::Get(const std::string& uuid) const {
  const std::size_t i = Holder(uuid);
  if (i == members_.size()) return nullptr;
  auto sandbox = members_[i].backend->Get(uuid);
  return sandbox ? Shown(i, std::move(sandbox)) : nullptr;
}

Backend& FleetView::Of(const std::string& uuid) const {
  const std::size_t i = Holder(uuid);
  if (i < members_.size()) return *members_[i].backend;
  throw Error(ENOENT, "Cannot go on: the sandbox is gone");
}

std::size_t FleetView::Holder(const std::string& uuid) const {
  std::size_t holder = members_.size();
  for (std::size_t i = members_.size(); i-- > 0;) {
    const auto sandbox = members_[i].backend->Get(uuid);
    if (!sandbox) continue;
    if (holder == members_.size() || !sandbox->trashed) holder = i;
  }
  return holder;
}

}  // namespace sbxfs
