#include "fs/tree/templates_dir.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <set>

#include "fs/attributes.h"
#include "fs/document.h"
#include "fs/name.h"

namespace sbxfs {
namespace {

constexpr std::size_t kDeepest = 4;  // folders in each other

// A template: what is in the backend, or nothing yet.
class TemplateFile : public DocumentFile {
 public:
  TemplateFile(TreePtr tree, const std::string& dir, const std::string& path,
               const std::string& name)
      : DocumentFile(std::move(tree), ".host/templates/" + path, "", name),
        dir_(dir),
        path_(path) {}

  struct stat Stat(const Caller&) override {
    const HostPtr host = tree_->backend.GetHost();
    const auto found = host->templates.find(path_);
    const bool there = found != host->templates.end();
    struct stat stat = OwnStat(*tree_, S_IFREG | 0644,
                               there ? found->second.modified : host->since);
    if (there) SetSize(stat, found->second.text.size());
    return stat;
  }

  std::string Text(const Caller&) override {
    const HostPtr host = tree_->backend.GetHost();
    const auto found = host->templates.find(path_);
    return found == host->templates.end() ? std::string() : found->second.text;
  }

  void StoreWhole(const Caller& caller, const std::string& text,
                  Reply<Done> reply) override {
    tree_->backend.SetDocument(caller, "templates/" + path_, text,
                               std::move(reply));
  }

  // Stored, it needs no place beside it; never written, it was none.
  void Released() override {
    const NodePtr passing = tree_->passing.Find(dir_, name);
    if (std::dynamic_pointer_cast<TemplateFile>(passing)) {
      tree_->passing.Remove(dir_, name, passing.get());
    }
  }

