#include "fs/tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "fs/process.h"

namespace sbxfs {

void ProcessMarks::Set(const std::string& thing, pid_t tid) {
  const pid_t process = ReadProcess(tid).tgid;
  const auto now = Clock::now();
  MutexLock lock(mutex_);
  std::erase_if(marks_, [&](const auto& one) { return one.second < now; });
  marks_[{thing, process}] = now + lasting_;
}

void ProcessMarks::Clear(const std::string& thing, pid_t tid) {
  const pid_t process = ReadProcess(tid).tgid;
  MutexLock lock(mutex_);
  marks_.erase({thing, process});
}

bool ProcessMarks::Has(const std::string& thing, pid_t tid) {
  {
    MutexLock lock(mutex_);
    if (marks_.empty()) return false;
  }
  const pid_t process = ReadProcess(tid).tgid;
  MutexLock lock(mutex_);
  const auto found = marks_.find({thing, process});
  return found != marks_.end() && found->second >= Clock::now();
}

Readings::Key Readings::KeyOf(const std::string& document, pid_t tid) {
  const pid_t process = ReadProcess(tid).tgid;
  return {document, process, StartOf(process)};
}

void Readings::Saw(const std::string& document, pid_t tid,
                   const std::string& text) {
  const Key key = KeyOf(document, tid);
  if (key.start == 0) return;
  MutexLock lock(mutex_);
  if (seen_.size() >= kMost) {
    std::erase_if(seen_, [](const auto& one) {
      return StartOf(one.first.process) != one.first.start;
    });
  }
  if (seen_.size() >= kMost) seen_.clear();
  seen_[key] = std::hash<std::string>()(text);
}

bool Readings::Outdated(const std::string& document, pid_t tid,
                        const std::string& now) {
  const Key key = KeyOf(document, tid);
  MutexLock lock(mutex_);
  const auto found = seen_.find(key);
  return found != seen_.end() && found->second != std::hash<std::string>()(now);
}

NodePtr Passing::Find(const std::string& dir, const std::string& name) {
  MutexLock lock(mutex_);
  const auto in = files_.find(dir);
  if (in == files_.end()) return nullptr;
  const auto found = in->second.find(name);
  return found == in->second.end() ? nullptr : found->second;
}

std::vector<Dir::Entry> Passing::List(const std::string& dir) {
  MutexLock lock(mutex_);
  std::vector<Dir::Entry> entries;
  const auto in = files_.find(dir);
  if (in == files_.end()) return entries;
  for (const auto& [name, node] : in->second) entries.push_back({name, node});
  return entries;
}

std::string Passing::Any() {
  MutexLock lock(mutex_);
  for (const auto& [dir, files] : files_) {
    if (!files.empty()) return files.begin()->first;
  }
  return {};
}

void Passing::Add(const std::string& dir, const std::string& name,
                  NodePtr node) {
  NodePtr freed;  // its destructor runs outside the lock
  MutexLock lock(mutex_);
  auto& in = files_[dir];
  if (in.size() >= kMost && !in.contains(name)) {
    throw Error(ENOSPC,
                fmt::format("Cannot create '{}': {} scratch files are here "
                            "already; remove some",
                            name, in.size()));
  }
  freed = std::exchange(in[name], std::move(node));
}

bool Passing::Remove(const std::string& dir, const std::string& name,
                     const Node* node) {
  NodePtr freed;
  MutexLock lock(mutex_);
  const auto in = files_.find(dir);
  if (in == files_.end()) return false;
  const auto found = in->second.find(name);
  if (found == in->second.end()) return false;
  if (node != nullptr && found->second.get() != node) return false;
  freed = std::move(found->second);
  in->second.erase(found);
  if (in->second.empty()) files_.erase(in);
  return true;
}

void Passing::Drop(const std::string& dir) {
  std::vector<std::map<std::string, NodePtr>> freed;
  MutexLock lock(mutex_);
  for (auto in = files_.lower_bound(dir);
       in != files_.end() && in->first.starts_with(dir);) {
    freed.push_back(std::move(in->second));
    in = files_.erase(in);
  }
}

void Passing::Clear() {
  std::map<std::string, std::map<std::string, NodePtr>> freed;
  MutexLock lock(mutex_);
  freed.swap(files_);
}

Tree::Tree(Backend& backend, TreeOptions options, Timer& timer,
           std::function<void(const std::string&)> changed,
           std::function<void(const std::string&)> gone)
    : backend(backend),
      options(std::move(options)),
      timer_(&timer),
      changed_(std::move(changed)),
      gone_(std::move(gone)) {}

void Tree::After(std::chrono::milliseconds delay, std::function<void()> task) {
  MutexLock lock(mutex_);
  if (!closed_) timer_->After(delay, std::move(task));
}

void Tree::Refresh(const std::string& uuid, Facet facet,
                   std::chrono::milliseconds limit, Reply<Done> reply) {
  Reply<Done> bounded([reply](Outcome<Done>) { reply.Ok(); });
  After(limit, [bounded] { bounded.Ok(); });
  backend.Refresh(uuid, facet, bounded);
}

bool Tree::Due(const std::string& thing, std::chrono::milliseconds interval) {
  const auto now = std::chrono::steady_clock::now();
  MutexLock lock(mutex_);
  const auto [at, added] = done_.try_emplace(thing, now);
  if (added) return true;
  if (now - at->second < interval) return false;
  at->second = now;
  return true;
}

View Tree::ViewFor(const Caller& reader, const std::string& uuid) {
  View view{*this, reader, backend.GetHost(), nullptr};
  if (uuid.empty()) return view;
  view.sandbox = backend.Get(uuid);
  if (!view.sandbox) {
    throw Error(ENOENT, "Cannot go on: the sandbox is gone");
  }
  return view;
}

std::shared_ptr<Tree> Tree::Of(const std::string& hypervisor) {
  Backend* const member = backend.Member(hypervisor);
  if (member == nullptr) return nullptr;
  MutexLock lock(mutex_);
  auto& tree = members_[hypervisor];
  if (!tree) {
    TreeOptions own = options;
    own.at = ".host/hosts/" + hypervisor + '/';
    tree = std::make_shared<Tree>(*member, std::move(own), *timer_, changed_,
                                  gone_);
    if (closed_) tree->Close();
  }
  return tree;
}

void Tree::Retire(const std::string& key) {
  std::string below = key;
  if (below.ends_with('/')) below.pop_back();
  MutexLock lock(mutex_);
  done_.erase(below.substr(below.rfind('/') + 1));
  if (!closed_) gone_(below);
}

void Tree::Audit(LogLine line) {
  audit->Add(std::make_shared<const LogLine>(std::move(line)));
  Tell();
}

void Tree::Close() {
  std::map<std::string, std::shared_ptr<Tree>> members;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    members = members_;
  }
  for (const auto& [name, tree] : members) tree->Close();
  passing.Clear();
}

