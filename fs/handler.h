#ifndef SBXFS_FS_HANDLER_H_
#define SBXFS_FS_HANDLER_H_

#include <fuse_lowlevel.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "fs/server.h"

// What the handlers have in common: decode, call one node, answer once. None
// waits for the backend. Calls are made under the reply's Guard: a reply that
// is dropped while an exception passes would answer before the exception is
// caught.

namespace sbxfs {

[[nodiscard]] inline Server& ServerOf(fuse_req_t raw) {
  return *static_cast<Server*>(fuse_req_userdata(raw));
}

template <typename F>
void Handle(fuse_req_t raw, F&& work) {
  Server& server = ServerOf(raw);
  const RequestPtr request = server.requests->Begin(raw);
  Run(request, [&] { work(server, request); });
}

[[nodiscard]] NodePtr NodeAt(Server& server, fuse_ino_t number);
[[nodiscard]] std::shared_ptr<Dir> DirAt(Server& server, fuse_ino_t number);
// Calls `then` with what is open, which may have to be opened again first when
// that was through another daemon. At once otherwise.
void WithOpen(Server& server, const RequestPtr& request, uint64_t number,
              const fuse_file_info& info,
              std::function<void(const OpenFilePtr&)> then);

// The request changes something of `subject`: its failure is told in the error
// file there.
void Changing(Server& server, const RequestPtr& request,
              const std::string& subject);

// While a mkdir, rmdir, rename or create is unanswered the kernel holds its
// directory, and everybody who looks into it hangs.
inline constexpr std::chrono::seconds kNamespaceLimit{2};
[[nodiscard]] Error Late(std::string_view verb, const std::string& name);
template <typename T>
Reply<T> Limited(Server& server, Reply<T> reply, std::string_view verb,
                 const std::string& name) {
  return server.tree->Within(kNamespaceLimit, std::move(reply),
                             Late(verb, name));
}

// Like `reply`, but success is told only when the kernel will ask anew for the
// attributes of `subject`: who made a change is the first to see it.
template <typename T>
Reply<T> Settled(Server& server, const std::string& subject,
                 const Reply<T>& reply) {
  if (subject.empty()) return reply;
  Reply<T> changed([tree = server.tree, subject, reply](Outcome<T> outcome) {
    if (std::holds_alternative<Error>(outcome)) {
      reply.Give(std::move(outcome));
      return;
    }
    tree->Settle(subject, [reply, outcome = std::move(outcome)] {
      reply.Give(outcome);
    });
  });
  reply.OnCancel(changed.Canceller());
  return changed;
}

[[nodiscard]] Reply<Done> DoneFor(const RequestPtr& request);

[[nodiscard]] fuse_entry_param EntryFor(const Node& node,
                                        const struct stat& stat,
                                        uint64_t number);
void AnswerEntry(Server& server, const RequestPtr& request,
                 const NodePtr& node);
// What creat(2) came to.
void AnswerMade(Server& server, const RequestPtr& request, const Made& made);

// Each adds its handlers to libfuse's table.
void AddNameOps(fuse_lowlevel_ops& ops);  // lookup, mkdir, rename, …
void AddFileOps(fuse_lowlevel_ops& ops);  // open, read, write, poll, …

}  // namespace sbxfs

#endif  // SBXFS_FS_HANDLER_H_
