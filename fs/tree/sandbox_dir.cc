#include "fs/tree/sandbox_dir.h"

#include "fs/attributes.h"

namespace sbxfs {

struct stat SandboxDir::Stat(const Caller& reader) {
  const View view = tree_->ViewFor(reader, subject);
  struct stat stat = SandboxStat(*view.sandbox);
  if (view.sandbox->trashed) stat.st_mode &= ~mode_t{0222};
  return stat;
}

void SandboxDir::Change(const Caller& caller, const Changes& changes,
                        Reply<Done> reply) {
  if (!changes.mode && !changes.uid && !changes.gid) {
    reply.Ok();
    return;
  }
  tree_->backend.SetOwner(caller, subject, changes.uid, changes.gid,
                          changes.mode, std::move(reply));
}

bool SandboxDir::UnlinkRow(const Caller& caller, const Row& row,
                           Reply<Done>& reply) {
  if (row.present == nullptr) return false;
  tree_->backend.ForgetRejected(
      caller, subject,
      reply.Then<Done>([tree = tree_, uuid = subject](Done done) {
        tree->errors.Succeeded(uuid);
        return done;
      }));
  return true;
}

}  // namespace sbxfs
