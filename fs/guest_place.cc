#include "fs/guest_place.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "fs/attributes.h"
#include "fs/guest_open.h"

namespace sbxfs {
namespace {

std::string RootKey(const std::string& uuid, const std::string& snapshot) {
  if (snapshot.empty()) return uuid + "/fs/";
  return fmt::format("{}/snapshots/{}/fs/", uuid, snapshot);
}

// Those at `path` and below it.
template <typename Map>
std::vector<typename Map::value_type> TakeBelow(Map& paths,
                                                const std::string& path) {
  std::vector<typename Map::value_type> taken;
  const std::string below = path + '/';
  if (const auto it = paths.find(path); it != paths.end()) {
    taken.push_back(*it);
    paths.erase(it);
  }
  for (auto it = paths.lower_bound(below);
       it != paths.end() && it->first.starts_with(below);) {
    taken.push_back(*it);
    it = paths.erase(it);
  }
  return taken;
}

}  // namespace

std::string SnapshotId(const Snapshot& snapshot) {
  return snapshot.layer.empty() ? "=" + snapshot.tag : snapshot.layer;
}

std::string TargetWithin(std::string_view path, std::string_view target) {
  std::size_t depth = 0;  // of the directory that the link is in
  for (const char c : path) depth += c == '/' ? 1 : 0;
  const bool absolute = target.starts_with('/');
  std::size_t up = absolute ? depth : 0;
  bool as_it_is = !absolute && !target.empty();
  std::vector<std::string_view> down;
  for (std::size_t at = 0; at < target.size();) {
    const std::size_t end = std::min(target.find('/', at), target.size());
    const std::string_view part = target.substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      down.push_back(part);
    } else if (!down.empty()) {
      down.pop_back();
      as_it_is = false;
    } else if (up < depth) {
      ++up;
    } else {
      as_it_is = false;  // above the root there is the root
    }
  }
  // Who compares texts, as git does, finds what was stored.
  if (as_it_is) return std::string(target);
  std::string shown;
  const auto add = [&](std::string_view part) {
    if (!shown.empty()) shown += '/';
    shown += part;
  };
  for (std::size_t i = 0; i < up; ++i) add("..");
  for (const auto part : down) add(part);
  if (shown.empty()) return ".";
  if (target.ends_with('/') && !down.empty()) shown += '/';
  return shown;
}

GuestPath::~GuestPath() {
  place_->Forget(*this);
  if (noted_ && place_->tree->book != nullptr) {
    place_->tree->book->Remove(identity);
  }
}

std::string GuestPath::Path() const {
  MutexLock lock(mutex_);
  return path_;
}

PathRecord GuestPath::Record() const {
  return {identity, place_->uuid, place_->snapshot, path_, opened_running_};
}

void GuestPath::Note() {
  MutexLock lock(mutex_);
  if (!noted_) Write();
}

void GuestPath::Write() {
  if (place_->tree->book == nullptr) return;
  noted_ = true;
  place_->tree->book->Add(Record());
}

void GuestPath::Move(std::string path) {
  MutexLock lock(mutex_);
  path_ = std::move(path);
  if (noted_) Write();
}

void GuestPath::SetOpen(const std::shared_ptr<GuestOpen>& open) {
  MutexLock lock(mutex_);
  open_ = open;
  opened_running_ = !open->AtRest();
  Write();
}

std::shared_ptr<GuestOpen> GuestPath::Open() const {
  MutexLock lock(mutex_);
  return open_.lock();
}

bool GuestPath::Lost() const {
  const bool at_rest = place_->AtRest();
  // Its connection may not know yet that the guest is gone.
  if (const auto open = Open()) {
    return open->AtRest() != at_rest || !open->IsCurrent();
  }
  MutexLock lock(mutex_);
  return restored_ && opened_running_ && at_rest;
}

GuestPlace::GuestPlace(TreePtr tree, std::string uuid, std::string snapshot)
    : uuid(std::move(uuid)),
      snapshot(std::move(snapshot)),
      key(RootKey(this->uuid, this->snapshot)),
      tree(std::move(tree)) {}

