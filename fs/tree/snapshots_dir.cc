#include "fs/tree/snapshots_dir.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>

#include "fs/attributes.h"
#include "fs/name.h"
#include "fs/text_file.h"
#include "fs/tree/clones_dir.h"
#include "fs/tree/furnished_dir.h"
#include "fs/tree/guest_files.h"
#include "fs/value_file.h"

namespace sbxfs {
namespace {

constexpr std::chrono::milliseconds kSizesFresh{500};
constexpr std::chrono::milliseconds kSizesPause{300};

// The view with the snapshot in it. Throws Error(ENOENT) when it is gone.
View SnapshotView(Tree& tree, const Caller& reader, const std::string& uuid,
                  const std::string& id) {
  View view = tree.ViewFor(reader, uuid);
  for (const auto& [tag, one] : view.sandbox->snapshots) {
    if (SnapshotId(one) == id) view.snapshot = &one;
  }
  if (view.snapshot == nullptr) {
    throw Error(ENOENT, "Cannot go on: the snapshot is gone");
  }
  return view;
}

// Sizes, and what virsh did, of which libvirt does not tell.
void Refreshed(const TreePtr& tree, const std::string& uuid,
               Reply<struct stat> reply, std::function<struct stat()> stat) {
  if (!tree->Due(uuid + "/snapshots", kSizesPause)) {
    reply.Ok(stat());
    return;
  }
  tree->Refresh(
      uuid, Facet::kSnapshots, kSizesFresh,
      reply.Then<Done>([stat = std::move(stat)](Done) { return stat(); }));
}

class SnapshotFile : public ValueFile {
 public:
  SnapshotFile(TreePtr tree, const Row& row, const std::string& uuid,
               const std::string& dir, std::string id)
      : ValueFile(std::move(tree), dir + std::string(row.name), uuid),
        row_(row),
        id_(std::move(id)) {}

  struct stat Stat(const Caller& reader) override {
    const View view = SnapshotView(*tree_, reader, subject, id_);
    struct stat stat = RowStat(view, row_, row_.show(view).size());
    SetTime(stat, view.snapshot->created);
    return stat;
  }
  void FreshStat(const Caller& reader, Reply<struct stat> reply) override {
    if (!row_.fresh) {
      reply.Ok(Stat(reader));
      return;
    }
    Refreshed(tree_, subject, std::move(reply),
              [self = Self(), reader] { return self->Stat(reader); });
  }
  void Change(const Caller&, const Changes&, Reply<Done>) override {
    throw Error(EPERM,
                fmt::format("Cannot change owner or mode of '{}': they follow "
                            "the sandbox; chown and chmod its directory",
                            row_.name));
  }
  std::string Show(const View& view) override {
    return row_.show(SnapshotView(*tree_, view.reader, subject, id_));
  }
  void Open(const Caller& caller, int flags,
            Reply<OpenFilePtr> reply) override {
    const View view = SnapshotView(*tree_, caller, subject, id_);
    if ((flags & O_ACCMODE) != O_RDONLY) CheckWritable(view, row_);
    const auto open = [self = Self(), caller, flags](Done) {
      return OpenValueFile(self, caller, flags);
    };
    if (row_.fresh) {
      tree_->Refresh(subject, *row_.fresh, kSizesFresh, reply.Then<Done>(open));
    } else {
      reply.Ok(open({}));
    }
  }
  void Command(const Caller& caller, const std::string& bytes, bool wait,
               Reply<Done> reply) override {
    const View view = SnapshotView(*tree_, caller, subject, id_);
    CheckWritable(view, row_);
    row_.store({*tree_, caller, view.sandbox, OneLine(row_.name, bytes), wait,
                view.snapshot->tag},
               std::move(reply));
  }

 private:
  std::shared_ptr<SnapshotFile> Self() {
    return std::static_pointer_cast<SnapshotFile>(shared_from_this());
  }

