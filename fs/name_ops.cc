#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "fs/audit.h"
#include "fs/guest_ops.h"
#include "fs/handler.h"
#include "fs/tree/guest_files.h"

// The handlers of names: what is in a directory, comes there and goes.

namespace sbxfs {
namespace {

// The kernel lets names of 1024 bytes through, and looks each up before it does
// anything else with it.
constexpr size_t kLongestName = NAME_MAX;

void Lookup(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    if (std::strlen(name) > kLongestName) {
      throw Error(ENAMETOOLONG,
                  fmt::format("Cannot look up '{}': a name has {} bytes at "
                              "most",
                              name, kLongestName));
    }
    const auto dir = DirAt(server, parent);
    const auto reply = ReplyFor<NodePtr>(request, [&server, request](
                                                      const NodePtr& node) {
      if (!node) {
        request->Answer([](fuse_req_t req) { fuse_reply_err(req, ENOENT); });
        return;
      }
      AnswerEntry(server, request, node);
    });
    if (dir->Foreign()) guest::Begin(server, request, *dir, reply);
    reply.Guard([&] { dir->AskFor(request->caller, name, reply); });
  });
}

// What the request makes, if the daemon that began it came to its end.
NodePtr DoneBefore(const RequestPtr& request, Dir& dir, const char* name) {
  return request->caller.repeated ? dir.Lookup(request->caller, name) : nullptr;
}

void Mkdir(fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t mode) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    if (dir->Foreign()) {
      guest::Mkdir(server, request, *dir, name, mode);
      return;
    }
    Changing(server, request, dir->subject);
    Audit(server, request,
          {"mkdir", PathOf(*server.tree, *dir) + name, dir->subject, ""});
    auto reply =
        ReplyFor<NodePtr>(request, [&server, request](const NodePtr& node) {
          AnswerEntry(server, request, node);
        });
    reply = Settled(server, dir->subject, reply);
    if (const NodePtr made = DoneBefore(request, *dir, name)) {
      reply.Ok(made);
      return;
    }
    if (dir->MakingTakesLong()) {
      request->Interruptible(reply.Canceller());
    } else {
      reply = Limited(server, reply, "make", name);
    }
    reply.Guard(
        [&] { dir->MakeDir(request->caller, name, mode & 0777, reply); });
  });
}

// What a name in a directory belongs to, for its error file.
std::string SubjectOf(const Dir& dir, const NodePtr& node) {
  return node && !node->subject.empty() ? node->subject : dir.subject;
}

void Rmdir(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    if (dir->Foreign()) {
      guest::Remove(server, request, *dir, name, true);
      return;
    }
    const NodePtr node = dir->Lookup(request->caller, name);
    if (request->caller.repeated && !node) {
      DoneFor(request).Ok();
      return;
    }
    const std::string subject = SubjectOf(*dir, node);
    Changing(server, request, subject);
    Audit(server, request,
          {"rmdir", PathOf(*server.tree, *dir) + name, subject, ""});
    const auto limited = Limited(
        server, Settled(server, subject, DoneFor(request)), "remove", name);
    // To the kernel the directory is dead from now on (vfs_rmdir), and shows
    // nothing wherever it is found again, in the trash say.
    const auto reply = limited.Then<Done>([&server, node](Done done) {
      if (node) server.inodes.Retire(node->key);
      return done;
    });
    reply.Guard([&] { dir->RemoveDir(request->caller, name, reply); });
  });
}

void Unlink(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    if (dir->Foreign()) {
      guest::Remove(server, request, *dir, name, false);
      return;
    }
    Changing(server, request, dir->subject);
    const NodePtr node = dir->Lookup(request->caller, name);
    if (request->caller.repeated && !node) {
      DoneFor(request).Ok();
      return;
    }
    if (node && !node->Transient()) {
      Audit(server, request,
            {"unlink", PathOf(*server.tree, *dir) + name, dir->subject, ""});
    }
    const auto reply =
        Limited(server, Settled(server, dir->subject, DoneFor(request)),
                "remove", name);
    reply.Guard([&] { dir->Unlink(request->caller, name, reply); });
  });
}

bool IsTransient(const NodePtr& node) { return node && node->Transient(); }