 private:
  const std::string dir_;   // key of its directory
  const std::string path_;  // below .host/templates
};

}  // namespace

bool TemplatesDir::HasFolder(const std::string& name) const {
  const std::string prefix = path_ + name + '/';
  const HostPtr host = tree_->backend.GetHost();
  const auto found = host->templates.lower_bound(prefix);
  return found != host->templates.end() && found->first.starts_with(prefix);
}

std::shared_ptr<File> TemplatesDir::Template(const std::string& name) const {
  return std::make_shared<TemplateFile>(tree_, key, path_ + name, name);
}

struct stat TemplatesDir::Stat(const Caller&) {
  const HostPtr host = tree_->backend.GetHost();
  Time time = host->since;
  for (auto at = host->templates.lower_bound(path_);
       at != host->templates.end() && at->first.starts_with(path_); ++at) {
    time = at->first == path_ ? at->second.modified
                              : std::max(time, at->second.modified);
  }
  return OwnStat(*tree_, S_IFDIR | 0755, time);
}

NodePtr TemplatesDir::Lookup(const Caller& caller, const std::string& name) {
  // Looked for first: it goes after what it becomes has come.
  NodePtr passing = tree_->passing.Find(key, name);
  if (auto file = Built(caller, name)) {
    if (!tree_->vacancies.Has(Thing(name), caller.pid)) return file;
  } else if (HasFolder(name)) {
    return std::make_shared<TemplatesDir>(tree_, path_ + name + '/');
  }
  return passing;
}

std::vector<Dir::Entry> TemplatesDir::List(const Caller&) {
  auto passing = tree_->passing.List(key);
  std::set<std::string> names;  // folders end with '/'
  const HostPtr host = tree_->backend.GetHost();
  for (auto at = host->templates.lower_bound(path_);
       at != host->templates.end() && at->first.starts_with(path_); ++at) {
    const std::string rest = at->first.substr(path_.size());
    const auto slash = rest.find('/');
    if (!rest.empty()) {
      names.insert(slash == rest.npos ? rest : rest.substr(0, slash + 1));
    }
  }
  std::vector<Entry> entries;
  for (const std::string& name : names) {
    if (name.ends_with('/')) {
      entries.push_back({name.substr(0, name.size() - 1),
                         std::make_shared<TemplatesDir>(tree_, path_ + name)});
    } else {
      entries.push_back({name, Template(name)});
    }
  }
  for (auto& entry : passing) {
    if (names.count(entry.name) == 0) entries.push_back(std::move(entry));
  }
  return entries;
}

void TemplatesDir::MakeDir(const Caller& caller, const std::string& name,
                           mode_t, Reply<NodePtr> reply) {
  std::size_t depth = 0;
  for (const char c : path_) depth += c == '/' ? 1 : 0;
  if (depth >= kDeepest) {
    throw Error(EINVAL, fmt::format("Cannot make '{}': folders of templates "
                                    "are {} deep at most",
                                    name, kDeepest));
  }
  const std::string path = path_ + name + '/';
  tree_->backend.SetDocument(
      caller, "templates/" + path, "",
      reply.Then<Done>([tree = tree_, path](Done) {
        return NodePtr(std::make_shared<TemplatesDir>(tree, path));
      }));
}

void TemplatesDir::RemoveDir(const Caller& caller, const std::string& name,
                             Reply<Done> reply) {
  CheckRefused(*tree_, caller, ".host/", name);
  const std::string prefix = path_ + name + '/';
  const HostPtr host = tree_->backend.GetHost();
  for (auto at = host->templates.lower_bound(prefix);
       at != host->templates.end() && at->first.starts_with(prefix); ++at) {
    if (at->first == prefix) continue;
    // A folder of the user's own, as anywhere.
    throw Error(ENOTEMPTY, fmt::format("Cannot remove '{}': there are "
                                       "templates in it; rm them first",
                                       name));
  }
  tree_->backend.SetDocument(caller, "templates/" + prefix, std::nullopt,
                             std::move(reply));
}

void TemplatesDir::Unlink(const Caller& caller, const std::string& name,
                          Reply<Done> reply) {
  // `rm -r .host` was refused a file of it just before.
  CheckRefused(*tree_, caller, ".host/", name);
  const bool passing = tree_->passing.Remove(key, name);
  if (Built(caller, name)) {
    tree_->backend.SetDocument(caller, "templates/" + path_ + name,
                               std::nullopt, std::move(reply));
    return;
  }
  if (!passing) {
    throw Error(ENOENT, fmt::format("Cannot remove '{}': there is none", name));
  }
  reply.Ok();
}

void TemplatesDir::Create(const Caller& caller, const std::string& name,
                          int flags, Reply<Made> reply) {
  if (Built(caller, name) || !IsDocument(name)) {
    FurnishedDir::Create(caller, name, flags, std::move(reply));
    return;
  }
  const auto file = Template(name);
  tree_->passing.Add(key, name, file);
  OpenMade(file, caller, flags, reply);
}

void TemplatesDir::Rename(const Caller& caller, const std::string& name,
                          Dir& to, const std::string& new_name,
                          Reply<Done> reply) {
  auto* target = dynamic_cast<TemplatesDir*>(&to);
  const auto file = Built(caller, name);
  if (!file || target == nullptr || !target->IsDocument(new_name)) {
    FurnishedDir::Rename(caller, name, to, new_name, std::move(reply));
    return;
  }
  const std::string old = "templates/" + path_ + name;
  const std::string text =
      std::static_pointer_cast<DocumentFile>(file)->Text(caller);
  Reply<Done> stored([tree = tree_, caller, old, reply](Outcome<Done> outcome) {
    if (std::get_if<Error>(&outcome) != nullptr) {
      reply.Give(std::move(outcome));
      return;
    }
    reply.Guard(
        [&] { tree->backend.SetDocument(caller, old, std::nullopt, reply); });
  });
  stored.Guard([&] {
    tree_->backend.SetDocument(caller, "templates/" + target->path_ + new_name,
                               text, stored);
  });
}

void TemplatesDir::Receive(const Caller& caller, const std::string& name,
                           const std::shared_ptr<File>& scratch,
                           Reply<Done> reply) {
  if (Built(caller, name) || !IsDocument(name)) {
    FurnishedDir::Receive(caller, name, scratch, std::move(reply));
    return;
  }
  Template(name)->StoreWhole(
      caller, std::static_pointer_cast<ScratchFile>(scratch)->Text(),
      std::move(reply));
}

std::shared_ptr<File> TemplatesDir::Built(const Caller&,
                                          const std::string& name) {
  const HostPtr host = tree_->backend.GetHost();
  if (host->templates.count(path_ + name) == 0) return nullptr;
  return Template(name);
}

bool TemplatesDir::IsDocument(const std::string& name) const {
  return name.ends_with(kYaml) && name.size() > kYaml.size() &&
         !LooksScratch(name);
}

bool TemplatesDir::IsScratch(const std::string& name, int flags) const {
  return (flags & O_EXCL) != 0 || name.find(kYaml) != name.npos ||
         LooksScratch(name);
}

void TemplatesDir::RefuseNew(const std::string& name) const {
  throw Error(EPERM, fmt::format("Cannot create '{}': a template's name ends "
                                 "in .yaml; write '{}.yaml'",
                                 name, name));
}

}  // namespace sbxfs
