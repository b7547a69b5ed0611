#include "backend/fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <thread>

#include "backend/core.h"
#include "backend/fleet_jobs.h"
#include "backend/fleet_round.h"
#include "backend/fleet_view.h"
#include "backend/libvirt_backend.h"
#include "backend/observer_slot.h"
#include "backend/spec/yaml.h"
#include "backend/util/mutex.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

// What the mkdir of a text wants by its key `host`; empty: nothing.
std::string WantedHost(std::string_view name, std::string_view text) {
  try {
    const YamlNode document = ReadYaml(name, text);
    const YamlNode* node = document.Find("host");
    return node == nullptr ? "" : node->value;
  } catch (const Error&) {
    return "";  // whoever makes it says so
  }
}

class Fleet;

// Tells the fleet of one hypervisor's changes.
class MemberObserver : public Observer {
 public:
  MemberObserver(Fleet& fleet, std::string name)
      : fleet_(fleet), name_(std::move(name)) {}
  void SandboxChanged(const std::string& uuid) override;
  void HostChanged() override;
  void Happened(const Event& event) override;
  void ActionEnded(const std::string& uuid, const Error* error) override;

 private:
  Fleet& fleet_;
  const std::string name_;
};

class Fleet : public Backend {
 public:
  explicit Fleet(std::vector<NamedBackend> backends) {
    for (auto& [name, backend] : backends) {
      members_.push_back({name, std::move(backend),
                          std::make_unique<MemberObserver>(*this, name)});
    }
  }
  ~Fleet() override { SetObserver(nullptr); }

  [[nodiscard]] ObserverSlot& observer() { return observer_; }
  // The name of the hypervisor that has it, or empty.
  [[nodiscard]] std::string HolderOf(const std::string& uuid) const {
    const std::size_t i = view_.Holder(uuid);
    return i < members_.size() ? members_[i].name : "";
  }

  void SetObserver(Observer* observer) override {
    observer_.Set(observer);
    for (const auto& member : members_) {
      member.backend->SetObserver(observer == nullptr ? nullptr
                                                      : member.observer.get());
    }
  }

  [[nodiscard]] std::vector<SandboxPtr> List() const override {
    return view_.Merged(&Backend::List);
  }
  [[nodiscard]] std::vector<SandboxPtr> ListTrash() const override {
    return view_.Merged(&Backend::ListTrash);
  }
  [[nodiscard]] SandboxPtr Find(std::string_view name) const override {
    return view_.Found(name, &Backend::Find);
  }
  [[nodiscard]] SandboxPtr FindTrash(std::string_view name) const override {
    return view_.Found(name, &Backend::FindTrash);
  }
  [[nodiscard]] SandboxPtr Get(const std::string& uuid) const override {
    return view_.Get(uuid);
  }
  [[nodiscard]] HostPtr GetHost() const override { return First().GetHost(); }
  [[nodiscard]] std::vector<std::string> Members() const override {
    std::vector<std::string> names;
    for (const auto& member : members_) names.push_back(member.name);
    return names;
  }
  [[nodiscard]] Backend* Member(const std::string& name) override {
    for (const auto& member : members_) {
      if (member.name == name) return member.backend.get();
    }
    return nullptr;
  }

  void Create(const Caller& caller, const std::string& name,
              const std::string& config, mode_t mode,
              Reply<SandboxPtr> reply) override {
    reply.Guard([&] {
      const std::string what = fmt::format("Cannot create '{}'", name);
      Backend& where = Place(config, what);
      where.Create(caller, name, config, mode,
                   Named(name, what, &where, reply));
    });
  }
  void Rename(const Caller& caller, const std::string& uuid,
              const std::string& name, Reply<Done> reply) override {
    reply.Guard([&] {
      Backend& where = Of(uuid);
      where.Rename(caller, uuid, name,
                   Named(name, fmt::format("Cannot rename to '{}'", name),
                         &where, reply));
    });
  }
  void Clone(const Caller& caller, const std::string& uuid,
             const std::string& tag, const std::string& name, mode_t mode,
             Reply<SandboxPtr> reply) override {
    reply.Guard([&] {
      Backend& where = Of(uuid);
      where.Clone(caller, uuid, tag, name, mode,
                  Named(name, fmt::format("Cannot clone to '{}'", name), &where,
                        reply));
    });
  }
  void SetHost(const Caller& caller, const std::string& uuid,
               const std::string& name, Reply<Done> reply) override;

