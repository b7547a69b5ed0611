#include "fs/tree/disks_dir.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "backend/util/text.h"
#include "fs/attributes.h"
#include "fs/document.h"
#include "fs/name.h"
#include "fs/tree/entry_file.h"
#include "fs/tree/furnished_dir.h"

namespace sbxfs {
namespace {

std::optional<ExtraDisk> FindDisk(const Host& host, const std::string& name) {
  const auto found =
      std::find_if(host.disks.begin(), host.disks.end(),
                   [&](const ExtraDisk& disk) { return disk.name == name; });
  if (found == host.disks.end()) return std::nullopt;
  return *found;
}

// A disk, or a new file that is to become one.
class DiskFile : public EntryFile {
 public:
  DiskFile(const TreePtr& tree, const std::string& name)
      : EntryFile(tree, tree->options.at + "disks/", name, "") {}

  struct stat Stat(const Caller& reader) override {
    const View view = ViewFor(reader);
    const auto disk = FindDisk(*view.host, name_);
    struct stat stat = OwnStat(*tree_, S_IFREG | 0644,
                               disk ? disk->modified : view.host->since);
    SetSize(stat, Show(view).size());
    if (disk) stat.st_blocks = static_cast<blkcnt_t>((disk->taken + 511) / 512);
    return stat;
  }

  std::string Show(const View& view) override {
    const auto disk = FindDisk(*view.host, name_);
    if (!disk && !IsNew()) {
      throw Error(ENOENT,
                  fmt::format("Cannot look at disk '{}': it is gone", name_));
    }
    return disk ? FormatSize(disk->size) + '\n' : std::string();
  }

  void Command(const Caller& caller, const std::string& bytes, bool,
               Reply<Done> reply) override {
    tree_->backend.SetDisk(caller, name_,
                           std::string(Trim(OneLine(name_, bytes))),
                           std::move(reply));
  }
};

}  // namespace

struct stat DisksDir::Stat(const Caller&) {
  const auto host = tree_->backend.GetHost();
  Time time = host->since;
  for (const auto& disk : host->disks) time = std::max(time, disk.modified);
  return OwnStat(*tree_, S_IFDIR | 0755, time);
}

NodePtr DisksDir::Lookup(const Caller&, const std::string& name) {
  if (FindDisk(*tree_->backend.GetHost(), name)) {
    return std::make_shared<DiskFile>(tree_, name);
  }
  return tree_->passing.Find(key, name);
}

std::vector<Dir::Entry> DisksDir::List(const Caller&) {
  const auto host = tree_->backend.GetHost();
  std::vector<Entry> entries;
  for (const auto& disk : host->disks) {
    entries.push_back(
        {disk.name, std::make_shared<DiskFile>(tree_, disk.name)});
  }
  for (auto& entry : tree_->passing.List(key)) {
    if (!FindDisk(*host, entry.name)) entries.push_back(std::move(entry));
  }
  return entries;
}

void DisksDir::Unlink(const Caller& caller, const std::string& name,
                      Reply<Done> reply) {
  // `rm -r .host` was refused a file of it just before.
  CheckRefused(*tree_, caller, tree_->options.at, name);
  const bool passing = tree_->passing.Remove(key, name);
  if (FindDisk(*tree_->backend.GetHost(), name)) {
    tree_->backend.RemoveDisk(caller, name, std::move(reply));
    return;
  }
  if (!passing) {
    throw Error(ENOENT,
                fmt::format("Cannot remove disk '{}': there is none", name));
  }
  reply.Ok();
}

void DisksDir::Create(const Caller& caller, const std::string& name, int flags,
                      Reply<Made> reply) {
  std::shared_ptr<File> file;
  if (FindDisk(*tree_->backend.GetHost(), name)) {
    file = std::make_shared<DiskFile>(tree_, name);
  } else {
    if ((flags & O_EXCL) != 0 || LooksScratch(name)) {
      file = std::make_shared<ScratchFile>(caller, subject, "");
    } else {
      (void)Name::Parse("make disk", name);
      file = std::make_shared<DiskFile>(tree_, name);
    }
    tree_->passing.Add(key, name, file);
  }
  OpenMade(file, caller, flags, reply);
}

bool DisksDir::MakesOf(const std::string& name) const {
  return !LooksScratch(name);
}

void DisksDir::Receive(const Caller& caller, const std::string& name,
                       const std::shared_ptr<File>& scratch,
                       Reply<Done> reply) {
  if (!FindDisk(*tree_->backend.GetHost(), name)) {
    if (LooksScratch(name)) {
      tree_->passing.Add(key, name, scratch);
      reply.Ok();
      return;
    }
    (void)Name::Parse("make disk", name);
  }
  std::make_shared<DiskFile>(tree_, name)
      ->StoreWhole(caller,
                   std::static_pointer_cast<ScratchFile>(scratch)->Text(),
                   std::move(reply));
}

void DisksDir::Rename(const Caller& caller, const std::string& name, Dir& to,
                      const std::string& new_name, Reply<Done> reply) {
  if (MoveScratch(tree_, caller, key, name, to, new_name, reply)) return;
  throw Error(EPERM, fmt::format("Cannot rename disk '{}' to '{}': libvirt "
                                 "cannot rename volumes",
                                 name, new_name));
}

}  // namespace sbxfs
