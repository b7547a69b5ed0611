#include "fs/tree/host_dir.h"

#include <fmt/format.h>

#include <cerrno>

#include "fs/attributes.h"
#include "fs/name.h"
#include "fs/tree/disks_dir.h"
#include "fs/tree/images_dir.h"
#include "fs/tree/networks_dir.h"
#include "fs/tree/root_dir.h"
#include "fs/tree/sandbox_dir.h"
#include "fs/tree/templates_dir.h"

namespace sbxfs {
namespace {

// What each hypervisor has.
NodePtr OwnDir(const TreePtr& tree, const Row& row) {
  if (row.name == "disks") return std::make_shared<DisksDir>(tree);
  if (row.name == "images") return std::make_shared<ImagesDir>(tree);
  if (row.name == "networks") return std::make_shared<NetworksDir>(tree);
  return nullptr;
}

}  // namespace

struct stat HostDir::Stat(const Caller&) {
  struct stat stat =
      OwnStat(*tree_, S_IFDIR | 0755, tree_->backend.GetHost()->since);
  stat.st_nlink = tree_->backend.Members().empty() ? 7 : 8;
  return stat;
}

NodePtr HostDir::SubDir(const Row& row) {
  if (row.name == "templates") {
    return std::make_shared<TemplatesDir>(tree_, "");
  }
  if (row.name == "trash") return std::make_shared<TrashDir>(tree_);
  if (row.name == "hosts") {
    if (tree_->backend.Members().empty()) return nullptr;
    return std::make_shared<HostsDir>(tree_);
  }
  return OwnDir(tree_, row);
}

struct stat HostsDir::Stat(const Caller&) {
  struct stat stat =
      OwnStat(*tree_, S_IFDIR | 0755, tree_->backend.GetHost()->since);
  stat.st_nlink += tree_->backend.Members().size();
  return stat;
}

NodePtr HostsDir::Lookup(const Caller&, const std::string& name) {
  const TreePtr own = tree_->Of(name);
  return own ? std::make_shared<HypervisorDir>(own) : nullptr;
}

std::vector<Dir::Entry> HostsDir::List(const Caller& reader) {
  std::vector<Entry> entries;
  for (const auto& name : tree_->backend.Members()) {
    entries.push_back({name, Lookup(reader, name)});
  }
  return entries;
}

struct stat HypervisorDir::Stat(const Caller&) {
  struct stat stat =
      OwnStat(*tree_, S_IFDIR | 0755, tree_->backend.GetHost()->since);
  stat.st_nlink = 5;
  return stat;
}

NodePtr HypervisorDir::SubDir(const Row& row) { return OwnDir(tree_, row); }

struct stat TrashDir::Stat(const Caller&) {
  Time time = tree_->backend.GetHost()->since;
  const auto trashed = tree_->backend.ListTrash();
  for (const auto& sandbox : trashed) {
    time = std::max(time, sandbox->trashed.value_or(time));
  }
  // Owners alone take things out, as at the root.
  const mode_t mode = tree_->options.allow_other ? 01777 : 0755;
  struct stat stat = OwnStat(*tree_, S_IFDIR | mode, time);
  stat.st_nlink += trashed.size();
  return stat;
}

NodePtr TrashDir::Lookup(const Caller&, const std::string& name) {
  const auto sandbox = tree_->backend.FindTrash(name);
  if (!sandbox) return nullptr;
  return std::make_shared<SandboxDir>(tree_, sandbox->uuid);
}

std::vector<Dir::Entry> TrashDir::List(const Caller&) {
  std::vector<Entry> entries;
  for (const auto& sandbox : tree_->backend.ListTrash()) {
    entries.push_back(
        {sandbox->name, std::make_shared<SandboxDir>(tree_, sandbox->uuid)});
  }
  return entries;
}

void TrashDir::RemoveDir(const Caller& caller, const std::string& name,
                         Reply<Done> reply) {
  const auto sandbox = tree_->backend.FindTrash(name);
  if (!sandbox) {
    throw Error(ENOENT, fmt::format("Cannot remove '{}': it is not in the "
                                    "trash",
                                    name));
  }
  CheckRefused(*tree_, caller, sandbox->uuid + '/', name);
  tree_->backend.Purge(caller, sandbox->uuid, std::move(reply));
}

void TrashDir::Rename(const Caller& caller, const std::string& name, Dir& to,
                      const std::string& new_name, Reply<Done> reply) {
  const auto sandbox = tree_->backend.FindTrash(name);
  if (!sandbox || dynamic_cast<RootDir*>(&to) == nullptr) {
    throw Error(EPERM, fmt::format("Cannot move '{}' to '{}': out of the trash "
                                   "it goes back to the root of the mount",
                                   name, new_name));
  }
  const Name valid = Name::Parse("bring back", new_name);
  tree_->backend.Rename(caller, sandbox->uuid, valid.Text(), std::move(reply));
}

}  // namespace sbxfs