  void Remove(const Caller& caller, const std::string& uuid,
              Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).Remove(caller, uuid, reply); });
  }
  void Purge(const Caller& caller, const std::string& uuid,
             Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).Purge(caller, uuid, reply); });
  }
  void SetRights(const Caller& caller, const std::string& uuid,
                 const std::string& file, const FileRights& rights,
                 Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).SetRights(caller, uuid, file, rights, reply); });
  }
  void Act(const Caller& caller, const std::string& uuid, Verb verb, bool wait,
           Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).Act(caller, uuid, verb, wait, reply); });
  }
  // Each member's behind its name and length.
  [[nodiscard]] std::string Remember() const override {
    std::string all;
    for (const auto& member : members_) {
      const std::string bytes = member.backend->Remember();
      all += fmt::format("{} {}\n{}", member.name, bytes.size(), bytes);
    }
    return all;
  }
  void Recall(const std::string& bytes) override {
    for (size_t at = 0; at < bytes.size();) {
      const size_t end = bytes.find('\n', at);
      const std::string head = bytes.substr(at, end - at);
      const auto size = ParseNumber(head.substr(head.rfind(' ') + 1));
      if (end == std::string::npos || !size) {
        throw Error(EPROTO, "Cannot go on with the jobs of the daemon before");
      }
      // One that is no member any more has taken its sandboxes along.
      if (Backend* member = Member(head.substr(0, head.rfind(' ')))) {
        if (*size > 0) member->Recall(bytes.substr(end + 1, *size));
      }
      at = end + 1 + *size;
    }
  }
  [[nodiscard]] std::string UnderWay() const override {
    for (const auto& member : members_) {
      std::string what = member.backend->UnderWay();
      if (!what.empty()) return what;
    }
    return {};
  }
  void WaitFor(const std::string& uuid, State state,
               Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).WaitFor(uuid, state, reply); });
  }
  void Set(const Caller& caller, const std::string& uuid, Setting setting,
           const std::string& value, Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).Set(caller, uuid, setting, value, reply); });
  }
  void SetItem(const Caller& caller, const std::string& uuid,
               Collection collection, const std::string& name,
               const std::string& value, Reply<Done> reply) override {
    reply.Guard([&] {
      Of(uuid).SetItem(caller, uuid, collection, name, value, reply);
    });
  }
  void TakeSnapshot(const Caller& caller, const std::string& uuid,
                    const std::string& tag, Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).TakeSnapshot(caller, uuid, tag, reply); });
  }
  void RemoveSnapshot(const Caller& caller, const std::string& uuid,
                      const std::string& tag, Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).RemoveSnapshot(caller, uuid, tag, reply); });
  }
  void RenameSnapshot(const Caller& caller, const std::string& uuid,
                      const std::string& tag, const std::string& new_tag,
                      Reply<Done> reply) override {
    reply.Guard(
        [&] { Of(uuid).RenameSnapshot(caller, uuid, tag, new_tag, reply); });
  }
  void DescribeSnapshot(const Caller& caller, const std::string& uuid,
                        const std::string& tag, const std::string& text,
                        Reply<Done> reply) override {
    reply.Guard(
        [&] { Of(uuid).DescribeSnapshot(caller, uuid, tag, text, reply); });
  }
  void Commit(const Caller& caller, const std::string& uuid,
              const std::string& image, Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).Commit(caller, uuid, image, reply); });
  }
  void Revert(const Caller& caller, const std::string& uuid,
              const std::string& tag, bool force, bool wait,
              Reply<Done> reply) override {
    reply.Guard(
        [&] { Of(uuid).Revert(caller, uuid, tag, force, wait, reply); });
  }
  void ForgetRejected(const Caller& caller, const std::string& uuid,
                      Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).ForgetRejected(caller, uuid, reply); });
  }
  void Refresh(const std::string& uuid, Facet facet,
               Reply<Done> reply) override {
    reply.Guard([&] {
      (uuid.empty() ? First() : Of(uuid)).Refresh(uuid, facet, reply);
    });
  }
  [[nodiscard]] std::string Effective(const std::string& uuid) const override {
    const std::size_t i = view_.Holder(uuid);
    return i < members_.size() ? members_[i].backend->Effective(uuid) : "";
  }
  void Certify(const Caller& caller, const std::string& uuid,
               const std::string& key, Reply<Certificate> reply) override {
    reply.Guard([&] { Of(uuid).Certify(caller, uuid, key, reply); });
  }
  void RevokeCertificates(const Caller& caller, const std::string& uuid,
                          Reply<Done> reply) override {
    reply.Guard([&] { Of(uuid).RevokeCertificates(caller, uuid, reply); });
  }
  [[nodiscard]] Jobs& GetJobs() override { return jobs_; }
  [[nodiscard]] GuestFiles& GetFiles() override { return files_; }

  // Settings hold wherever a sandbox is.
  void SetDocument(const Caller& caller, const std::string& name,
                   const std::optional<std::string>& text,
                   Reply<Done> reply) override {
    OnAll(std::move(reply), [=](Backend& backend, Reply<Done> one) {
      backend.SetDocument(caller, name, text, std::move(one));
    });
  }
  void SetAuthorizedKeys(const Caller& caller, const std::string& text,
                         Reply<Done> reply) override {
    OnAll(std::move(reply), [=](Backend& backend, Reply<Done> one) {
      backend.SetAuthorizedKeys(caller, text, std::move(one));
    });
  }

  void SetUri(const Caller& caller, const std::string& uri,
              Reply<Done> reply) override {
    First().SetUri(caller, uri, std::move(reply));
  }
  void OpenImage(const std::string& name,
                 Reply<std::shared_ptr<ImageReader>> reply) override {
    First().OpenImage(name, std::move(reply));
  }
  void CreateImage(const Caller& caller, const std::string& name,
                   Reply<std::shared_ptr<ImageWriter>> reply) override {
    First().CreateImage(caller, name, std::move(reply));
  }
  void RemoveImage(const Caller& caller, const std::string& name,
                   Reply<Done> reply) override {
    First().RemoveImage(caller, name, std::move(reply));
  }
  void SetDisk(const Caller& caller, const std::string& name,
               const std::string& size, Reply<Done> reply) override {
    First().SetDisk(caller, name, size, std::move(reply));
  }
  void RemoveDisk(const Caller& caller, const std::string& name,
                  Reply<Done> reply) override {
    First().RemoveDisk(caller, name, std::move(reply));
  }
  void MakeNetwork(const Caller& caller, const std::string& name,
                   Reply<Done> reply) override {
    First().MakeNetwork(caller, name, std::move(reply));
  }
  void SetNetwork(const Caller& caller, const std::string& name,
                  const std::string& config, Reply<Done> reply) override {
    First().SetNetwork(caller, name, config, std::move(reply));
  }
  void RemoveNetwork(const Caller& caller, const std::string& name,
                     Reply<Done> reply) override {
    First().RemoveNetwork(caller, name, std::move(reply));
  }

 private:
  [[nodiscard]] Backend& First() const { return *members_.front().backend; }

  [[nodiscard]] Backend& Of(const std::string& uuid) const {
    return view_.Of(uuid);
  }

  // Where a new sandbox is to be made.
  [[nodiscard]] Backend& Place(const std::string& config,
                               const std::string& what);

  // `reply`, until whose answer `name` is nobody else's. Throws Error(EEXIST)
  // when another than `where` has it.
  template <typename T>
  [[nodiscard]] Reply<T> Named(const std::string& name, const std::string& what,
                               const Backend* where, const Reply<T>& reply) {
    const std::string label = GuestHostname(name);
    for (const auto& member : members_) {
      if (member.backend.get() == where) continue;
      for (const auto& sandbox : member.backend->List()) {
        if (GuestHostname(sandbox->name) != label) continue;
        throw Error(EEXIST, fmt::format("{}: the hypervisor '{}' has a '{}'",
                                        what, member.name, sandbox->name));
      }
    }
    {
      MutexLock lock(mutex_);
      if (!being_made_.insert(label).second) {
        throw Error(EEXIST, fmt::format("{}: it is being made just now", what));
      }
    }
    const Reply<T> named([this, label, reply](Outcome<T> outcome) {
      {
        MutexLock lock(mutex_);
        being_made_.erase(label);
      }
      reply.Give(std::move(outcome));
    });
    reply.OnCancel(named.Canceller());
    return named;
  }

  void TellMoved(const std::string& uuid, const std::string& to);
  // Has all that are connected do it; answers when they have. Their first
  // failure is the answer.
  void OnAll(Reply<Done> reply, FleetDoing doing);

  ObserverSlot observer_;
  Mutex mutex_;
  std::set<std::string> being_made_ GUARDED_BY(mutex_);  // host names
  const FleetView view_{members_};
  FleetJobs jobs_{members_};
  FleetFiles files_{members_};
  std::vector<FleetMember> members_;  // goes first: it still answers
};

