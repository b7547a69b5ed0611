#include "fs/tree/sandbox_dir.h"

#include <algorithm>
#include <cerrno>

#include "fs/attributes.h"
#include "fs/tree/clones_dir.h"
#include "fs/tree/exec_dir.h"
#include "fs/tree/guest_files.h"
#include "fs/tree/snapshots_dir.h"
#include "fs/tree/sock_dir.h"
#include "fs/tree/value_dir.h"

namespace sbxfs {

struct stat SandboxDir::Stat(const Caller&) {
  const auto sandbox = tree_->backend.Get(subject);
  if (!sandbox && !name_.empty() && tree_->backend.Find(name_)) {
    // The kernel then looks the name up again.
    throw Error(ESTALE,
                "Cannot go on: the sandbox is gone, and another has its name");
  }
  if (!sandbox) throw Error(ENOENT, "Cannot go on: the sandbox is gone");
  struct stat stat = SandboxStat(*sandbox);
  if (sandbox->trashed) stat.st_mode &= ~mode_t{0222};
  static const auto kRows = Rows(DirKind::kSandbox);
  static const auto kDirs =
      std::count_if(kRows.begin(), kRows.end(), [](const Row& row) {
        return row.form == Form::kDirectory && row.listed;
      });
  stat.st_nlink += static_cast<nlink_t>(kDirs);
  return stat;
}

void SandboxDir::Change(const Caller& caller, const Changes& changes,
                        Reply<Done> reply) {
  if (!changes.mode && !changes.uid && !changes.gid) {
    reply.Ok();
    return;
  }
  tree_->backend.SetRights(caller, subject, "", changes, std::move(reply));
}

NodePtr SandboxDir::SubDir(const Row& row) {
  if (row.name == "sock") {
    return std::make_shared<SockDir>(tree_, row, subject);
  }
  if (row.name == "clones") {
    return std::make_shared<ClonesDir>(tree_, subject, "");
  }
  if (row.name == "exec") return std::make_shared<ExecDir>(tree_, subject);
  if (row.name == "snapshots") {
    return std::make_shared<SnapshotsDir>(tree_, subject);
  }
  if (row.name == "fs") return GuestRoot(tree_, subject, "");
  return std::make_shared<ValueDir>(tree_, row, subject);
}

bool SandboxDir::UnlinkRow(const Caller& caller, const Row& row,
                           Reply<Done>& reply) {
  if (row.name != "config.yaml.rejected") return false;
  tree_->backend.ForgetRejected(caller, subject,
                                Clearing(tree_, subject, reply));
  return true;
}

}  // namespace sbxfs
