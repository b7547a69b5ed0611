#include "backend/catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace sbxfs {

std::vector<SandboxPtr> Catalog::List(bool trashed) const {
  MutexLock lock(mutex_);
  std::vector<SandboxPtr> list;
  list.reserve(names_[trashed].size());
  for (const auto& [name, uuids] : names_[trashed]) {
    list.push_back(entries_.at(uuids.back()).shown);
  }
  return list;
}

SandboxPtr Catalog::Find(std::string_view name, bool trashed) const {
  MutexLock lock(mutex_);
  const auto found = names_[trashed].find(name);
  if (found == names_[trashed].end()) return nullptr;
  return entries_.at(found->second.back()).shown;
}

SandboxPtr Catalog::Get(const std::string& uuid) const {
  MutexLock lock(mutex_);
  const auto found = entries_.find(uuid);
  return found == entries_.end() ? nullptr : found->second.shown;
}

bool Catalog::IsOff(const std::string& uuid) const {
  MutexLock lock(mutex_);
  const auto found = entries_.find(uuid);
  return found == entries_.end() || sbxfs::IsOff(found->second.base->state);
}

std::vector<SandboxPtr> Catalog::All() const {
  MutexLock lock(mutex_);
  std::vector<SandboxPtr> list;
  list.reserve(entries_.size());
  for (const auto& [uuid, entry] : entries_) list.push_back(entry.shown);
  return list;
}

HostPtr Catalog::GetHost() const {
  MutexLock lock(mutex_);
  return host_;
}

bool Catalog::Show(Entry& entry) {
  Sandbox shown = *entry.base;
  shown.name = entry.name;
  const Overlay& overlay = entry.overlay;
  const bool plain = overlay == Overlay() && host_->connected &&
                     entry.name == entry.base->name;
  if (overlay.doing) {
    shown.state = *overlay.doing;
    if (*overlay.doing != entry.base->state) shown.reason = overlay.progress;
  }
  shown.progress = overlay.progress;
  if (!shown.ready && shown.ready_for.empty()) {
    shown.ready_for = overlay.ready_for;
  }
  shown.addresses = overlay.addresses;
  shown.usage = overlay.usage;
  if (!shown.usage.started) shown.usage.started = entry.base->usage.started;
  shown.console = overlay.console;
  shown.provision_log = overlay.provision_log;
  if (overlay.taking) {
    shown.snapshots.emplace(overlay.taking->tag, *overlay.taking);
  }
  if (!host_->connected) {
    shown.state = State::kUnreachable;
    shown.reason = host_->why;
    shown.ready = false;
    shown.ready_for = "the connection to libvirt";
  }
  if (entry.shown != nullptr) {
    shown.state_since = shown.state == entry.shown->state
                            ? entry.shown->state_since
                            : std::chrono::system_clock::now();
    if (shown == *entry.shown) {
      if (plain) entry.base = entry.shown;
      return false;
    }
  } else if (shown.state_since == Time()) {
    shown.state_since = shown.used;
  }
  entry.shown = std::make_shared<const Sandbox>(std::move(shown));
  if (plain) entry.base = entry.shown;
  return true;
}

// What the events file says of a change; the observer re-reads the rest.
void Catalog::Tell(const SandboxPtr& before, const SandboxPtr& after) {
  {
    MutexLock lock(mutex_);
    ++version_;
  }
  changed_.NotifyAll();
  const ObserverSlot::Telling observer(observer_);
  if (!observer) return;
  const Sandbox& one = after != nullptr ? *after : *before;
  Event event{std::chrono::system_clock::now(),
              one.uuid,
              one.name,
              "",
              "",
              one.uid,
              one.gid,
              one.mode};
  auto happened = [&](std::string what, std::string detail) {
    event.what = std::move(what);
    event.detail = std::move(detail);
    observer->Happened(event);
  };
  if (before == nullptr) {
    happened("appeared", std::string(StateName(after->state)));
  } else if (after == nullptr) {
    happened("gone", "");
  } else {
    if (before->name != after->name ||
        before->trashed.has_value() != after->trashed.has_value()) {
      happened(after->trashed    ? "trashed"
               : before->trashed ? "restored"
                                 : "renamed",
               before->name == after->name ? "" : "from " + before->name);
    }
    if (before->state != after->state) {
      happened("state", std::string(StateName(after->state)));
    }
    if (before->ready != after->ready && after->ready) {
      happened("ready", fmt::format("{:.1f}", after->ready_seconds));
    }
    if (before->config != after->config) happened("config", "");
    for (const auto& [tag, one] : after->snapshots) {
      const auto old = before->snapshots.find(tag);
      if (old == before->snapshots.end() || old->second.kind != one.kind) {
        happened("snapshot", fmt::format("{} {}", tag, one.kind));
      }
    }
    for (const auto& [tag, one] : before->snapshots) {
      if (!after->snapshots.contains(tag)) happened("snapshot_gone", tag);
    }
    if (before->ssh_port != after->ssh_port) {
      happened("ssh_port", std::to_string(after->ssh_port));
    }
  }
  observer->SandboxChanged(one.uuid);
}

