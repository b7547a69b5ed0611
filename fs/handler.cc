#include "fs/handler.h"

#include <fmt/format.h>

#include <cerrno>

#include "fs/tree/guest_files.h"

namespace sbxfs {

NodePtr NodeAt(Server& server, fuse_ino_t number) {
  if (auto node = server.inodes.Find(number)) return node;
  if (server.resumed) {
    if (auto node = server.Locate(number)) return node;
  }
  throw Error(ESTALE, "Cannot go on: the file is not known any more");
}

std::shared_ptr<Dir> DirAt(Server& server, fuse_ino_t number) {
  if (auto dir = std::dynamic_pointer_cast<Dir>(NodeAt(server, number))) {
    return dir;
  }
  throw Error(ENOTDIR, "Cannot go on: it is not a directory");
}

void WithOpen(Server& server, const RequestPtr& request, uint64_t number,
              const fuse_file_info& info,
              std::function<void(const OpenFilePtr&)> then) {
  if (const auto open = server.files.Find(info.fh)) {
    then(open);
    return;
  }
  const auto file = std::dynamic_pointer_cast<File>(NodeAt(server, number));
  if (!server.resumed || !file) {
    throw Error(EBADF, "Cannot go on: the file is not open");
  }
  const auto reply = ReplyFor<OpenFilePtr>(
      request,
      [&server, fh = info.fh, then = std::move(then)](const OpenFilePtr& open) {
        then(server.files.Adopt(fh, open));
      });
  reply.Guard(
      [&] { file->Reopen(request->caller, info.flags, server.whole, reply); });
}

void Changing(Server& server, const RequestPtr& request,
              const std::string& subject) {
  request->OnFailure(
      [tree = server.tree, subject, uid = request->caller.uid](const Error& e) {
        if (IsFailure(e)) tree->errors.Failed(subject, uid, e.Sentence());
      });
}

Error Late(std::string_view verb, const std::string& name) {
  return {ETIMEDOUT,
          fmt::format("Cannot {} '{}': the hypervisor did not answer within "
                      "2 s; what was begun is undone, look again later",
                      verb, name)};
}

Reply<Done> DoneFor(const RequestPtr& request) {
  return ReplyFor<Done>(request, [request](Done) {
    request->Answer([](fuse_req_t raw) { fuse_reply_err(raw, 0); });
  });
}

fuse_entry_param EntryFor(const Node& node, const struct stat& stat,
                          uint64_t number) {
  fuse_entry_param entry{};
  entry.ino = number;
  entry.attr = stat;
  entry.attr.st_ino = number;
  entry.attr_timeout = KernelCache::ForAttributes(node);
  entry.entry_timeout = KernelCache::ForName(node);
  return entry;
}

void AnswerEntry(Server& server, const RequestPtr& request,
                 const NodePtr& node) {
  const struct stat stat = node->Stat(request->caller);
  request->Answer([&](fuse_req_t raw) {
    const auto entry = EntryFor(*node, stat, server.inodes.Remember(node));
    if (S_ISDIR(stat.st_mode)) NoteGuest(*node);
    // The caller was killed meanwhile: the kernel does not count it.
    if (fuse_reply_entry(raw, &entry) != 0) server.inodes.Forget(entry.ino, 1);
  });
}

void AnswerMade(Server& server, const RequestPtr& request, const Made& made) {
  const struct stat stat = made.node->Stat(request->caller);
  request->Answer([&](fuse_req_t req) {
    fuse_file_info opened{};
    opened.direct_io = made.file->Cached() ? 0 : 1;
    opened.fh = server.files.Add(made.file);
    const auto entry =
        EntryFor(*made.node, stat, server.inodes.Remember(made.node));
    if (fuse_reply_create(req, &entry, &opened) != 0) {
      server.files.Remove(opened.fh)->Release();
      server.inodes.Forget(entry.ino, 1);
    }
  });
}

}  // namespace sbxfs