void Tree::Tell(const std::string& uuid) {
  MutexLock lock(mutex_);
  if (!closed_) changed_(uuid);
}

void Tree::Settle(const std::string& uuid, std::function<void()> then) {
  {
    MutexLock lock(mutex_);
    if (!closed_) {
      changed_(uuid);  // the timer goes by the order
      timer_->After({}, std::move(then));
      return;
    }
  }
  then();
}

void Tree::SandboxChanged(const std::string& uuid) {
  if (!backend.Get(uuid)) {
    errors.Succeeded(uuid);
    events.Drop(uuid);
    passing.Drop(uuid + '/');
    MutexLock lock(mutex_);
    done_.erase(uuid);
    if (!closed_) gone_(uuid);
  }
  Tell(uuid);
}

void Tree::HostChanged() { Tell(); }

void Tree::Happened(const Event& event) {
  Event kept = event;
  LogLine rights;
  rights.uuid = event.uuid;
  rights.uid = event.uid;
  rights.gid = event.gid;
  rights.mode = event.mode;
  rights.everyone = event.uuid.empty();
  // The last word on a sandbox that is gone has no file of its own any more.
  if (!event.uuid.empty() && !backend.Get(event.uuid)) kept.uuid.clear();
  events.Add(kept, rights);
  Tell(event.uuid);
}

void Tree::ActionEnded(const std::string& uuid, const Error* error) {
  if (error == nullptr) {
    errors.Succeeded(uuid);
  } else if (IsFailure(*error)) {
    errors.Failed(uuid, 0, error->Sentence());
  }
  Tell(uuid);
}

void CheckRefused(Tree& tree, const Caller& caller, const std::string& dir,
                  const std::string& name) {
  if (!tree.refusals.Has(dir, caller.pid)) return;
  throw Error(EPERM,
              fmt::format("Cannot remove '{}': the same process was just "
                          "refused another removal there, as rm -r would be; "
                          "rmdir of a sandbox takes the whole of it",
                          name));
}

bool IsFailure(const Error& error) {
  return error.Errno() != EINTR && error.Errno() != ECANCELED;
}

bool Access::MayUse(uid_t uid, gid_t gid, mode_t mode) {
  if (reader_.uid == 0) return true;
  if (reader_.uid == uid) return (mode & 0100) != 0;
  if ((mode & 0010) != 0 && InGroup(gid)) return true;
  return (mode & 0001) != 0;
}

bool Access::InGroup(gid_t gid) {
  if (reader_.gid == gid) return true;
  if (!groups_) groups_ = ReadProcess(reader_.pid).groups;
  return std::find(groups_->begin(), groups_->end(), gid) != groups_->end();
}

bool Access::MaySee(const Tree& tree, const LogLine& line) {
  if (line.everyone || reader_.uid == 0 || line.by == reader_.uid) return true;
  if (line.uuid.empty()) return line.by && reader_.uid == tree.options.uid;
  if (const auto sandbox = tree.backend.Get(line.uuid)) {
    return MayUse(*sandbox);
  }
  return MayUse(line.uid, line.gid, line.mode);
}

}  // namespace sbxfs