void MemberObserver::SandboxChanged(const std::string& uuid) {
  const ObserverSlot::Telling observer(fleet_.observer());
  if (observer) observer->SandboxChanged(uuid);
}
void MemberObserver::HostChanged() {
  const ObserverSlot::Telling observer(fleet_.observer());
  if (observer) observer->HostChanged();
}
void MemberObserver::Happened(const Event& event) {
  const ObserverSlot::Telling observer(fleet_.observer());
  if (!observer) return;
  // Of one that is coming here, or has gone: nothing of it is news.
  if (const auto holder = fleet_.HolderOf(event.uuid);
      !event.uuid.empty() && !holder.empty() && holder != name_) {
    return;
  }
  Event told = event;
  if (event.uuid.empty()) {
    told.detail = fmt::format("{}{}{}", name_, told.detail.empty() ? "" : " ",
                              told.detail);
  } else if (const auto sandbox = fleet_.Get(event.uuid)) {
    told.name = sandbox->name;
  }
  observer->Happened(told);
}
void MemberObserver::ActionEnded(const std::string& uuid, const Error* error) {
  const ObserverSlot::Telling observer(fleet_.observer());
  if (observer) observer->ActionEnded(uuid, error);
}

Backend& Fleet::Place(const std::string& config, const std::string& what) {
  const HostPtr host = GetHost();
  for (const auto& [name, text] : {std::pair<const char*, const std::string&>{
                                       "override.yaml", host->overrides},
                                   {"config.yaml", config},
                                   {"defaults.yaml", host->defaults}}) {
    const std::string wanted = WantedHost(name, text);
    if (wanted.empty()) continue;
    if (Backend* member = Member(wanted)) return *member;
    throw Error(EINVAL,
                fmt::format("{}: {} names the host '{}'; there are {}", what,
                            name, wanted, fmt::join(Members(), ", ")));
  }
  // The one with most memory that nobody uses, or that no guest of ours will.
  Backend* best = nullptr;
  uint64_t most = 0;
  for (const auto& member : members_) {
    const HostPtr one = member.backend->GetHost();
    if (!one->connected) continue;
    uint64_t taken = 0;
    for (const auto& sandbox : member.backend->List()) {
      if (!IsOff(sandbox->state)) taken += sandbox->memory;
    }
    const uint64_t left = one->memory > taken ? one->memory - taken : 0;
    const uint64_t free = std::min(left, one->memory_free);
    if (best == nullptr || free > most) {
      best = member.backend.get();
      most = free;
    }
  }
  if (best == nullptr) {
    throw Error(EHOSTDOWN, fmt::format("{}: none of the hypervisors is "
                                       "connected; .host/hosts/NAME/connection "
                                       "tells why",
                                       what));
  }
  return *best;
}

