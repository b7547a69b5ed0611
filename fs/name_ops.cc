#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "fs/audit.h"
#include "fs/handler.h"

// The handlers of names: what is in a directory, comes there and goes.

namespace sbxfs {
namespace {

void Lookup(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = DirAt(server, parent)->Lookup(request->caller, name);
    if (!node) {
      request->Answer([](fuse_req_t req) { fuse_reply_err(req, ENOENT); });
      return;
    }
    AnswerEntry(server, request, node);
  });
}

// What the request makes, if the daemon that began it came to its end.
NodePtr DoneBefore(const RequestPtr& request, Dir& dir, const char* name) {
  return request->caller.repeated ? dir.Lookup(request->caller, name) : nullptr;
}

void Mkdir(fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t mode) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
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

void Create(fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t,
            fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    Changing(server, request, dir->subject);
    const auto answer =
        ReplyFor<Made>(request, [&server, request](const Made& made) {
          const struct stat stat = made.node->Stat(request->caller);
          request->Answer([&](fuse_req_t req) {
            fuse_file_info opened{};
            opened.direct_io = 1;
            opened.fh = server.files.Add(made.file);
            const auto entry =
                EntryFor(*made.node, stat, server.inodes.Remember(made.node));
            if (fuse_reply_create(req, &entry, &opened) != 0) {
              server.files.Remove(opened.fh)->Release();
              server.inodes.Forget(entry.ino, 1);
            }
          });
        });
    const auto reply = Limited(server, answer, "create", name);
    reply.Guard(
        [&] { dir->Create(request->caller, name, info->flags, reply); });
  });
}

std::shared_ptr<OpenDir> ListOf(Server& server, const RequestPtr& request,
                                fuse_ino_t number, Dir& dir) {
  auto open = std::make_shared<OpenDir>();
  open->items = {{".", number, S_IFDIR}, {"..", number, S_IFDIR}};
  for (auto& entry : dir.List(request->caller)) {
    mode_t type = S_IFREG;
    if (dynamic_cast<Dir*>(entry.node.get()) != nullptr) type = S_IFDIR;
    if (dynamic_cast<Link*>(entry.node.get()) != nullptr) type = S_IFLNK;
    open->items.push_back({std::move(entry.name),
                           server.inodes.Number(*entry.node), type,
                           entry.node->Steady() ? entry.node : nullptr});
  }
  return open;
}

// One that was opened through another daemon is listed anew.
std::shared_ptr<OpenDir> OpenDirAt(Server& server, const RequestPtr& request,
                                   fuse_ino_t number, uint64_t handle) {
  if (auto open = server.dirs.Find(handle)) return open;
  if (!server.resumed) {
    throw Error(EBADF, "Cannot list: the directory is not open");
  }
  return server.dirs.Adopt(
      handle, ListOf(server, request, number, *DirAt(server, number)));
}

void Opendir(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, number);
    auto open = ListOf(server, request, number, *dir);
    request->Answer([&](fuse_req_t req) {
      info->fh = server.dirs.Add(std::move(open));
      if (fuse_reply_open(req, info) != 0) server.dirs.Remove(info->fh);
    });
  });
}

// The kernel gets to know the node as by a lookup; false when it is gone.
bool LookUp(Server& server, const RequestPtr& request, const NodePtr& node,
            fuse_entry_param& entry) {
  try {
    const struct stat stat = node->Stat(request->caller);
    entry = EntryFor(*node, stat, server.inodes.Remember(node));
    return true;
  } catch (const Error&) {
    return false;
  }
}

// READDIRPLUS is what makes `ls -l` of many sandboxes quick. Of a node that
// is not steady the kernel would keep nothing: it gets the name alone, and asks
// for the rest if it is wanted.
void List(fuse_req_t raw, fuse_ino_t number, size_t size, off_t offset,
          const fuse_file_info* info, bool plus) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto open = OpenDirAt(server, request, number, info->fh);
    const auto add =
        plus ? fuse_add_direntry_plus
             : [](fuse_req_t req, char* at, size_t left, const char* name,
                  const fuse_entry_param* entry, off_t next) {
                 return fuse_add_direntry(
                     req, at, left, name,
                     entry != nullptr ? &entry->attr : nullptr, next);
               };
    std::string buffer(size, '\0');
    size_t used = 0;
    std::vector<uint64_t> known;
    for (auto i = static_cast<size_t>(offset); i < open->items.size(); ++i) {
      const auto& item = open->items[i];
      const char* const name = item.name.c_str();
      if (add(raw, nullptr, 0, name, nullptr, 0) > size - used) break;
      fuse_entry_param entry{};
      entry.attr.st_ino = item.number;
      entry.attr.st_mode = item.mode;
      if (plus && item.node && LookUp(server, request, item.node, entry)) {
        known.push_back(entry.ino);
      }
      used += add(raw, buffer.data() + used, size - used, name, &entry,
                  static_cast<off_t>(i + 1));
    }
    request->Answer([&](fuse_req_t req) {
      if (fuse_reply_buf(req, buffer.data(), used) == 0) return;
      for (const uint64_t one : known) server.inodes.Forget(one, 1);
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
  ops.symlink = [](fuse_req_t raw, const char*, fuse_ino_t parent,
                   const char* name) { Refuse(raw, parent, name); };
  ops.link = [](fuse_req_t raw, fuse_ino_t, fuse_ino_t parent,
                const char* name) { Refuse(raw, parent, name); };
}

}  // namespace sbxfs
