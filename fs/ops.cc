#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>

#include "fs/server.h"

// The handlers: decode, call one node, answer once. None waits for the
// backend. Calls are made under the reply's Guard: a reply that is dropped
// while an exception passes would answer before the exception is caught.

namespace sbxfs {
namespace {

// While a mkdir, rmdir, rename or create is unanswered the kernel holds its
// directory, and everybody who looks into it hangs.
constexpr std::chrono::seconds kNamespaceLimit{2};

Server& ServerOf(fuse_req_t raw) {
  return *static_cast<Server*>(fuse_req_userdata(raw));
}

template <typename F>
void Handle(fuse_req_t raw, F&& work) {
  Server& server = ServerOf(raw);
  const RequestPtr request = server.requests->Begin(raw);
  Run(request, [&] { work(server, request); });
}

NodePtr NodeAt(Server& server, fuse_ino_t number) {
  if (auto node = server.inodes.Find(number)) return node;
  throw Error(ESTALE, "Cannot go on: the file is not known any more");
}

std::shared_ptr<Dir> DirAt(Server& server, fuse_ino_t number) {
  if (auto dir = std::dynamic_pointer_cast<Dir>(NodeAt(server, number))) {
    return dir;
  }
  throw Error(ENOTDIR, "Cannot go on: it is not a directory");
}

OpenFilePtr OpenAt(Server& server, const fuse_file_info* info) {
  if (auto open = server.files.Find(info->fh)) return open;
  throw Error(EBADF, "Cannot go on: the file is not open");
}

// The request changes something of `subject`: its failure is told in the error
// file there.
void Changing(Server& server, const RequestPtr& request,
              const std::string& subject) {
  request->OnFailure(
      [tree = server.tree, subject, uid = request->caller.uid](const Error& e) {
        if (IsFailure(e)) tree->errors.Failed(subject, uid, e.Sentence());
      });
}

template <typename T>
Reply<T> Limited(Server& server, Reply<T> reply, std::string_view verb,
                 const std::string& name) {
  return server.tree->Within(
      kNamespaceLimit, std::move(reply),
      Error(ETIMEDOUT,
            fmt::format("Cannot {} '{}': the hypervisor did not answer within "
                        "2 s; what was begun is undone, look again later",
                        verb, name)));
}

Reply<Done> DoneFor(const RequestPtr& request) {
  return ReplyFor<Done>(request, [request](Done) {
    request->Answer([](fuse_req_t raw) { fuse_reply_err(raw, 0); });
  });
}

// The kernel asks again each time: what a name stands for may change behind
// its back.
fuse_entry_param EntryFor(const struct stat& stat, uint64_t number) {
  fuse_entry_param entry{};
  entry.ino = number;
  entry.attr = stat;
  entry.attr.st_ino = number;
  return entry;
}

void AnswerEntry(Server& server, const RequestPtr& request,
                 const NodePtr& node) {
  const struct stat stat = node->Stat(request->caller);
  request->Answer([&](fuse_req_t raw) {
    const auto entry = EntryFor(stat, server.inodes.Remember(node));
    // The caller was killed meanwhile: the kernel does not count it.
    if (fuse_reply_entry(raw, &entry) != 0) server.inodes.Forget(entry.ino, 1);
  });
}

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

void Forget(fuse_req_t raw, fuse_ino_t number, uint64_t count) {
  ServerOf(raw).inodes.Forget(number, count);
  fuse_reply_none(raw);
}

void ForgetMulti(fuse_req_t raw, size_t count, fuse_forget_data* forgets) {
  for (size_t i = 0; i < count; ++i) {
    ServerOf(raw).inodes.Forget(forgets[i].ino, forgets[i].nlookup);
  }
  fuse_reply_none(raw);
}

Reply<struct stat> AttrFor(const RequestPtr& request, uint64_t number,
                           const OpenFilePtr& open) {
  return ReplyFor<struct stat>(request, [=](struct stat stat) {
    stat.st_ino = number;
    if (open) {
      if (const auto size = open->Size()) {
        stat.st_size = static_cast<off_t>(*size);
      }
    }
    request->Answer([&](fuse_req_t raw) { fuse_reply_attr(raw, &stat, 0); });
  });
}

void Getattr(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    const OpenFilePtr open =
        info != nullptr ? server.files.Find(info->fh) : nullptr;
    const auto reply = AttrFor(request, number, open);
    reply.Guard([&] { node->FreshStat(request->caller, reply); });
  });
}