void Rename(fuse_req_t raw, fuse_ino_t parent, const char* name,
            fuse_ino_t new_parent, const char* new_name, unsigned flags) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto from = DirAt(server, parent);
    const auto to = DirAt(server, new_parent);
    if (from->Foreign() || to->Foreign()) {
      guest::Rename(server, request, *from, name, *to, new_name, flags);
      return;
    }
    const Caller& caller = request->caller;
    const NodePtr node = from->Lookup(caller, name);
    if (!node && DoneBefore(request, *to, new_name)) {
      DoneFor(request).Ok();
      return;
    }
    const std::string subject = SubjectOf(*from, node);
    Changing(server, request, subject);
    if ((flags & ~unsigned{RENAME_NOREPLACE}) != 0) {
      throw Error(EINVAL, fmt::format("Cannot rename '{}' to '{}': names "
                                      "cannot be exchanged here",
                                      name, new_name));
    }
    if ((flags & RENAME_NOREPLACE) != 0 && to->Lookup(caller, new_name)) {
      throw Error(EEXIST, fmt::format("Cannot rename '{}' to '{}': there is "
                                      "one; choose another name",
                                      name, new_name));
    }
    const NodePtr target = to->Lookup(caller, new_name);
    // From one scratch name to another it changes nothing.
    if (!IsTransient(node) ||
        (target ? !target->Transient() : to->MakesOf(new_name))) {
      Audit(server, request,
            {"rename", PathOf(*server.tree, *from) + name, subject,
             PathOf(*server.tree, *to) + new_name});
    }
    const auto settled = Settled(server, to->subject,
                                 Settled(server, subject, DoneFor(request)));
    const auto reply = Limited(server, settled, "rename", name);
    reply.Guard([&] { from->Rename(caller, name, *to, new_name, reply); });
  });
}

void Create(fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    if (dir->Foreign()) {
      guest::Create(server, request, *dir, name, mode, info->flags);
      return;
    }
    Changing(server, request, dir->subject);
    const auto answer =
        ReplyFor<Made>(request, [&server, request](const Made& made) {
          AnswerMade(server, request, made);
        });
    const auto reply = Limited(server, answer, "create", name);
    reply.Guard(
        [&] { dir->Create(request->caller, name, info->flags, reply); });
  });
}

mode_t TypeOf(const Node& node, const Caller& reader) {
  if (node.Foreign()) {
    return const_cast<Node&>(node).Stat(reader).st_mode & S_IFMT;
  }
  if (dynamic_cast<const Dir*>(&node) != nullptr) return S_IFDIR;
  return dynamic_cast<const Link*>(&node) != nullptr ? S_IFLNK : S_IFREG;
}

// Gives `then` what is in the directory, under `reply`'s Guard.
void ListOf(Server& server, const RequestPtr& request, fuse_ino_t number,
            const std::shared_ptr<Dir>& dir,
            std::function<void(std::shared_ptr<OpenDir>)> then) {
  using Entries = std::vector<Dir::Entry>;
  const auto reply =
      ReplyFor<Entries>(request, [&server, number, caller = request->caller,
                                  then = std::move(then)](Entries entries) {
        auto open = std::make_shared<OpenDir>();
        open->items = {{".", number, S_IFDIR}, {"..", number, S_IFDIR}};
        for (auto& entry : entries) {
          const bool kept = KernelCache::ForAttributes(*entry.node) > 0;
          open->items.push_back({std::move(entry.name),
                                 server.inodes.Number(*entry.node),
                                 TypeOf(*entry.node, caller),
                                 kept ? std::move(entry.node) : nullptr});
        }
        then(std::move(open));
      });
  if (dir->Foreign()) guest::Begin(server, request, *dir, reply);
  reply.Guard([&] { dir->AskAll(request->caller, reply); });
}

// One that was opened through another daemon is listed anew.
void WithOpenDir(Server& server, const RequestPtr& request, fuse_ino_t number,
                 uint64_t handle,
                 std::function<void(const std::shared_ptr<OpenDir>&)> then) {
  if (const auto open = server.dirs.Find(handle)) {
    then(open);
    return;
  }
  if (!server.resumed) {
    throw Error(EBADF, "Cannot list: the directory is not open");
  }
  ListOf(
      server, request, number, DirAt(server, number),
      [&server, handle, then = std::move(then)](std::shared_ptr<OpenDir> open) {
        then(server.dirs.Adopt(handle, std::move(open)));
      });
}

void Opendir(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, number);
    ListOf(server, request, number, dir,
           [&server, request,
            opened = *info](const std::shared_ptr<OpenDir>& open) {
             request->Answer([&](fuse_req_t req) {
               fuse_file_info answer = opened;
               answer.fh = server.dirs.Add(open);
               if (fuse_reply_open(req, &answer) != 0) {
                 server.dirs.Remove(answer.fh);
               }
             });
           });
  });
}