  const Row& row_;
  const std::string id_;
};

}  // namespace

struct stat SnapshotsDir::Stat(const Caller& reader) {
  const View view = tree_->ViewFor(reader, subject);
  struct stat stat = RowStat(view, *FindRow(DirKind::kSandbox, "snapshots"), 0);
  stat.st_nlink += view.sandbox->snapshots.size();
  return stat;
}

void SnapshotsDir::FreshStat(const Caller& reader, Reply<struct stat> reply) {
  const auto self = std::static_pointer_cast<SnapshotsDir>(shared_from_this());
  Refreshed(tree_, subject, std::move(reply),
            [self, reader] { return self->Stat(reader); });
}

NodePtr SnapshotsDir::Lookup(const Caller& caller, const std::string& name) {
  const auto sandbox = tree_->ViewFor(caller, subject).sandbox;
  const auto found = sandbox->snapshots.find(name);
  if (found == sandbox->snapshots.end()) return nullptr;
  return std::make_shared<SnapshotDir>(tree_, subject, found->second);
}

std::vector<Dir::Entry> SnapshotsDir::List(const Caller& reader) {
  std::vector<Entry> entries;
  const auto sandbox = tree_->ViewFor(reader, subject).sandbox;
  for (const auto& [tag, one] : sandbox->snapshots) {
    if (!IsEntryName(tag)) continue;
    entries.push_back(
        {tag, std::make_shared<SnapshotDir>(tree_, subject, one)});
  }
  return entries;
}

void SnapshotsDir::MakeDir(const Caller& caller, const std::string& name,
                           mode_t, Reply<NodePtr> reply) {
  CheckNotTrashed(tree_->ViewFor(caller, subject), name);
  const Name valid = Name::Parse("take snapshot", name);
  const auto self = std::static_pointer_cast<SnapshotsDir>(shared_from_this());
  const auto made = reply.Then<Done>([self, caller, name](Done) {
    NodePtr node = self->Lookup(caller, name);
    if (!node) {
      throw Error(ENOENT, fmt::format("Cannot take snapshot '{}': it is gone "
                                      "again",
                                      name));
    }
    return node;
  });
  tree_->backend.TakeSnapshot(caller, subject, valid.Text(),
                              Clearing(tree_, subject, made));
}

void SnapshotsDir::RemoveDir(const Caller& caller, const std::string& name,
                             Reply<Done> reply) {
  const NodePtr node = Lookup(caller, name);
  if (!node) {
    throw Error(
        ENOENT,
        fmt::format("Cannot remove snapshot '{}': there is none", name));
  }
  CheckRefused(*tree_, caller, subject + '/', name);
  CheckRefused(*tree_, caller, node->key, name);
  CheckNotTrashed(tree_->ViewFor(caller, subject), name);
  tree_->backend.RemoveSnapshot(caller, subject, name,
                                Clearing(tree_, subject, reply));
}

void SnapshotsDir::Rename(const Caller& caller, const std::string& name,
                          Dir& to, const std::string& new_name,
                          Reply<Done> reply) {
  if (to.key != key) {
    throw Error(EPERM, fmt::format("Cannot move snapshot '{}' to '{}': it "
                                   "belongs to its sandbox",
                                   name, new_name));
  }
  CheckNotTrashed(tree_->ViewFor(caller, subject), name);
  const Name valid = Name::Parse("rename a snapshot to", new_name);
  tree_->backend.RenameSnapshot(caller, subject, name, valid.Text(),
                                Clearing(tree_, subject, reply));
}

SnapshotDir::SnapshotDir(TreePtr tree, const std::string& uuid,
                         const Snapshot& snapshot)
    : Dir(fmt::format("{}/snapshots/{}/", uuid, SnapshotId(snapshot)), uuid),
      tree_(std::move(tree)),
      id_(SnapshotId(snapshot)) {}

struct stat SnapshotDir::Stat(const Caller& reader) {
  const View view = SnapshotView(*tree_, reader, subject, id_);
  struct stat stat = RowStat(view, *FindRow(DirKind::kSandbox, "snapshots"), 0);
  SetTime(stat, view.snapshot->created);
  stat.st_blocks = static_cast<blkcnt_t>(view.snapshot->size / 512);
  return stat;
}

void SnapshotDir::FreshStat(const Caller& reader, Reply<struct stat> reply) {
  const auto self = std::static_pointer_cast<SnapshotDir>(shared_from_this());
  Refreshed(tree_, subject, std::move(reply),
            [self, reader] { return self->Stat(reader); });
}

NodePtr SnapshotDir::Child(const Row& row) {
  if (row.name == "fs") return GuestRoot(tree_, subject, id_);
  if (row.form == Form::kDirectory) {
    return std::make_shared<ClonesDir>(tree_, subject, id_);
  }
  return std::make_shared<SnapshotFile>(tree_, row, subject, key, id_);
}

NodePtr SnapshotDir::Lookup(const Caller&, const std::string& name) {
  const Row* row = FindRow(DirKind::kSnapshot, name);
  return row == nullptr ? nullptr : Child(*row);
}

std::vector<Dir::Entry> SnapshotDir::List(const Caller&) {
  std::vector<Entry> entries;
  for (const Row& row : Rows(DirKind::kSnapshot)) {
    if (!row.listed) continue;
    entries.push_back({std::string(row.name), Child(row)});
  }
  return entries;
}

std::vector<Dir::Entry> SnapshotDir::Unlisted(const Caller&) {
  return {{"fs", Child(*FindRow(DirKind::kSnapshot, "fs"))}};
}

void SnapshotDir::Unlink(const Caller& caller, const std::string& name,
                         Reply<Done> reply) {
  // rm -r goes on to rmdir; what it was refused here must not be lost there.
  tree_->refusals.Set(key, caller.pid);
  Dir::Unlink(caller, name, std::move(reply));
}

}  // namespace sbxfs