void Setattr(fuse_req_t raw, fuse_ino_t number, struct stat* stat, int what,
             fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    Changing(server, request, node->subject);
    Changes changes;
    if ((what & FUSE_SET_ATTR_MODE) != 0) changes.mode = stat->st_mode & 07777;
    if ((what & FUSE_SET_ATTR_UID) != 0) changes.uid = stat->st_uid;
    if ((what & FUSE_SET_ATTR_GID) != 0) changes.gid = stat->st_gid;
    const OpenFilePtr open =
        info != nullptr ? server.files.Find(info->fh) : nullptr;
    const Caller caller = request->caller;
    const auto answer = AttrFor(request, number, open);
    const Reply<Done> done = Limited(
        server,
        answer.Then<Done>([node, caller](Done) { return node->Stat(caller); }),
        "change", "attributes");
    // Truncation changes nothing but what an open file has staged.
    if ((what & FUSE_SET_ATTR_SIZE) == 0 || !open) {
      done.Guard([&] { node->Change(caller, changes, done); });
      return;
    }
    Reply<Done> cut([node, caller, changes, done](Outcome<Done> outcome) {
      if (auto* error = std::get_if<Error>(&outcome)) {
        done.Fail(std::move(*error));
        return;
      }
      done.Guard([&] { node->Change(caller, changes, done); });
    });
    cut.Guard([&] {
      open->Truncate(caller, static_cast<uint64_t>(stat->st_size), cut);
    });
  });
}

void Mkdir(fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t mode) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    Changing(server, request, dir->subject);
    const auto reply =
        Limited(server,
                ReplyFor<NodePtr>(request,
                                  [&server, request](const NodePtr& node) {
                                    AnswerEntry(server, request, node);
                                  }),
                "make", name);
    reply.Guard(
        [&] { dir->MakeDir(request->caller, name, mode & 0777, reply); });
  });
}

// What a name in a directory belongs to, for its error file.
std::string SubjectOf(Dir& dir, const Caller& caller, const std::string& name) {
  const NodePtr node = dir.Lookup(caller, name);
  return node && !node->subject.empty() ? node->subject : dir.subject;
}

void Rmdir(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    Changing(server, request, SubjectOf(*dir, request->caller, name));
    const auto reply = Limited(server, DoneFor(request), "remove", name);
    reply.Guard([&] { dir->RemoveDir(request->caller, name, reply); });
  });
}

void Unlink(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, parent);
    Changing(server, request, dir->subject);
    const auto reply = Limited(server, DoneFor(request), "remove", name);
    reply.Guard([&] { dir->Unlink(request->caller, name, reply); });
  });
}

void Rename(fuse_req_t raw, fuse_ino_t parent, const char* name,
            fuse_ino_t new_parent, const char* new_name, unsigned flags) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto from = DirAt(server, parent);
    const auto to = DirAt(server, new_parent);
    const Caller& caller = request->caller;
    Changing(server, request, SubjectOf(*from, caller, name));
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
    const auto reply = Limited(server, DoneFor(request), "rename", name);
    reply.Guard([&] { from->Rename(caller, name, *to, new_name, reply); });
  });
}

void Open(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto file = std::dynamic_pointer_cast<File>(NodeAt(server, number));
    if (!file) throw Error(EISDIR, "Cannot open: it is a directory");
    if ((info->flags & O_ACCMODE) != O_RDONLY) {
      Changing(server, request, file->subject);
    }
    const auto reply = ReplyFor<OpenFilePtr>(
        request, [&server, request](const OpenFilePtr& open) {
          request->Answer([&](fuse_req_t req) {
            fuse_file_info opened{};
            // Sizes change at any time: the kernel must not trust its own.
            opened.direct_io = 1;
            opened.fh = server.files.Add(open);
            if (fuse_reply_open(req, &opened) != 0) {
              server.files.Remove(opened.fh);
            }
          });
        });
    request->Interruptible(reply.Canceller());
    reply.Guard([&] { file->Open(request->caller, info->flags, reply); });
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
                EntryFor(stat, server.inodes.Remember(made.node));
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

void Read(fuse_req_t raw, fuse_ino_t, size_t size, off_t offset,
          fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto reply =
        ReplyFor<std::string>(request, [request](const std::string& bytes) {
          request->Answer([&](fuse_req_t req) {
            fuse_reply_buf(req, bytes.data(), bytes.size());
          });
        });
    request->Interruptible(reply.Canceller());
    reply.Guard([&] {
      OpenAt(server, info)
          ->Read(request->caller, static_cast<uint64_t>(offset), size, reply);
    });
  });
}

