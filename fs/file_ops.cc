#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>

#include <cerrno>

#include "backend/util/text.h"
#include "fs/audit.h"
#include "fs/handler.h"

// The handlers of files that are open.

namespace sbxfs {
namespace {

void Open(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto file = std::dynamic_pointer_cast<File>(NodeAt(server, number));
    if (!file) throw Error(EISDIR, "Cannot open: it is a directory");
    const bool writing = (info->flags & O_ACCMODE) != O_RDONLY;
    // The kernel looks the name up again and comes with another inode.
    if (writing && file->Overtakable() && server.inodes.IsWaiting(number)) {
      throw Error(ESTALE, "Cannot open: a write to it waits, look it up again");
    }
    if (writing) Changing(server, request, file->subject);
    // What is opened to be read alone has nothing that a flush would store.
    const bool reading = !writing && (info->flags & O_TRUNC) == 0;
    const auto reply = ReplyFor<OpenFilePtr>(
        request, [&server, request, reading](const OpenFilePtr& open) {
          request->Answer([&](fuse_req_t req) {
            fuse_file_info opened{};
            // Sizes change at any time: the kernel must not trust its own.
            opened.direct_io = 1;
            opened.noflush = reading;
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
    const auto open = OpenAt(server, info);
    if (open->Commands()) {
      Audit(
          server, request,
          {"write", PathOf(*server.tree, *node), node->subject,
           node->Hidden() ? "(hidden)"
                          : std::string(Trim(std::string_view(bytes, size)))});
    }
    request->Hold(server.inodes.Waiting(number));
    auto reply = ReplyFor<Done>(request, [request, size](Done) {
      request->Answer([&](fuse_req_t req) { fuse_reply_write(req, size); });
    });
    if (open->Commands()) reply = Settled(server, node->subject, reply);
    request->Interruptible(reply.Canceller());
    reply.Guard([&] {
      open->Write(request->caller, static_cast<uint64_t>(offset),
                  std::string(bytes, size), info->flags, reply);
    });
  });
}

// What an open file has staged is stored now, if it is.
OpenFilePtr Storing(Server& server, const RequestPtr& request,
                    fuse_ino_t number, const fuse_file_info* info) {
  const NodePtr node = NodeAt(server, number);
  auto open = OpenAt(server, info);
  Changing(server, request, node->subject);
  if (const auto staged = open->Staged(request->caller)) {
    Audit(server, request,
          {"store", PathOf(*server.tree, *node), node->subject,
           fmt::format("{} bytes", *staged)});
  }
  return open;
}

Reply<Done> StoredFor(Server& server, const RequestPtr& request,
                      const OpenFilePtr& open, fuse_ino_t number) {
  const auto reply = DoneFor(request);
  if (!open->Staged(request->caller)) return reply;
  return Settled(server, NodeAt(server, number)->subject, reply);
}

void Flush(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto open = Storing(server, request, number, info);
    const auto reply = StoredFor(server, request, open, number);
    reply.Guard([&] { open->Flush(request->caller, reply); });
  });
}

void Fsync(fuse_req_t raw, fuse_ino_t number, int, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const auto open = Storing(server, request, number, info);
    const auto reply = StoredFor(server, request, open, number);
    reply.Guard([&] { open->Sync(request->caller, reply); });
  });
}

void Release(fuse_req_t raw, fuse_ino_t, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    server.pollers.Disarm(info->fh);
    if (const auto open = server.files.Remove(info->fh)) open->Release();
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

void Lseek(fuse_req_t raw, fuse_ino_t number, off_t offset, int whence,
           fuse_file_info*) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const off_t size = NodeAt(server, number)->Stat(request->caller).st_size;
    if (offset >= size) throw Error(ENXIO, "Cannot seek: beyond the end");
    const off_t found = whence == SEEK_HOLE ? size : offset;
    request->Answer([&](fuse_req_t req) { fuse_reply_lseek(req, found); });
  });
}

}  // namespace

void AddFileOps(fuse_lowlevel_ops& ops) {
  ops.open = Open;
  ops.read = Read;
  ops.write = Write;
  ops.flush = Flush;
  ops.fsync = Fsync;
  ops.release = Release;
  ops.poll = Poll;
  ops.lseek = Lseek;
}

}  // namespace sbxfs
