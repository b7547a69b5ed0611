#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>

#include <cerrno>

#include "backend/util/text.h"
#include "fs/audit.h"
#include "fs/guest_ops.h"
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
    if (writing && !file->Foreign()) Changing(server, request, file->subject);
    // What is opened to be read alone has nothing that a flush would store.
    const bool reading = !writing && (info->flags & O_TRUNC) == 0;
    const auto reply = ReplyFor<OpenFilePtr>(
        request, [&server, request, reading](const OpenFilePtr& open) {
          request->Answer([&](fuse_req_t req) {
            fuse_file_info opened{};
            // Sizes change at any time: the kernel must not trust its own.
            opened.direct_io = open->Cached() ? 0 : 1;
            opened.noflush = reading;
            opened.fh = server.files.Add(open);
            if (fuse_reply_open(req, &opened) != 0) {
              server.files.Remove(opened.fh);
            }
          });
        });
    if (file->Foreign()) {
      guest::Begin(server, request, *file, reply);
    } else {
      request->Interruptible(reply.Canceller());
    }
    reply.Guard([&] { file->Open(request->caller, info->flags, reply); });
  });
}

void Read(fuse_req_t raw, fuse_ino_t number, size_t size, off_t offset,
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
      WithOpen(server, request, number, *info, [=](const OpenFilePtr& open) {
        reply.Guard([&] {
          open->Read(request->caller, static_cast<uint64_t>(offset), size,
                     reply);
        });
      });
    });
  });
}

// A command: the write is what it does.
Reply<Done> CommandFor(Server& server, const RequestPtr& request,
                       const NodePtr& node, OpenFile& open,
                       const std::string& bytes, const Reply<Done>& written) {
  if (open.MayRepeat(bytes)) {
    Channel::MayRepeat();
  } else if (request->caller.repeated) {
    throw Error(EIO,
                fmt::format("Cannot tell whether '{}' was done: the daemon "
                            "of this mount ended meanwhile; look, and "
                            "write it again if it was not",
                            Trim(bytes)));
  }
  Audit(server, request,
        {"write", PathOf(*server.tree, *node), node->subject,
         node->Hidden() ? "(hidden)" : std::string(Trim(bytes))});
  return Settled(server, node->subject, written);
}

void Write(fuse_req_t raw, fuse_ino_t number, const char* data, size_t size,
           off_t offset, fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    if (!node->Foreign()) {
      Changing(server, request, node->subject);
      request->Hold(server.inodes.Waiting(number));
    }
    const auto written = ReplyFor<Done>(request, [request, size](Done) {
      request->Answer([&](fuse_req_t req) { fuse_reply_write(req, size); });
    });
    std::string bytes(data, size);
    const auto write = [=, &server,
                        flags = info->flags](const OpenFilePtr& open) {
      written.Guard([&] {
        if (node->Foreign() && open->MayRepeat(bytes)) Channel::MayRepeat();
        const Reply<Done> reply =
            open->Commands()
                ? CommandFor(server, request, node, *open, bytes, written)
                : written;
        request->Interruptible(reply.Canceller());
        reply.Guard([&] {
          open->Write(request->caller, static_cast<uint64_t>(offset), bytes,
                      flags, reply);
        });
      });
    };
    written.Guard([&] { WithOpen(server, request, number, *info, write); });
  });
}

// What an open file has staged is stored now, if it is.
using Store = void (OpenFile::*)(const Caller&, Reply<Done>);
void Storing(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info,
             Store store) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    const Reply<Done> done = DoneFor(request);
    if (node->Foreign()) {
      // What is written is in the guest already; nothing is opened for that.
      const auto open = server.files.Find(info->fh);
      if (!open) {
        done.Ok();
        return;
      }
      guest::Begin(server, request, *node, done);
      done.Guard([&] { ((*open).*store)(request->caller, done); });
      return;
    }
    Changing(server, request, node->subject);
    const auto flush = [=, &server](const OpenFilePtr& open) {
      done.Guard([&] {
        Reply<Done> reply = done;
        if (const auto staged = open->Staged(request->caller)) {
          Audit(server, request,
                {"store", PathOf(*server.tree, *node), node->subject,
                 fmt::format("{} bytes", *staged)});
          reply = Settled(server, node->subject, done);
        }
        reply.Guard([&] { ((*open).*store)(request->caller, reply); });
      });
    };
    done.Guard([&] {
      // FUSE_FLUSH comes without the flags, for what was opened to be written.
      fuse_file_info opened = *info;
      opened.flags |= O_WRONLY;
      WithOpen(server, request, number, opened, flush);
    });
  });
}

void Flush(fuse_req_t raw, fuse_ino_t number, fuse_file_info* info) {
  Storing(raw, number, info, &OpenFile::Flush);
}

void Fsync(fuse_req_t raw, fuse_ino_t number, int, fuse_file_info* info) {
  Storing(raw, number, info, &OpenFile::Sync);
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
    const auto open = server.files.Find(info->fh);
    constexpr unsigned kReadable = POLLIN | POLLRDNORM;
    constexpr unsigned kWritable = POLLOUT | POLLWRNORM;
    unsigned events = kReadable | kWritable;
    // What was opened through another daemon is opened again when it is read.
    if (open && open->Pollable()) {
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
           fuse_file_info* info) {
  Handle(raw, [&](Server& server, const RequestPtr& request) {
    const NodePtr node = NodeAt(server, number);
    const auto open = server.files.Find(info->fh);
    // What this open file has, which need not be stored yet.
    const auto staged = open ? open->Size() : std::nullopt;
    const auto reply =
        ReplyFor<struct stat>(request, [=](const struct stat& stat) {
          const off_t size =
              staged ? static_cast<off_t>(*staged) : stat.st_size;
          if (offset >= size) throw Error(ENXIO, "Cannot seek: beyond the end");
          const off_t found = whence == SEEK_HOLE ? size : offset;
          request->Answer(
              [&](fuse_req_t req) { fuse_reply_lseek(req, found); });
        });
    reply.Guard([&] {
      if (node->Foreign()) {
        guest::Begin(server, request, *node, reply);
        node->FreshStat(request->caller, reply);
      } else {
        reply.Ok(node->Stat(request->caller));
      }
    });
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