void Write(fuse_req_t raw, fuse_ino_t number, const char* bytes, size_t size,
           off_t offset, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    Changing(server, request, node->subject);
    request->Hold(server.inodes.Waiting(number));
    const auto reply = ReplyFor<Done>(request, [request, size](Done) {
      request->Answer([&](fuse_req_t req) { fuse_reply_write(req, size); });
    });
    request->Interruptible(reply.Canceller());
    reply.Guard([&] {
      OpenAt(server, info)
          ->Write(request->caller, static_cast<uint64_t>(offset),
                  std::string(bytes, size), info->flags, reply);
    });
  });
}

void Flush(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    Changing(server, request, NodeAt(server, number)->subject);
    const auto reply = DoneFor(request);
    reply.Guard([&] { OpenAt(server, info)->Flush(request->caller, reply); });
  });
}

void Fsync(fuse_req_t raw, fuse_ino_t number, int, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    Changing(server, request, NodeAt(server, number)->subject);
    const auto reply = DoneFor(request);
    reply.Guard([&] { OpenAt(server, info)->Sync(request->caller, reply); });
  });
}

void Release(fuse_req_t raw, fuse_ino_t, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    server.pollers.Disarm(info->fh);
    if (const auto open = server.files.Remove(info->fh)) open->Release();
    request->Answer([](fuse_req_t req) { fuse_reply_err(req, 0); });
  });
}

void Opendir(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto dir = DirAt(server, number);
    auto open = std::make_shared<OpenDir>();
    open->items = {{".", number, S_IFDIR}, {"..", number, S_IFDIR}};
    for (auto& entry : dir->List(request->caller)) {
      const bool is_dir = dynamic_cast<Dir*>(entry.node.get()) != nullptr;
      open->items.push_back({std::move(entry.name),
                             server.inodes.Number(*entry.node),
                             is_dir ? mode_t{S_IFDIR} : mode_t{S_IFREG}});
    }
    request->Answer([&](fuse_req_t req) {
      info->fh = server.dirs.Add(std::move(open));
      if (fuse_reply_open(req, info) != 0) server.dirs.Remove(info->fh);
    });
  });
}

void Readdir(fuse_req_t raw, fuse_ino_t, size_t size, off_t offset,
             fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto open = server.dirs.Find(info->fh);
    if (!open) throw Error(EBADF, "Cannot list: the directory is not open");
    std::string buffer(size, '\0');
    size_t used = 0;
    for (auto i = static_cast<size_t>(offset); i < open->items.size(); ++i) {
      const auto& item = open->items[i];
      struct stat stat {};
      stat.st_ino = item.number;
      stat.st_mode = item.mode;
      const size_t length = fuse_add_direntry(nullptr, buffer.data() + used,
                                              size - used, item.name.c_str(),
                                              &stat, static_cast<off_t>(i + 1));
      if (length > size - used) break;
      used += length;
    }
    request->Answer(
        [&](fuse_req_t req) { fuse_reply_buf(req, buffer.data(), used); });
  });
}

void Releasedir(fuse_req_t raw, fuse_ino_t, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    server.dirs.Remove(info->fh);
    request->Answer([](fuse_req_t req) { fuse_reply_err(req, 0); });
  });
}

void Poll(fuse_req_t raw, fuse_ino_t, fuse_file_info* info,
          fuse_pollhandle* raw_handle) {
  PollHandle handle(raw_handle);
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto open = OpenAt(server, info);
    constexpr unsigned kReadable = POLLIN | POLLRDNORM;
    constexpr unsigned kWritable = POLLOUT | POLLWRNORM;
    unsigned events = kReadable | kWritable;
    if (open->Pollable()) {
      // Armed before it is looked at, so that no change falls between.
      if (handle) {
        server.pollers.Arm(info->fh, open, request->caller, std::move(handle));
      }
      events = kWritable;
      if (open->Unread(request->caller)) events |= kReadable | POLLPRI;
    }
    request->Answer([&](fuse_req_t req) { fuse_reply_poll(req, events); });
  });
}