// The kernel gets to know the node as by a lookup; false when it is gone.
bool LookUp(Server& server, const RequestPtr& request, const NodePtr& node,
            fuse_entry_param& entry) {
  try {
    const struct stat stat = node->Stat(request->caller);
    entry = EntryFor(*node, stat, server.inodes.Remember(node));
    if (S_ISDIR(stat.st_mode)) NoteGuest(*node);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// READDIRPLUS is what makes `ls -l` of many sandboxes quick. Of a node that
// is not steady the kernel would keep nothing: it gets the name alone, and asks
// for the rest if it is wanted.
void AnswerList(Server& server, const RequestPtr& request, const OpenDir& open,
                size_t size, off_t offset, bool plus) {
  request->Answer([&](fuse_req_t req) {
    const auto add =
        plus ? fuse_add_direntry_plus
             : [](fuse_req_t raw, char* at, size_t left, const char* name,
                  const fuse_entry_param* entry, off_t next) {
                 return fuse_add_direntry(
                     raw, at, left, name,
                     entry != nullptr ? &entry->attr : nullptr, next);
               };
    std::string buffer(size, '\0');
    size_t used = 0;
    std::vector<uint64_t> known;
    for (auto i = static_cast<size_t>(offset); i < open.items.size(); ++i) {
      const auto& item = open.items[i];
      const char* const name = item.name.c_str();
      if (add(req, nullptr, 0, name, nullptr, 0) > size - used) break;
      fuse_entry_param entry{};
      entry.attr.st_ino = item.number;
      entry.attr.st_mode = item.mode;
      if (plus && item.node && LookUp(server, request, item.node, entry)) {
        known.push_back(entry.ino);
      }
      used += add(req, buffer.data() + used, size - used, name, &entry,
                  static_cast<off_t>(i + 1));
    }
    if (fuse_reply_buf(req, buffer.data(), used) == 0) return;
    for (const uint64_t one : known) server.inodes.Forget(one, 1);
  });
}

void List(fuse_req_t raw, fuse_ino_t number, size_t size, off_t offset,
          const fuse_file_info* info, bool plus) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    WithOpenDir(server, request, number, info->fh,
                [=, &server](const std::shared_ptr<OpenDir>& open) {
                  AnswerList(server, request, *open, size, offset, plus);
                });
  });
}

void Readdir(fuse_req_t raw, fuse_ino_t number, size_t size, off_t offset,
             fuse_file_info* info) {
  List(raw, number, size, offset, info, false);
}

void Readdirplus(fuse_req_t raw, fuse_ino_t number, size_t size, off_t offset,
                 fuse_file_info* info) {
  List(raw, number, size, offset, info, true);
}

void Releasedir(fuse_req_t raw, fuse_ino_t, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    server.dirs.Remove(info->fh);
    request->Answer([](fuse_req_t req) { fuse_reply_err(req, 0); });
  });
}

// What the tree does not do. ENOSYS would do, but the kernel remembers it.
void Refuse(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    if (!dir->Foreign()) Changing(server, request, dir->subject);
    dir->RefuseOther(name);
  });
}

void Symlink(fuse_req_t raw, const char* target, fuse_ino_t parent,
             const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    if (dir->Foreign()) {
      guest::Symlink(server, request, *dir, name, target);
      return;
    }
    Changing(server, request, dir->subject);
    dir->RefuseOther(name);
  });
}

void HardLink(fuse_req_t raw, fuse_ino_t number, fuse_ino_t parent,
              const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    if (dir->Foreign()) {
      guest::Link(server, request, *dir, name, NodeAt(server, number));
      return;
    }
    Changing(server, request, dir->subject);
    dir->RefuseOther(name);
  });
}

}  // namespace

void AddNameOps(fuse_lowlevel_ops& ops) {
  ops.lookup = Lookup;
  ops.mkdir = Mkdir;
  ops.rmdir = Rmdir;
  ops.unlink = Unlink;
  ops.rename = Rename;
  ops.create = Create;
  ops.opendir = Opendir;
  ops.readdir = Readdir;
  ops.readdirplus = Readdirplus;
  ops.releasedir = Releasedir;
  ops.mknod = [](fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t,
                 dev_t) { Refuse(raw, parent, name); };
  ops.symlink = Symlink;
  ops.link = HardLink;
}

}  // namespace sbxfs
