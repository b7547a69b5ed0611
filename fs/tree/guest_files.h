#ifndef SBXFS_FS_TREE_GUEST_FILES_H_
#define SBXFS_FS_TREE_GUEST_FILES_H_

#include <memory>
#include <string>
#include <vector>

#include "fs/guest_place.h"
#include "fs/node.h"

// The files of guests: box/fs, and snapshots/TAG/fs. As the guest has them, but
// that what is its user's is shown as whose the sandbox is; who may do what is
// for the guest to say. Nodes have what was last told of them, and asking anew
// is asynchronous.

namespace sbxfs {

// What those nodes have in common.
class GuestThing {
 public:
  GuestThing(GuestPathPtr path, const FileFacts& facts)
      : path_(std::move(path)), facts_(facts) {}
  virtual ~GuestThing() = default;

  [[nodiscard]] const GuestPathPtr& path() const { return path_; }
  [[nodiscard]] GuestPlace& place() const { return *path_->place(); }
  [[nodiscard]] const FileFacts& facts() const { return facts_; }
  // Asks for its attributes, which it may not have any more.
  void Ask(Reply<FileFacts> reply) const;
  // Sets them. Owner and group are those shown: what is so already is left.
  void Alter(FileChanges changes, Reply<Done> reply) const;

 protected:
  [[nodiscard]] struct stat Shown(const FileFacts& facts) const;

 private:
  const GuestPathPtr path_;
  const FileFacts facts_;
};

template <typename Base>
class GuestNode : public Base, public GuestThing {
 public:
  GuestNode(GuestPathPtr path, const FileFacts& facts)
      : Base(path->identity, path->place()->uuid),
        GuestThing(std::move(path), facts) {}

  [[nodiscard]] bool Foreign() const override { return true; }
  // A guest tells nobody what it changes.
  [[nodiscard]] double Lasts() const override { return 0.25; }
  [[nodiscard]] struct stat Stat(const Caller&) override {
    return Shown(facts());
  }
  void FreshStat(const Caller&, Reply<struct stat> reply) override {
    // `self` keeps the node.
    Ask(reply.template Then<FileFacts>(
        [this, self = this->shared_from_this()](const FileFacts& facts) {
          return Shown(facts);
        }));
  }
  void Change(const Caller&, const Changes& changes,
              Reply<Done> reply) override {
    FileChanges wanted;
    wanted.mode = changes.mode;
    wanted.uid = changes.uid;
    wanted.gid = changes.gid;
    Alter(wanted, std::move(reply));
  }
};

class GuestLink : public GuestNode<Link> {
 public:
  using GuestNode<Link>::GuestNode;
  // There is none that could be told at once.
  [[nodiscard]] std::string Target(const Caller& reader) override;
  void FindTarget(const Caller& reader, Reply<std::string> reply) override;
};

// A plain one, or one of those that only the guest can open.
class GuestFile : public GuestNode<File> {
 public:
  using GuestNode<File>::GuestNode;
  void Open(const Caller& caller, int flags, Reply<OpenFilePtr> reply) override;
  void Reopen(const Caller& caller, int flags, bool whole,
              Reply<OpenFilePtr> reply) override;
  // That was opened just now.
  [[nodiscard]] OpenFilePtr Opened(std::shared_ptr<FileTree::Opened> opened,
                                   int flags);
};

class GuestDir : public GuestNode<Dir> {
 public:
  using GuestNode<Dir>::GuestNode;

  // Both know of nothing: it is to be asked for.
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void AskFor(const Caller& caller, const std::string& name,
              Reply<NodePtr> reply) override;
  void AskAll(const Caller& reader, Reply<std::vector<Entry>> reply) override;
  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override {
    GuestNode<Dir>::Change(caller, changes, std::move(reply));
  }

  // One that was begun by another daemon of this mount may have been done.
  void Make(const Caller& caller, const std::string& name, mode_t mode,
            Reply<NodePtr> reply);
  void MakeLink(const Caller& caller, const std::string& name,
                const std::string& target, Reply<NodePtr> reply);
  void MakeName(const Caller& caller, const std::string& name,
                const GuestThing& file, Reply<NodePtr> reply);
  void MakeFile(const Caller& caller, const std::string& name, int flags,
                mode_t mode, Reply<Made> reply);
  void Remove(const Caller& caller, const std::string& name, bool is_dir,
              Reply<Done> reply);
  // `alone`: not over what is there.
  void Move(const Caller& caller, const std::string& name, GuestDir& to,
            const std::string& new_name, bool alone, Reply<Done> reply);

 protected:
  [[nodiscard]] std::string Below(const std::string& name) const;
  [[nodiscard]] NodePtr Child(const std::string& name,
                              const FileFacts& facts) const;
};

// The directory `fs` of a sandbox, or of a snapshot by its SnapshotId.
[[nodiscard]] NodePtr GuestRoot(const TreePtr& tree, const std::string& uuid,
                                const std::string& snapshot);
// Of a file of a guest: somebody may come back to it by its number alone.
void NoteGuest(const Node& node);
// What another daemon noted. Its attributes are yet to be asked for.
[[nodiscard]] NodePtr GuestNoted(const TreePtr& tree, const PathRecord& record);

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_GUEST_FILES_H_