void Statfs(fuse_req_t raw, fuse_ino_t) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto host = server.tree->backend.GetHost();
    struct statvfs stat {};
    stat.f_bsize = stat.f_frsize = 4096;
    stat.f_blocks = host->pool_size / 4096;
    stat.f_bfree = stat.f_bavail = host->pool_available / 4096;
    stat.f_namemax = 255;
    request->Answer([&](fuse_req_t req) { fuse_reply_statfs(req, &stat); });
  });
}

void Lseek(fuse_req_t raw, fuse_ino_t number, off_t offset, int whence,
           fuse_file_info*) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const off_t size = NodeAt(server, number)->Stat(request->caller).st_size;
    if (offset >= size) throw Error(ENXIO, "Cannot seek: beyond the end");
    const off_t found = whence == SEEK_HOLE ? size : offset;
    request->Answer([&](fuse_req_t req) { fuse_reply_lseek(req, found); });
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

void Init(void* data, fuse_conn_info* connection) {
  connection->want &= ~unsigned{FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                                FUSE_CAP_SPLICE_MOVE | FUSE_CAP_ASYNC_DIO};
  auto& server = *static_cast<Server*>(data);
  if (auto ready = std::exchange(server.on_ready, nullptr)) ready();
}

fuse_lowlevel_ops MakeOps() {
  fuse_lowlevel_ops ops{};
  ops.init = Init;
  ops.lookup = Lookup;
  ops.forget = Forget;
  ops.forget_multi = ForgetMulti;
  ops.getattr = Getattr;
  ops.setattr = Setattr;
  ops.mkdir = Mkdir;
  ops.rmdir = Rmdir;
  ops.unlink = Unlink;
  ops.rename = Rename;
  ops.open = Open;
  ops.create = Create;
  ops.read = Read;
  ops.write = Write;
  ops.flush = Flush;
  ops.fsync = Fsync;
  ops.release = Release;
  ops.opendir = Opendir;
  ops.readdir = Readdir;
  ops.releasedir = Releasedir;
  ops.poll = Poll;
  ops.statfs = Statfs;
  ops.lseek = Lseek;
  ops.mknod = [](fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t,
                 dev_t) { Refuse(raw, parent, name); };
  ops.symlink = [](fuse_req_t raw, const char*, fuse_ino_t parent,
                   const char* name) { Refuse(raw, parent, name); };
  ops.link = [](fuse_req_t raw, fuse_ino_t, fuse_ino_t parent,
                const char* name) { Refuse(raw, parent, name); };
  ops.readlink = [](fuse_req_t raw, fuse_ino_t) {
    fuse_reply_err(raw, EINVAL);
  };
  ops.access = [](fuse_req_t raw, fuse_ino_t, int) { fuse_reply_err(raw, 0); };
  ops.fsyncdir = [](fuse_req_t raw, fuse_ino_t, int, fuse_file_info*) {
    fuse_reply_err(raw, 0);
  };
  ops.getxattr = [](fuse_req_t raw, fuse_ino_t, const char*, size_t) {
    fuse_reply_err(raw, EOPNOTSUPP);
  };
  ops.listxattr = [](fuse_req_t raw, fuse_ino_t, size_t) {
    fuse_reply_err(raw, EOPNOTSUPP);
  };
  ops.setxattr = [](fuse_req_t raw, fuse_ino_t, const char*, const char*,
                    size_t, int) { fuse_reply_err(raw, EOPNOTSUPP); };
  ops.removexattr = [](fuse_req_t raw, fuse_ino_t, const char*) {
    fuse_reply_err(raw, EOPNOTSUPP);
  };
  ops.ioctl = [](fuse_req_t raw, fuse_ino_t, unsigned, void*, fuse_file_info*,
                 unsigned, const void*, size_t,
                 size_t) { fuse_reply_err(raw, ENOTTY); };
  ops.fallocate = [](fuse_req_t raw, fuse_ino_t, int, off_t, off_t,
                     fuse_file_info*) { fuse_reply_err(raw, EOPNOTSUPP); };
  ops.copy_file_range = [](fuse_req_t raw, fuse_ino_t, off_t, fuse_file_info*,
                           fuse_ino_t, off_t, fuse_file_info*, size_t,
                           int) { fuse_reply_err(raw, EOPNOTSUPP); };
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& LowlevelOps() {
  static const fuse_lowlevel_ops kOps = MakeOps();
  return kOps;
}

}  // namespace sbxfs
