#include "fs/tree/guest_files.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <climits>

#include "fs/attributes.h"
#include "fs/guest_open.h"

namespace sbxfs {
namespace {

void PutTime(timespec& to, Time time) {
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(
                         time.time_since_epoch())
                         .count();
  to.tv_sec = since / 1000000000;
  to.tv_nsec = since % 1000000000;
  if (to.tv_nsec < 0) {
    to.tv_nsec += 1000000000;
    --to.tv_sec;
  }
}

NodePtr NodeFor(GuestPathPtr path, const FileFacts& facts) {
  if (S_ISDIR(facts.mode)) {
    return std::make_shared<GuestDir>(std::move(path), facts);
  }
  if (S_ISLNK(facts.mode)) {
    return std::make_shared<GuestLink>(std::move(path), facts);
  }
  return std::make_shared<GuestFile>(std::move(path), facts);
}

// The root of `fs` is there while the sandbox is, whether its guest can be
// asked or not: what is in the sandbox's directory never waits.
class GuestRootDir : public GuestDir {
 public:
  using GuestDir::GuestDir;
  struct stat Stat(const Caller&) override {
    return place().RootStat();
  }
  void FreshStat(const Caller& reader, Reply<struct stat> reply) override {
    reply.Ok(Stat(reader));
  }
  bool Steady() const override { return true; }
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override {
    const auto kind =
        place().snapshot.empty() ? DirKind::kSandbox : DirKind::kSnapshot;
    const View view = place().tree->ViewFor(caller, subject);
    ChangeRow(view, *FindRow(kind, "fs"), Stat(caller), changes, false,
              std::move(reply));
  }
};

FileFacts FactsOfDir() {
  FileFacts facts;
  facts.mode = S_IFDIR | 0700;
  facts.own = facts.own_group = true;
  return facts;
}

Error LostWithItsGuest(const std::string& path) {
  return {EHOSTDOWN, fmt::format("Cannot go on with '{}': the guest that it "
                                 "was opened in has stopped; open it again",
                                 path)};
}

// Does it, unless another daemon began to, and `did` finds that it was done.
template <typename Do, typename Did>
void OnceOnly(FileTree& tree, const Caller& caller, Do&& what, Did&& did) {
  try {
    what(tree);
  } catch (const Error& error) {
    if (!caller.repeated || !did(tree, error)) throw;
  }
}

}  // namespace

struct stat GuestThing::Shown(const FileFacts& facts) const {
  const struct stat root = place().RootStat();
  struct stat stat {};
  stat.st_mode = facts.mode;
  // The host's kernel would open a pipe of its own; of what else is special it
  // opens nothing here: FUSE mounts are nodev.
  if (S_ISFIFO(facts.mode)) stat.st_mode &= ~mode_t{0777};
  // Nobody runs there who could say who may read it: who has the sandbox may.
  if (place().AtRest()) {
    stat.st_mode &= ~mode_t{0222};
    stat.st_mode |= S_ISDIR(facts.mode) ? 0500 : 0400;
  }
  // Nothing is known of how many there are: find(1) and its like count them.
  stat.st_nlink = S_ISDIR(facts.mode) ? 1 : facts.links;
  stat.st_uid = facts.own ? root.st_uid : facts.uid;
  stat.st_gid = facts.own_group ? root.st_gid : facts.gid;
  stat.st_blksize = 65536;
  stat.st_size = static_cast<off_t>(facts.size);
  stat.st_blocks = static_cast<blkcnt_t>(facts.blocks);
  PutTime(stat.st_atim, facts.read);
  PutTime(stat.st_mtim, facts.modified);
  stat.st_ctim = stat.st_mtim;
  return stat;
}

void GuestThing::Ask(Reply<FileFacts> reply) const {
  const auto open = path_->Open();
  if (path_->Lost()) {
    if (open) {
      open->Look(std::move(reply));
    } else {
      reply.Fail(LostWithItsGuest(path_->Path()));
    }
    return;
  }
  // By another name, or none, than it was opened by.
  const Reply<FileFacts> told([reply, open](Outcome<FileFacts> outcome) {
    const auto* error = std::get_if<Error>(&outcome);
    if (error != nullptr && error->Errno() == ENOENT && open) {
      reply.Guard([&] { open->Look(reply); });
      return;
    }
    reply.Give(std::move(outcome));
  });
  reply.OnCancel(told.Canceller());
  place().Ask(
      told, [path = path_](FileTree& tree) { return tree.Look(path->Path()); });
}

void GuestThing::Alter(FileChanges changes, Reply<Done> reply) const {
  const struct stat now = Shown(facts_);
  if (changes.uid && *changes.uid == now.st_uid) changes.uid.reset();
  if (changes.gid && *changes.gid == now.st_gid) changes.gid.reset();
  if (changes.mode) changes.mode = *changes.mode & 07777;
  if (!changes.mode && !changes.uid && !changes.gid && !changes.size &&
      !changes.read && !changes.modified) {
    reply.Ok();
    return;
  }
  place().Ask(reply, [path = path_, changes](FileTree& tree) {
    tree.Set(path->Path(), changes);
    return Done{};
  });
}

std::string GuestLink::Target(const Caller&) {
  throw Error(EIO, "Cannot read the link: it is the guest's to tell");
}

void GuestLink::FindTarget(const Caller&, Reply<std::string> reply) {
  place().Ask(reply, [path = path()](FileTree& tree) {
    const std::string at = path->Path();
    std::string target = TargetWithin(at, tree.Target(at));
    if (target.size() >= PATH_MAX) {
      throw Error(ENAMETOOLONG, fmt::format("Cannot read the link '{}': it "
                                            "leads too far",
                                            at));
    }
    return target;
  });
}

void GuestFile::Open(const Caller&, int flags, Reply<OpenFilePtr> reply) {
  if (S_IFMT & facts().mode & ~S_IFREG) {
    throw Error(ENXIO,
                "Cannot open: it is no plain file, and the guest's "
                "alone");
  }
  const int how = flags & ~(O_CREAT | O_EXCL);
  using OpenedPtr = std::shared_ptr<FileTree::Opened>;
  const auto self = std::static_pointer_cast<GuestFile>(shared_from_this());
  const auto opened = reply.Then<OpenedPtr>(
      [self, flags](const OpenedPtr& one) { return self->Opened(one, flags); });
  place().Ask(opened, [path = path(), how](FileTree& tree) {
    return OpenedPtr(tree.Open(path->Path(), how, 0));
  });
}

void GuestFile::Reopen(const Caller& caller, int flags, bool whole,
                       Reply<OpenFilePtr> reply) {
  if (path()->Lost()) throw LostWithItsGuest(path()->Path());
  File::Reopen(caller, flags, whole, std::move(reply));
}

OpenFilePtr GuestFile::Opened(std::shared_ptr<FileTree::Opened> opened,
                              int flags) {
  // Some of proc's and sysfs' say that they are empty, and are not: the kernel
  // would believe it. Nor is it to keep what is growing.
  const bool reading = (flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY;
  const auto open = std::make_shared<GuestOpen>(
      path(), std::move(opened), flags, !reading || facts().size > 0);
  path()->SetOpen(open);
  return open;
}

std::string GuestDir::Below(const std::string& name) const {
  const std::string at = path()->Path();
  return at.empty() ? name : at + '/' + name;
}

NodePtr GuestDir::Child(const std::string& name, const FileFacts& facts) const {
  return NodeFor(place().At(Below(name), S_ISDIR(facts.mode)), facts);
}

NodePtr GuestDir::Lookup(const Caller&, const std::string&) { return nullptr; }
std::vector<Dir::Entry> GuestDir::List(const Caller&) { return {}; }

void GuestDir::AskFor(const Caller&, const std::string& name,
                      Reply<NodePtr> reply) {
  const auto self = std::static_pointer_cast<GuestDir>(shared_from_this());
  place().Ask(reply, [self, name](FileTree& tree) -> NodePtr {
    try {
      return self->Child(name, tree.Look(self->Below(name)));
    } catch (const Error& error) {
      if (error.Errno() == ENOENT) return nullptr;
      throw;
    }
  });
}

void GuestDir::AskAll(const Caller&, Reply<std::vector<Entry>> reply) {
  const auto self = std::static_pointer_cast<GuestDir>(shared_from_this());
  place().Ask(reply, [self](FileTree& tree) {
    std::vector<Entry> entries;
    for (auto& [name, facts] : tree.List(self->path()->Path())) {
      entries.push_back({name, self->Child(name, facts)});
    }
    return entries;
  });
}

void GuestDir::Make(const Caller& caller, const std::string& name, mode_t mode,
                    Reply<NodePtr> reply) {
  const auto self = std::static_pointer_cast<GuestDir>(shared_from_this());
  place().Ask(reply, [self, caller, name, mode](FileTree& tree) {
    const std::string at = self->Below(name);
    OnceOnly(
        tree, caller, [&](FileTree& files) { files.MakeDir(at, mode); },
        [&](FileTree& files, const Error& error) {
          return error.Errno() == EEXIST && S_ISDIR(files.Look(at).mode);
        });
    return self->Child(name, tree.Look(at));
  });
}

void GuestDir::MakeLink(const Caller& caller, const std::string& name,
                        const std::string& target, Reply<NodePtr> reply) {
  const auto self = std::static_pointer_cast<GuestDir>(shared_from_this());
  place().Ask(reply, [self, caller, name, target](FileTree& tree) {
    const std::string at = self->Below(name);
    OnceOnly(
        tree, caller, [&](FileTree& files) { files.MakeLink(at, target); },
        [&](FileTree& files, const Error& error) {
          return error.Errno() == EEXIST && files.Target(at) == target;
        });
    return self->Child(name, tree.Look(at));
  });
}

void GuestDir::MakeName(const Caller& caller, const std::string& name,
                        const GuestThing& file, Reply<NodePtr> reply) {
  const auto self = std::static_pointer_cast<GuestDir>(shared_from_this());
  place().Ask(reply, [self, caller, name, of = file.path()](FileTree& tree) {
    const std::string at = self->Below(name);
    OnceOnly(
        tree, caller, [&](FileTree& files) { files.MakeName(of->Path(), at); },
        [&](FileTree&, const Error& error) { return error.Errno() == EEXIST; });
    return self->Child(name, tree.Look(at));
  });
}

void GuestDir::MakeFile(const Caller& caller, const std::string& name,
                        int flags, mode_t mode, Reply<Made> reply) {
  const auto self = std::static_pointer_cast<GuestDir>(shared_from_this());
  // Another daemon may have made it.
  const int how = caller.repeated ? flags & ~O_EXCL : flags;
  place().Ask(reply, [self, name, how, mode](FileTree& tree) {
    const std::string at = self->Below(name);
    std::shared_ptr<FileTree::Opened> opened =
        tree.Open(at, how | O_CREAT, mode);
    const FileFacts facts = opened->found ? *opened->found : tree.Look(at);
    const auto file =
        std::dynamic_pointer_cast<GuestFile>(self->Child(name, facts));
    if (!file) {
      throw Error(EEXIST, fmt::format("Cannot create '{}': another made it "
                                      "meanwhile",
                                      at));
    }
    return Made{file, file->Opened(std::move(opened), how)};
  });
}

void GuestDir::Remove(const Caller& caller, const std::string& name,
                      bool is_dir, Reply<Done> reply) {
  const auto self = std::static_pointer_cast<GuestDir>(shared_from_this());
  place().Ask(reply, [self, caller, name, is_dir](FileTree& tree) {
    const std::string at = self->Below(name);
    OnceOnly(
        tree, caller,
        [&](FileTree& files) {
          if (is_dir) {
            files.RemoveDir(at);
          } else {
            files.Remove(at);
          }
        },
        [&](FileTree&, const Error& error) { return error.Errno() == ENOENT; });
    self->place().Gone(at);
    return Done{};
  });
}

void GuestDir::Move(const Caller& caller, const std::string& name, GuestDir& to,
                    const std::string& new_name, bool alone,
                    Reply<Done> reply) {
  const auto self = std::static_pointer_cast<GuestDir>(shared_from_this());
  const auto target = std::static_pointer_cast<GuestDir>(to.shared_from_this());
  place().Ask(reply, [=](FileTree& tree) {
    const std::string from = self->Below(name);
    const std::string at = target->Below(new_name);
    const auto is_there = [](FileTree& files, const std::string& path) {
      try {
        (void)files.Look(path);
        return true;
      } catch (const Error& error) {
        if (error.Errno() != ENOENT) throw;
        return false;
      }
    };
    if (alone && !caller.repeated && is_there(tree, at)) {
      throw Error(EEXIST, fmt::format("Cannot rename '{}' to '{}': there is "
                                      "one; choose another name",
                                      from, at));
    }
    OnceOnly(
        tree, caller, [&](FileTree& files) { files.Rename(from, at); },
        [&](FileTree& files, const Error& error) {
          return error.Errno() == ENOENT && is_there(files, at);
        });
    if (from != at) self->place().Moved(from, at);
    return Done{};
  });
}

NodePtr GuestRoot(const TreePtr& tree, const std::string& uuid,
                  const std::string& snapshot) {
  return std::make_shared<GuestRootDir>(
      tree->FilesIn(uuid, snapshot)->At("", true), FactsOfDir());
}

void NoteGuest(const Node& node) {
  const auto* thing = dynamic_cast<const GuestThing*>(&node);
  if (thing != nullptr && !thing->path()->Path().empty()) {
    thing->path()->Note();
  }
}

NodePtr GuestNoted(const TreePtr& tree, const PathRecord& record) {
  if (record.path.empty()) {
    return GuestRoot(tree, record.uuid, record.snapshot);
  }
  auto path = tree->FilesIn(record.uuid, record.snapshot)->Restore(record);
  FileFacts facts = FactsOfDir();
  if (!record.identity.ends_with('/')) {
    facts.mode = S_IFREG | 0600;
  }
  return NodeFor(std::move(path), facts);
}

}  // namespace sbxfs
