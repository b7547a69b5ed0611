#include "fs/tree/root_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "fs/attributes.h"
#include "fs/document.h"
#include "fs/name.h"
#include "fs/process.h"
#include "fs/tree/host_dir.h"
#include "fs/tree/sandbox_dir.h"

namespace sbxfs {
namespace {

constexpr mode_t kSandboxMode = 0700;

std::string NextKey() {
  // No other daemon of this mount shall have had it.
  static std::atomic<uint64_t> last{0};
  return fmt::format("new:{}:{}", StartOf(getpid()), ++last);
}

// NAME.yaml of a sandbox that is not there yet: makes it, all or nothing.
class NewSandbox : public DocumentFile {
 public:
  NewSandbox(TreePtr tree, const Caller& maker, std::string sandbox)
      : DocumentFile(std::move(tree), NextKey(), "", sandbox + ".yaml"),
        maker_(maker),
        sandbox_(std::move(sandbox)) {}

  struct stat Stat(const Caller&) override {
    struct stat stat =
        OwnStat(*tree_, S_IFREG | 0600, std::chrono::system_clock::now());
    stat.st_uid = maker_.uid;
    stat.st_gid = maker_.gid;
    return stat;
  }
  bool Transient() const override { return true; }
  std::string Place() const override { return name; }
  std::string Text(const Caller&) override { return {}; }

  void StoreWhole(const Caller& caller, const std::string& text,
                  Reply<Done> reply) override {
    const auto self = std::static_pointer_cast<NewSandbox>(shared_from_this());
    tree_->backend.Create(caller, sandbox_, text, kSandboxMode,
                          reply.Then<SandboxPtr>([self](const SandboxPtr&) {
                            self->Released();
                            return Done{};
                          }));
  }

  // From now on the name is the new sandbox's config.yaml, or nothing.
  void Released() override { tree_->passing.Remove("/", name, this); }

 private:
  const Caller maker_;
  const std::string sandbox_;
};

}  // namespace

struct stat RootDir::Stat(const Caller&) {
  const TreeOptions& options = tree_->options;
  mode_t mode = 0755;
  if (options.allow_other) mode = options.group ? 01770 : 01777;
  Time time = tree_->backend.GetHost()->since;
  const auto sandboxes = tree_->backend.List();
  for (const auto& sandbox : sandboxes) time = std::max(time, sandbox->created);
  struct stat stat = OwnStat(*tree_, S_IFDIR | mode, time);
  if (options.allow_other && options.group) stat.st_gid = *options.group;
  stat.st_nlink = 3 + sandboxes.size();
  return stat;
}

NodePtr RootDir::Lookup(const Caller& caller, const std::string& name) {
  if (name == ".host") return std::make_shared<HostDir>(tree_);
  if (const auto sandbox = tree_->backend.Find(name)) {
    return std::make_shared<SandboxDir>(tree_, sandbox->uuid, sandbox->name);
  }
  return FurnishedDir::Lookup(caller, name);
}

std::vector<Dir::Entry> RootDir::List(const Caller&) {
  std::vector<Entry> entries = {{".host", std::make_shared<HostDir>(tree_)}};
  for (const auto& sandbox : tree_->backend.List()) {
    entries.push_back(
        {sandbox->name,
         std::make_shared<SandboxDir>(tree_, sandbox->uuid, sandbox->name)});
  }
  // A clone that took the name of a tool's file meanwhile is what a lookup
  // finds.
  const auto is_there = [&entries](const std::string& name) {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const Entry& entry) { return entry.name == name; });
  };
  for (auto& entry : tree_->passing.List(key)) {
    if (StripYaml(entry.name).empty() && !is_there(entry.name)) {
      entries.push_back(std::move(entry));
    }
  }
  return entries;
}

std::shared_ptr<File> RootDir::Built(const Caller&, const std::string& name) {
  const auto sandbox = tree_->backend.Find(StripYaml(name));
  if (!sandbox) return nullptr;
  return RowNode(tree_, *FindRow(DirKind::kSandbox, "config.yaml"),
                 sandbox->uuid);
}

