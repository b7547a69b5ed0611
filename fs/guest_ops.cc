#include "fs/guest_ops.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "fs/tree/guest_files.h"

namespace sbxfs::guest {
namespace {

GuestDir& Of(Dir& dir) { return dynamic_cast<GuestDir&>(dir); }

Reply<NodePtr> EntryReply(Server& server, const RequestPtr& request,
                          const Dir& dir) {
  const auto reply =
      ReplyFor<NodePtr>(request, [&server, request](const NodePtr& node) {
        AnswerEntry(server, request, node);
      });
  Begin(server, request, dir, reply);
  return reply;
}

Reply<Done> DoneReply(Server& server, const RequestPtr& request,
                      const Node& node) {
  const auto reply = DoneFor(request);
  Begin(server, request, node, reply);
  return reply;
}

Time TimeFrom(const timespec& time) {
  return Time(std::chrono::duration_cast<Time::duration>(
      std::chrono::seconds(time.tv_sec) +
      std::chrono::nanoseconds(time.tv_nsec)));
}

FileChanges ChangesOf(const struct stat& stat, int what) {
  const auto now = std::chrono::system_clock::now();
  FileChanges changes;
  if ((what & FUSE_SET_ATTR_MODE) != 0) changes.mode = stat.st_mode & 07777;
  if ((what & FUSE_SET_ATTR_UID) != 0) changes.uid = stat.st_uid;
  if ((what & FUSE_SET_ATTR_GID) != 0) changes.gid = stat.st_gid;
  if ((what & FUSE_SET_ATTR_SIZE) != 0) {
    changes.size = static_cast<uint64_t>(stat.st_size);
  }
  if ((what & FUSE_SET_ATTR_ATIME) != 0) changes.read = TimeFrom(stat.st_atim);
  if ((what & FUSE_SET_ATTR_MTIME) != 0) {
    changes.modified = TimeFrom(stat.st_mtim);
  }
  if ((what & FUSE_SET_ATTR_ATIME_NOW) != 0) changes.read = now;
  if ((what & FUSE_SET_ATTR_MTIME_NOW) != 0) changes.modified = now;
  return changes;
}

}  // namespace

void Mkdir(Server& server, const RequestPtr& request, Dir& dir,
           const char* name, mode_t mode) {
  const auto reply = EntryReply(server, request, dir);
  reply.Guard(
      [&] { Of(dir).Make(request->caller, name, mode & 07777, reply); });
}

void Symlink(Server& server, const RequestPtr& request, Dir& dir,
             const char* name, const char* target) {
  const auto reply = EntryReply(server, request, dir);
  reply.Guard([&] { Of(dir).MakeLink(request->caller, name, target, reply); });
}

void Link(Server& server, const RequestPtr& request, Dir& dir, const char* name,
          const NodePtr& file) {
  const auto reply = EntryReply(server, request, dir);
  reply.Guard([&] {
    const auto* thing = dynamic_cast<GuestThing*>(file.get());
    if (thing == nullptr || &thing->place() != &Of(dir).place()) {
      throw Error(EXDEV, fmt::format("Cannot link '{}': the file is of another "
                                     "guest, or none",
                                     name));
    }
    Of(dir).MakeName(request->caller, name, *thing, reply);
  });
}

void Remove(Server& server, const RequestPtr& request, Dir& dir,
            const char* name, bool is_dir) {
  const auto reply = DoneReply(server, request, dir);
  reply.Guard([&] { Of(dir).Remove(request->caller, name, is_dir, reply); });
}

void Rename(Server& server, const RequestPtr& request, Dir& from,
            const char* name, Dir& to, const char* new_name, unsigned flags) {
  const auto reply = DoneReply(server, request, from);
  reply.Guard([&] {
    auto* source = dynamic_cast<GuestDir*>(&from);
    auto* target = dynamic_cast<GuestDir*>(&to);
    // mv(1) copies then.
    if (source == nullptr || target == nullptr ||
        &source->place() != &target->place()) {
      throw Error(EXDEV, fmt::format("Cannot rename '{}' to '{}': one is in a "
                                     "guest, and the other is not there; copy "
                                     "it",
                                     name, new_name));
    }
    if ((flags & ~unsigned{RENAME_NOREPLACE}) != 0) {
      throw Error(EINVAL, fmt::format("Cannot rename '{}' to '{}': names "
                                      "cannot be exchanged here",
                                      name, new_name));
    }
    source->Move(request->caller, name, *target, new_name,
                 (flags & RENAME_NOREPLACE) != 0, reply);
  });
}

void Create(Server& server, const RequestPtr& request, Dir& dir,
            const char* name, mode_t mode, int flags) {
  const auto reply =
      ReplyFor<Made>(request, [&server, request](const Made& made) {
        AnswerMade(server, request, made);
      });
  Begin(server, request, dir, reply);
  reply.Guard([&] {
    Of(dir).MakeFile(request->caller, name, flags, mode & 07777, reply);
  });
}

void Statfs(Server& server, const RequestPtr& request, const Node& node) {
  const auto reply =
      ReplyFor<FileSpace>(request, [request](const FileSpace& space) {
        struct statvfs stat {};
        // A guest said it.
        constexpr uint64_t kLargest = 1 << 20;
        stat.f_bsize = stat.f_frsize =
            std::clamp<uint64_t>(space.block, 512, kLargest);
        stat.f_blocks = space.blocks;
        stat.f_bfree = space.free;
        stat.f_bavail = space.available;
        stat.f_files = space.files;
        stat.f_ffree = stat.f_favail = space.free_files;
        stat.f_namemax = 255;
        request->Answer([&](fuse_req_t raw) { fuse_reply_statfs(raw, &stat); });
      });
  Begin(server, request, node, reply);
  const GuestPathPtr path = dynamic_cast<const GuestThing&>(node).path();
  path->place()->Ask(
      reply, [path](FileTree& tree) { return tree.Space(path->Path()); });
}

bool IsRoot(const Node& node) {
  const auto* thing = dynamic_cast<const GuestThing*>(&node);
  return thing != nullptr && thing->path()->Path().empty();
}

void Setattr(Server& server, const RequestPtr& request, uint64_t number,
             const NodePtr& node, const struct stat& stat, int what,
             const OpenFilePtr& open) {
  const auto answer =
      ReplyFor<struct stat>(request, [request, node, number](struct stat now) {
        now.st_ino = number;
        request->Answer([&](fuse_req_t raw) {
          fuse_reply_attr(raw, &now, KernelCache::ForAttributes(*node));
        });
      });
  Begin(server, request, *node, answer);
  const Caller caller = request->caller;
  const Reply<Done> changed([node, caller, answer](Outcome<Done> outcome) {
    if (auto* error = std::get_if<Error>(&outcome)) {
      answer.Fail(std::move(*error));
      return;
    }
    answer.Guard([&] { node->FreshStat(caller, answer); });
  });
  answer.OnCancel(changed.Canceller());
  changed.Guard([&] {
    FileChanges changes = ChangesOf(stat, what);
    const auto* thing = dynamic_cast<GuestThing*>(node.get());
    if (thing == nullptr || !changes.size || !open) {
      if (thing == nullptr) throw Error(EPERM, "Cannot change it");
      thing->Alter(changes, changed);
      return;
    }
    // What is open is cut, whatever its name leads to, and then the rest set.
    const uint64_t size = *std::exchange(changes.size, std::nullopt);
    const Reply<Done> cut(
        [node, thing, changes, changed](Outcome<Done> outcome) {
          if (auto* error = std::get_if<Error>(&outcome)) {
            changed.Fail(std::move(*error));
            return;
          }
          changed.Guard([&] { thing->Alter(changes, changed); });
        });
    cut.Guard([&] { open->Truncate(caller, size, cut); });
  });
}

}  // namespace sbxfs::guest
