#include "fs/tree/clones_dir.h"

#include <fmt/format.h>

#include <cerrno>

#include "fs/attributes.h"
#include "fs/name.h"
#include "fs/tree/furnished_dir.h"
#include "fs/value_file.h"

namespace sbxfs {
namespace {

// Where a clone lives: at the root.
class CloneLink : public Link {
 public:
  CloneLink(TreePtr tree, const std::string& dir, const Sandbox& clone,
            std::string up)
      : Link(dir + clone.uuid, clone.uuid),
        tree_(std::move(tree)),
        up_(std::move(up)) {}

  struct stat Stat(const Caller& reader) override {
    const View view = tree_->ViewFor(reader, subject);
    struct stat stat = OwnStat(*tree_, S_IFLNK | 0777, view.sandbox->created);
    stat.st_uid = view.sandbox->uid;
    stat.st_gid = view.sandbox->gid;
    SetSize(stat, Target(reader).size());
    return stat;
  }
  std::string Target(const Caller& reader) override {
    return up_ + tree_->ViewFor(reader, subject).sandbox->name;
  }
  void Change(const Caller&, const Changes&, Reply<Done>) override {
    throw Error(EPERM, "Cannot change a link: change the sandbox it leads to");
  }

 private:
  const TreePtr tree_;
  const std::string up_;
};

// What mkdir is answered with: the kernel insists on a directory. The next
// look at the name finds the link.
class NewClone : public Dir {
 public:
  NewClone(TreePtr tree, const std::string& dir, const std::string& uuid)
      : Dir(dir + uuid + "/new/", uuid), tree_(std::move(tree)) {}

  struct stat Stat(const Caller& reader) override {
    return SandboxStat(*tree_->ViewFor(reader, subject).sandbox);
  }
  bool Transient() const override { return true; }
  NodePtr Lookup(const Caller&, const std::string&) override { return nullptr; }
  std::vector<Entry> List(const Caller&) override { return {}; }

 private:
  const TreePtr tree_;
};

}  // namespace

ClonesDir::ClonesDir(TreePtr tree, const std::string& uuid,
                     const std::string& layer)
    : Dir(layer.empty() ? uuid + "/clones/"
                        : fmt::format("{}/snapshots/{}/clones/", uuid, layer),
          uuid),
      tree_(std::move(tree)),
      layer_(layer) {}

bool ClonesDir::IsHere(const Sandbox& sandbox) const {
  return layer_.empty() ? sandbox.origin == subject
                        : sandbox.origin_layer == layer_;
}

std::string ClonesDir::Tag(const Caller& caller) {
  if (layer_.empty()) return "";
  const View view = tree_->ViewFor(caller, subject);
  for (const auto& [tag, one] : view.sandbox->snapshots) {
    if (one.layer == layer_) return tag;
  }
  throw Error(ENOENT, "Cannot go on: the snapshot is gone");
}

struct stat ClonesDir::Stat(const Caller& reader) {
  return RowStat(tree_->ViewFor(reader, subject),
                 *FindRow(DirKind::kSandbox, "clones"), 0);
}

NodePtr ClonesDir::Lookup(const Caller& caller, const std::string& name) {
  const auto sandbox = tree_->backend.Find(name);
  if (!sandbox || !IsHere(*sandbox)) return nullptr;
  (void)Tag(caller);
  return std::make_shared<CloneLink>(
      tree_, key, *sandbox, layer_.empty() ? "../../" : "../../../../");
}

std::vector<Dir::Entry> ClonesDir::List(const Caller& reader) {
  std::vector<Entry> entries;
  for (const auto& sandbox : tree_->backend.List()) {
    if (!IsHere(*sandbox)) continue;
    entries.push_back({sandbox->name, Lookup(reader, sandbox->name)});
  }
  return entries;
}

void ClonesDir::MakeDir(const Caller& caller, const std::string& name,
                        mode_t mode, Reply<NodePtr> reply) {
  CheckNotTrashed(tree_->ViewFor(caller, subject), name);
  // A ! behind it: its memory may hold secrets.
  const bool forced = name.ends_with('!');
  const Name valid =
      Name::Parse("clone to", name.substr(0, name.size() - (forced ? 1 : 0)));
  tree_->backend.Clone(
      caller, subject, Tag(caller), valid.Text() + (forced ? "!" : ""),
      mode & 0700,
      reply.Then<SandboxPtr>([tree = tree_, at = key](const SandboxPtr& made) {
        return NodePtr(std::make_shared<NewClone>(tree, at, made->uuid));
      }));
}

bool ClonesDir::MakingTakesLong() {
  const auto sandbox = tree_->backend.Get(subject);
  // A whole disk is copied, or the memory of a guest that can be used.
  return sandbox && (!sandbox->ours || (layer_.empty() && sandbox->ready));
}

void ClonesDir::Unlink(const Caller& caller, const std::string& name,
                       Reply<Done>) {
  tree_->refusals.Set(subject + '/', caller.pid);
  throw Error(
      EPERM, fmt::format("Cannot remove '{0}': it shows that there is a clone; "
                         "rmdir of '{0}' at the root of the mount takes that",
                         name));
}

}  // namespace sbxfs