bool RootDir::IsDocument(const std::string& name) const {
  return !StripYaml(name).empty();
}

bool RootDir::IsScratch(const std::string& name, int flags) const {
  return (flags & O_EXCL) != 0 ||
         (name.find(kYaml) != std::string::npos && StripYaml(name).empty() &&
          (LooksScratch(name) || !name.ends_with(kYaml)));
}

bool RootDir::MakesOf(const std::string& name) const {
  return !StripYaml(name).empty();
}

void RootDir::RefuseNew(const std::string& name) const {
  if (name.ends_with(kYaml)) {  // says what is wrong with it
    (void)Name::Parse("make", name.substr(0, name.size() - kYaml.size()));
  }
  throw Error(EPERM,
              fmt::format("Cannot create '{}': sandboxes are made here; mkdir "
                          "'{}', or copy a config to '{}.yaml'",
                          name, name, name));
}

void RootDir::MakeDir(const Caller& caller, const std::string& name,
                      mode_t mode, Reply<NodePtr> reply) {
  const Name valid = Name::Parse("make", name);
  tree_->backend.Create(
      caller, valid.Text(), "", mode & kSandboxMode,
      reply.Then<SandboxPtr>([tree = tree_](const SandboxPtr& sandbox) {
        return NodePtr(
            std::make_shared<SandboxDir>(tree, sandbox->uuid, sandbox->name));
      }));
}

void RootDir::RemoveDir(const Caller& caller, const std::string& name,
                        Reply<Done> reply) {
  const auto sandbox = tree_->backend.Find(name);
  if (!sandbox) {
    Dir::RemoveDir(caller, name, std::move(reply));
    return;
  }
  // find -delete and its like go on to rmdir when they could not empty it.
  CheckRefused(*tree_, caller, sandbox->uuid + '/', name);
  tree_->backend.Remove(caller, sandbox->uuid, std::move(reply));
}

void RootDir::Create(const Caller& caller, const std::string& name, int flags,
                     Reply<Made> reply) {
  const std::string sandbox = StripYaml(name);
  if (sandbox.empty() || tree_->backend.Find(sandbox)) {
    FurnishedDir::Create(caller, name, flags, std::move(reply));
    return;
  }
  const auto document = std::make_shared<NewSandbox>(tree_, caller, sandbox);
  tree_->passing.Add(key, name, document);
  OpenMade(document, caller, flags, reply);
}

void RootDir::Rename(const Caller& caller, const std::string& name, Dir& to,
                     const std::string& new_name, Reply<Done> reply) {
  const auto sandbox = tree_->backend.Find(name);
  if (!sandbox) {
    // A finished text renamed to a NAME.yaml that is not there makes it.
    const auto scratch =
        std::dynamic_pointer_cast<ScratchFile>(tree_->passing.Find(key, name));
    const std::string made = StripYaml(new_name);
    if (!scratch || &to != this || made.empty() || tree_->backend.Find(made)) {
      FurnishedDir::Rename(caller, name, to, new_name, std::move(reply));
      return;
    }
    tree_->backend.Create(caller, made, scratch->Text(), kSandboxMode,
                          reply.Then<SandboxPtr>([tree = tree_, at = key,
                                                  name](const SandboxPtr&) {
                            tree->passing.Remove(at, name);
                            return Done{};
                          }));
    return;
  }
  if (dynamic_cast<TrashDir*>(&to) != nullptr && new_name == name) {
    tree_->backend.Remove(caller, sandbox->uuid, std::move(reply));
    return;
  }
  if (&to != this) {
    throw Error(EPERM, fmt::format("Cannot move '{}' to '{}': a sandbox lives "
                                   "at the root of the mount",
                                   name, new_name));
  }
  const Name valid = Name::Parse("rename to", new_name);
  tree_->backend.Rename(caller, sandbox->uuid, valid.Text(), std::move(reply));
}

}  // namespace sbxfs
