#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/util/text.h"
#include "fs/audit.h"
#include "fs/guest_ops.h"
#include "fs/handler.h"

// The table of handlers, and those of nodes as such.

namespace sbxfs {
namespace {

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
                           const NodePtr& node, const OpenFilePtr& open) {
  return ReplyFor<struct stat>(request, [=](struct stat stat) {
    stat.st_ino = number;
    if (open) {
      if (const auto size = open->Size()) {
        stat.st_size = static_cast<off_t>(*size);
      }
    }
    request->Answer([&](fuse_req_t raw) {
      fuse_reply_attr(raw, &stat, KernelCache::ForAttributes(*node));
    });
  });
}

void Getattr(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    const OpenFilePtr open =
        info != nullptr ? server.files.Find(info->fh) : nullptr;
    const auto reply = AttrFor(request, number, node, open);
    if (node->Foreign()) guest::Begin(server, request, *node, reply);
    reply.Guard([&] { node->FreshStat(request->caller, reply); });
  });
}

std::string_view OperationOf(const Changes& changes) {
  return changes.mode ? "chmod" : "chown";
}

std::string Describe(const Changes& changes) {
  std::string text;
  if (changes.mode) text += fmt::format("{:04o}", *changes.mode);
  if (changes.uid) text += fmt::format(" uid {}", *changes.uid);
  if (changes.gid) text += fmt::format(" gid {}", *changes.gid);
  return std::string(Trim(text));
}

void Setattr(fuse_req_t raw, fuse_ino_t number, struct stat* stat, int what,
             fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    const OpenFilePtr open =
        info != nullptr ? server.files.Find(info->fh) : nullptr;
    // `fs` itself is the sandbox's.
    if (node->Foreign() && !guest::IsRoot(*node)) {
      guest::Setattr(server, request, number, node, *stat, what, open);
      return;
    }
    Changing(server, request, node->subject);
    Changes changes;
    if ((what & FUSE_SET_ATTR_MODE) != 0) changes.mode = stat->st_mode & 07777;
    if ((what & FUSE_SET_ATTR_UID) != 0) changes.uid = stat->st_uid;
    if ((what & FUSE_SET_ATTR_GID) != 0) changes.gid = stat->st_gid;
    if (changes != Changes() && !node->Transient()) {
      Audit(server, request,
            {OperationOf(changes), PathOf(*server.tree, *node), node->subject,
             Describe(changes)});
    }
    const Caller caller = request->caller;
    const auto answer = AttrFor(request, number, node, open);
    const Reply<Done> done = Limited(
        server,
        Settled(server, node->subject, answer.Then<Done>([node, caller](Done) {
          return node->Stat(caller);
        })),
        "change", "attributes");
    // Truncation changes nothing but what an open file has staged, and what
    // lives in memory alone.
    if ((what & FUSE_SET_ATTR_SIZE) == 0 || !open) {
      done.Guard([&] {
        const auto file = std::dynamic_pointer_cast<File>(node);
        if ((what & FUSE_SET_ATTR_SIZE) != 0 && file) {
          file->Truncate(static_cast<uint64_t>(stat->st_size));
        }
        node->Change(caller, changes, done);
      });
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

void Readlink(fuse_req_t raw, fuse_ino_t number) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto link = std::dynamic_pointer_cast<Link>(NodeAt(server, number));
    if (!link) {
      request->Answer([](fuse_req_t req) { fuse_reply_err(req, EINVAL); });
      return;
    }
    const auto reply =
        ReplyFor<std::string>(request, [request](const std::string& target) {
          request->Answer([&](fuse_req_t req) {
            fuse_reply_readlink(req, target.c_str());
          });
        });
    if (link->Foreign()) guest::Begin(server, request, *link, reply);
    reply.Guard([&] { link->FindTarget(request->caller, reply); });
  });
}

void Statfs(fuse_req_t raw, fuse_ino_t number) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    if (node->Foreign()) {
      guest::Statfs(server, request, *node);
      return;
    }
    const auto host = server.tree->backend.GetHost();
    struct statvfs stat {};
    stat.f_bsize = stat.f_frsize = 4096;
    stat.f_blocks = host->pool_size / 4096;
    stat.f_bfree = stat.f_bavail = host->pool_available / 4096;
    stat.f_namemax = 255;
    request->Answer([&](fuse_req_t req) { fuse_reply_statfs(req, &stat); });
  });
}

void Init(void* data, fuse_conn_info* connection) {
  connection->want &= ~unsigned{FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                                FUSE_CAP_SPLICE_MOVE | FUSE_CAP_ASYNC_DIO};
  // What a request of Channel's holds.
  connection->max_write =
      std::min(connection->max_write, Channel::kMostWritten);
  auto& server = *static_cast<Server*>(data);
  if (auto ready = std::exchange(server.on_ready, nullptr)) ready();
}

// There are no extended attributes: without handlers libfuse answers ENOSYS,
// which the kernel turns into EOPNOTSUPP and, asked no more, goes on to say.
fuse_lowlevel_ops MakeOps() {
  fuse_lowlevel_ops ops{};
  ops.init = Init;
  ops.forget = Forget;
  ops.forget_multi = ForgetMulti;
  ops.getattr = Getattr;
  ops.setattr = Setattr;
  ops.statfs = Statfs;
  AddNameOps(ops);
  AddFileOps(ops);
  ops.readlink = Readlink;
  ops.access = [](fuse_req_t raw, fuse_ino_t, int) { fuse_reply_err(raw, 0); };
  ops.fsyncdir = [](fuse_req_t raw, fuse_ino_t, int, fuse_file_info*) {
    fuse_reply_err(raw, 0);
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