void Fleet::OnAll(Reply<Done> reply, FleetDoing doing) {
  std::vector<Backend*> connected;
  for (const auto& member : members_) {
    if (member.backend->GetHost()->connected) {
      connected.push_back(member.backend.get());
    }
  }
  if (connected.empty()) connected.push_back(&First());  // it says why
  DoOnEach(std::move(connected), std::move(doing), std::move(reply));
}

void Fleet::TellMoved(const std::string& uuid, const std::string& to) {
  const SandboxPtr moved = Get(uuid);
  const ObserverSlot::Telling observer(observer_);
  if (!moved || !observer) return;
  observer->Happened({std::chrono::system_clock::now(), uuid, moved->name,
                      "moved", "to " + to, moved->uid, moved->gid,
                      moved->mode});
}

void Fleet::SetHost(const Caller&, const std::string& uuid,
                    const std::string& name, Reply<Done> reply) {
  reply.Guard([&] {
    Backend& from = Of(uuid);
    const SandboxPtr own = from.Get(uuid);
    const SandboxPtr sandbox = Get(uuid);
    if (!own || !sandbox) throw Error(ENOENT, "Cannot move it: it is gone");
    Backend* to = Member(name);
    const std::string what =
        fmt::format("Cannot move '{}' to '{}'", sandbox->name, name);
    if (to == nullptr) {
      throw Error(EINVAL, fmt::format("{}: no such hypervisor; there are {}",
                                      what, fmt::join(Members(), ", ")));
    }
    if (to == &from) {
      reply.Ok();
      return;
    }
    if (!to->GetHost()->connected) {
      throw Error(EHOSTDOWN, fmt::format("{}: it is not connected; see "
                                         ".host/hosts/{}/connection",
                                         what, name));
    }
    const Reply<Done> named = Named(own->name, what, &from, reply);
    const Reply<Done> told([this, uuid, name, named](Outcome<Done> outcome) {
      if (!std::holds_alternative<Error>(outcome)) TellMoved(uuid, name);
      named.Give(std::move(outcome));
    });
    named.OnCancel(told.Canceller());
    MoveBetween(from, *to, uuid, what, told);
  });
}

}  // namespace

std::unique_ptr<Backend> MakeFleet(std::vector<NamedBackend> backends) {
  return std::make_unique<Fleet>(std::move(backends));
}

std::unique_ptr<Backend> OpenFleet(const std::vector<Hypervisor>& hypervisors,
                                   const BackendOptions& options) {
  std::vector<NamedBackend> backends;
  for (const auto& [name, uri] : hypervisors) {
    BackendOptions own = options;
    own.uri = uri;
    own.hypervisor = name;
    backends.push_back({name, MakeLibvirt(own)});
  }
  // All at once: one that is down takes its time.
  std::vector<std::exception_ptr> failures(backends.size());
  std::vector<std::thread> openers;
  for (std::size_t i = 0; i < backends.size(); ++i) {
    openers.emplace_back([&backend = *backends[i].backend, &failures, i] {
      try {
        OpenOrRetry(backend);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    });
  }
  for (auto& opener : openers) opener.join();
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return MakeFleet(std::move(backends));
}

}  // namespace sbxfs
