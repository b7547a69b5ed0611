#ifndef SBXFS_FS_GUEST_OPS_H_
#define SBXFS_FS_GUEST_OPS_H_

#include "backend/file_tree.h"
#include "fs/handler.h"

// What the handlers do with files of guests (Node::Foreign): it takes as long
// as a guest does, can be interrupted, and is in no audit. No errno that a
// guest gave is told in an error file, but that it cannot be asked at all.

namespace sbxfs::guest {

// Whoever waits can be interrupted, and told why the guest cannot be reached.
// To be called before the work begins.
template <typename T>
void Begin(Server& server, const RequestPtr& request, const Node& node,
           const Reply<T>& reply) {
  request->OnFailure([tree = server.tree, subject = node.subject,
                      uid = request->caller.uid](const Error& error) {
    switch (error.Errno()) {
      case EHOSTDOWN:
      case EHOSTUNREACH:
      case EKEYREJECTED:
      case EOPNOTSUPP:
      case ETIMEDOUT:
        tree->errors.Failed(subject, uid, error.Sentence());
        break;
      default:
        break;
    }
  });
  request->Interruptible(reply.Canceller());
}

void Mkdir(Server& server, const RequestPtr& request, Dir& dir,
           const char* name, mode_t mode);
void Symlink(Server& server, const RequestPtr& request, Dir& dir,
             const char* name, const char* target);
void Link(Server& server, const RequestPtr& request, Dir& dir, const char* name,
          const NodePtr& file);
// unlink, or rmdir.
void Remove(Server& server, const RequestPtr& request, Dir& dir,
            const char* name, bool is_dir);
// One of the two is a guest's at least.
void Rename(Server& server, const RequestPtr& request, Dir& from,
            const char* name, Dir& to, const char* new_name, unsigned flags);
void Create(Server& server, const RequestPtr& request, Dir& dir,
            const char* name, mode_t mode, int flags);
void Statfs(Server& server, const RequestPtr& request, const Node& node);
// Whether it is the directory `fs`, whose attributes are the sandbox's.
[[nodiscard]] bool IsRoot(const Node& node);
void Setattr(Server& server, const RequestPtr& request, uint64_t number,
             const NodePtr& node, const struct stat& stat, int what,
             const OpenFilePtr& open);

}  // namespace sbxfs::guest

#endif  // SBXFS_FS_GUEST_OPS_H_