SandboxPtr Catalog::Put(Sandbox base) {
  SandboxPtr put;
  SandboxPtr before;
  SandboxPtr after;
  {
    MutexLock lock(mutex_);
    const std::string uuid = base.uuid;
    Entry& entry = entries_[uuid];
    before = entry.shown;
    if (before != nullptr) Unlist(entry);
    // A new one is off until now.
    if ((entry.base == nullptr || sbxfs::IsOff(entry.base->state)) &&
        !sbxfs::IsOff(base.state)) {
      entry.overlay.provision_log.reset();
    }
    entry.base = put = std::make_shared<const Sandbox>(std::move(base));
    if (sbxfs::IsOff(entry.base->state)) {
      entry.overlay.addresses.clear();
      entry.overlay.ready_for.clear();
    }
    Enlist(entry);
    const bool differs = Show(entry);
    after = entry.shown;
    // What is shown may hide it (IsOff), so who waits looks in any case.
    ++version_;
    if (!differs) after = nullptr;
  }
  changed_.NotifyAll();
  if (after != nullptr) Tell(before, after);
  return put;
}

std::string Catalog::NumberedInTrash(const std::string& name) const {
  std::string numbered = name;
  for (int i = 2; names_[true].contains(numbered); ++i) {
    numbered = fmt::format("{}.{}", name.substr(0, 54), i);  // 58 at most
  }
  return numbered;
}

std::string Catalog::FreeInTrash(const std::string& name) const {
  MutexLock lock(mutex_);
  return NumberedInTrash(name);
}

void Catalog::Enlist(Entry& entry) {
  // Of two in the trash with one name the later gets a number; elsewhere the
  // name is the latest's: what is known of the other is old.
  entry.name = entry.base->trashed ? NumberedInTrash(entry.base->name)
                                   : entry.base->name;
  names_[entry.base->trashed.has_value()][entry.name].push_back(
      entry.base->uuid);
}

void Catalog::Unlist(const Entry& entry) {
  auto& names = names_[entry.base->trashed.has_value()];
  const auto found = names.find(entry.name);
  std::erase(found->second, entry.base->uuid);
  if (found->second.empty()) names.erase(found);
}

void Catalog::Erase(const std::string& uuid) {
  SandboxPtr before;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(uuid);
    if (found == entries_.end()) return;
    before = found->second.shown;
    Unlist(found->second);
    entries_.erase(found);
  }
  Tell(before, nullptr);
}

void Catalog::Keep(const std::set<std::string>& uuids) {
  std::vector<std::string> gone;
  {
    MutexLock lock(mutex_);
    for (const auto& [uuid, entry] : entries_) {
      if (!uuids.contains(uuid)) gone.push_back(uuid);
    }
  }
  for (const auto& uuid : gone) Erase(uuid);
}

void Catalog::Change(const std::string& uuid,
                     const std::function<void(Overlay&)>& change) {
  SandboxPtr before;
  SandboxPtr after;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(uuid);
    if (found == entries_.end()) return;
    before = found->second.shown;
    change(found->second.overlay);
    if (!Show(found->second)) return;
    after = found->second.shown;
  }
  Tell(before, after);
}

void Catalog::ChangeHost(const std::function<void(Host&)>& change) {
  (void)ChangeHostIf([&](Host& host) {
    change(host);
    return true;
  });
}

bool Catalog::ChangeHostIf(const std::function<bool(Host&)>& change) {
  std::vector<std::pair<SandboxPtr, SandboxPtr>> changed;
  std::string connection;
  {
    MutexLock lock(mutex_);
    Host host = *host_;
    if (!change(host)) return false;
    const bool flipped = host.connected != host_->connected;
    if (flipped) {
      host.since = std::chrono::system_clock::now();
      connection = host.connected ? "connected" : "disconnected";
    }
    host_ = std::make_shared<const Host>(std::move(host));
    if (flipped) {
      for (auto& [uuid, entry] : entries_) {
        SandboxPtr before = entry.shown;
        if (Show(entry)) changed.emplace_back(before, entry.shown);
      }
    }
    ++version_;
  }
  changed_.NotifyAll();
  for (const auto& [before, after] : changed) Tell(before, after);
  const ObserverSlot::Telling observer(observer_);
  if (!observer) return true;
  if (!connection.empty()) {
    observer->Happened(Event{std::chrono::system_clock::now(), "", "",
                             connection, GetHost()->why});
  }
  observer->HostChanged();
  return true;
}

void Catalog::ReportEnd(const std::string& uuid, const Error* error) {
  const ObserverSlot::Telling observer(observer_);
  if (observer) observer->ActionEnded(uuid, error);
}

void Catalog::Touch(const std::string& uuid) {
  const ObserverSlot::Telling observer(observer_);
  if (observer) observer->SandboxChanged(uuid);
}

void Catalog::Report(const std::string& what, const std::string& detail,
                     const Sandbox* sandbox) {
  const ObserverSlot::Telling observer(observer_);
  if (!observer) return;
  Event event{std::chrono::system_clock::now(), "", "", what, detail};
  if (sandbox != nullptr) {
    event.uuid = sandbox->uuid;
    event.name = sandbox->name;
    event.uid = sandbox->uid;
    event.gid = sandbox->gid;
    event.mode = sandbox->mode;
  }
  observer->Happened(event);
}

bool Catalog::WaitUntil(const std::string& uuid,
                        const std::function<bool(const Sandbox*)>& done,
                        std::chrono::steady_clock::time_point deadline,
                        const std::atomic<bool>& stop) {
  for (;;) {
    uint64_t seen = 0;
    {
      MutexLock lock(mutex_);
      seen = version_;
    }
    if (done(Get(uuid).get())) return true;
    MutexLock lock(mutex_);
    while (version_ == seen && !stop) {
      if (std::chrono::steady_clock::now() >= deadline) return false;
      changed_.WaitUntil(mutex_, deadline);
    }
    if (stop) return false;
  }
}

void Catalog::WakeAll() {
  {
    MutexLock lock(mutex_);
    ++version_;
  }
  changed_.NotifyAll();
}

}  // namespace sbxfs