FilesOf GuestPlace::Whose() const {
  if (snapshot.empty()) return {uuid, ""};
  const View view = tree->ViewFor({}, uuid);
  for (const auto& [tag, one] : view.sandbox->snapshots) {
    if (SnapshotId(one) == snapshot) return {uuid, tag};
  }
  throw Error(ENOENT, "Cannot go on: the snapshot is gone");
}

struct stat GuestPlace::RootStat() const {
  const View view = tree->ViewFor({}, uuid);
  const auto kind = snapshot.empty() ? DirKind::kSandbox : DirKind::kSnapshot;
  struct stat stat = RowStat(view, *FindRow(kind, "fs"), 0);
  stat.st_nlink = 1;
  return stat;
}

bool GuestPlace::AtRest() const {
  if (!snapshot.empty()) return true;
  const auto sandbox = tree->backend.Get(uuid);
  return sandbox && !IsOn(sandbox->state);
}

GuestPathPtr GuestPlace::At(const std::string& path, bool is_dir) {
  GuestPathPtr before, live;  // freed, and asked, outside the lock
  {
    MutexLock lock(mutex_);
    const auto found = paths_.find(path);
    if (found != paths_.end()) before = found->second.lock();
  }
  const bool lost = before && before->Lost();
  MutexLock lock(mutex_);
  auto& known = paths_[path];
  live = known.lock();
  // A directory is no other thing of that name, and what was opened in a guest
  // that is gone is not what its disk has.
  if (live && live->identity.ends_with('/') == is_dir &&
      !(lost && live == before)) {
    return live;
  }
  std::string identity = key + path;
  if (is_dir && !path.empty()) identity += '/';
  // Another had that name, and is still known.
  while (!identities_.insert(identity).second) {
    identity = fmt::format("{}{}#{}{}", key, path, ++last_, is_dir ? "/" : "");
  }
  const auto made =
      std::make_shared<GuestPath>(shared_from_this(), identity, path);
  known = made;
  return made;
}

GuestPathPtr GuestPlace::Restore(const PathRecord& record) {
  GuestPathPtr made, live;  // freed outside the lock
  {
    MutexLock lock(mutex_);
    auto& known = paths_[record.path];
    live = known.lock();
    if (live && live->identity == record.identity) return live;
    identities_.insert(record.identity);
    made = std::make_shared<GuestPath>(shared_from_this(), record.identity,
                                       record.path, &record);
    known = made;
  }
  made->Note();
  return made;
}

void GuestPlace::Moved(const std::string& from, const std::string& to) {
  Gone(to);
  std::vector<std::pair<GuestPathPtr, std::string>> moved;
  {
    MutexLock lock(mutex_);
    for (const auto& [path, weak] : TakeBelow(paths_, from)) {
      const std::string now = to + path.substr(from.size());
      if (auto live = weak.lock()) {
        moved.emplace_back(std::move(live), now);
        paths_[now] = weak;
      }
    }
  }
  for (const auto& [path, now] : moved) path->Move(now);
}

void GuestPlace::Gone(const std::string& path) {
  MutexLock lock(mutex_);
  TakeBelow(paths_, path);
}

void GuestPlace::Forget(const GuestPath& path) {
  const std::string name = path.Path();
  MutexLock lock(mutex_);
  identities_.erase(path.identity);
  // Only what is gone: another may have the name.
  const auto found = paths_.find(name);
  if (found != paths_.end() && found->second.expired()) paths_.erase(found);
}

std::shared_ptr<GuestPlace> Tree::FilesIn(const std::string& uuid,
                                          const std::string& snapshot) {
  auto self = shared_from_this();
  MutexLock lock(mutex_);
  std::erase_if(guest_places_,
                [](const auto& one) { return one.second.expired(); });
  auto& known = guest_places_[{uuid, snapshot}];
  auto place = known.lock();
  if (!place) {
    place = std::make_shared<GuestPlace>(std::move(self), uuid, snapshot);
    known = place;
  }
  return place;
}

}  // namespace sbxfs
