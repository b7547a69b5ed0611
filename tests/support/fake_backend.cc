#include "tests/support/fake_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

Time Now() { return std::chrono::system_clock::now(); }

std::string_view SettingName(Setting setting) {
  constexpr std::string_view kNames[] = {
      "config",      "cpus",      "memory",   "disk",
      "description", "autostart", "ssh_port", "authorized_keys"};
  return kNames[static_cast<int>(setting)];
}

State StateAfter(Verb verb) {
  switch (verb) {
    case Verb::kStop:
    case Verb::kKill:
      return State::kStopped;
    case Verb::kPause:
      return State::kPaused;
    case Verb::kSave:
      return State::kSaved;
    case Verb::kFactoryReset:
    case Verb::kRevert:
      return State::kStopped;
    case Verb::kDestroy:
      return State::kDestroying;
    default:
      return State::kRunning;
  }
}

void Apply(Sandbox& sandbox, Setting setting, const std::string& value) {
  const std::string bad = fmt::format("Cannot set '{}': '{}' is no number",
                                      SettingName(setting), value);
  switch (setting) {
    case Setting::kConfig:
      if (value.find("bad") != std::string::npos) {
        sandbox.rejected = value;
        sandbox.rejected_reason =
            "Cannot accept 'config.yaml': line 1, column 1: unknown key 'bad'; "
            "did you mean 'base'?";
        throw Error(EINVAL, sandbox.rejected_reason);
      }
      sandbox.config = value;
      sandbox.config_time = Now();
      sandbox.rejected.clear();
      break;
    case Setting::kCpus:
      if (!ParseNumber(value)) throw Error(EINVAL, bad);
      sandbox.cpus = static_cast<unsigned>(*ParseNumber(value));
      break;
    case Setting::kMemory:
      if (!ParseSize(value)) throw Error(EINVAL, bad);
      sandbox.memory = *ParseSize(value);
      break;
    case Setting::kDisk:
      if (!ParseSize(value)) throw Error(EINVAL, bad);
      sandbox.disk = *ParseSize(value);
      break;
    case Setting::kDescription:
      sandbox.description = value;
      break;
    case Setting::kAutostart:
      sandbox.autostart = value == "true";
      break;
    case Setting::kSshPort:
      if (!ParseNumber(value)) throw Error(EINVAL, bad);
      sandbox.ssh_port = static_cast<int>(*ParseNumber(value));
      break;
    case Setting::kAuthorizedKeys:
      sandbox.authorized_keys = value;
      break;
  }
}

Error Gone() { return {ENOENT, "Cannot go on: the sandbox is gone"}; }

Snapshot& SnapshotOf(Sandbox& sandbox, const std::string& tag) {
  const auto found = sandbox.snapshots.find(tag);
  if (found == sandbox.snapshots.end()) {
    throw Error(ENOENT, fmt::format("Cannot find snapshot '{}'", tag));
  }
  return found->second;
}

class FakeImageReader : public ImageReader {
 public:
  explicit FakeImageReader(std::string bytes) : bytes_(std::move(bytes)) {}
  void Read(uint64_t offset, size_t size, Reply<std::string> reply) override {
    reply.Ok(offset < bytes_.size() ? bytes_.substr(offset, size) : "");
  }

 private:
  const std::string bytes_;
};

}  // namespace

class FakeImageWriter : public ImageWriter {
 public:
  FakeImageWriter(FakeBackend& backend, std::string name)
      : backend_(backend), name_(std::move(name)) {}

  void Write(uint64_t offset, std::string bytes, Reply<Done> reply) override {
    backend_.Do("write image", reply, [=, this] {
      MutexLock lock(mutex_);
      if (offset < bytes_.size()) {
        throw Error(ESPIPE,
                    "Cannot write the image: it is taken front to "
                    "back");
      }
      bytes_.resize(offset);
      bytes_ += bytes;
      reply.Ok();
    });
  }
  void Truncate(uint64_t size, Reply<Done> reply) override {
    {
      MutexLock lock(mutex_);
      bytes_.resize(std::max<size_t>(size, bytes_.size()));
    }
    reply.Ok();
  }
  void Finish(Reply<Done> reply) override {
    backend_.Do("finish image", reply, [=, this] {
      std::string bytes;
      {
        MutexLock lock(mutex_);
        bytes = bytes_;
      }
      if (!bytes.starts_with("QFI")) {
        throw Error(EINVAL,
                    fmt::format("Cannot take image '{}': it is none", name_));
      }
      backend_.AddImage(name_, bytes);
      reply.Ok();
    });
  }
  uint64_t Written() const override {
    MutexLock lock(mutex_);
    return bytes_.size();
  }

 private:
  FakeBackend& backend_;
  const std::string name_;
  mutable Mutex mutex_;
  std::string bytes_ GUARDED_BY(mutex_);
};

FakeBackend::FakeBackend() {
  Host host;
  host.uri = "fake:///default";
  host.connected = true;
  host.since = Now();
  host.hypervisor = "Fake 1.0";
  host.cpus = 8;
  host.memory = 16ULL << 30;
  host.memory_free = 8ULL << 30;
  host.pool = "sbxfs";
  host.pool_size = 100ULL << 30;
  host.pool_available = 50ULL << 30;
  host.accelerator = "kvm";
  host.defaults = "cpus: 2\n";
  host.defaults_time = host.since;
  host.identity_file = "/home/me/.local/share/sbxfs/id";
  host_ = std::make_shared<Host>(host);
}

template <typename T>
void FakeBackend::Do(const std::string& call, const Reply<T>& reply,
                     std::function<void()> work) {
  const auto run = [this, call, reply, work = std::move(work)] {
    std::optional<Error> failure;
    {
      MutexLock lock(mutex_);
      const auto found = failing_.find(call);
      if (found != failing_.end()) failure = found->second;
    }
    reply.Guard([&] {
      if (failure) throw Error(*failure);
      // The asker gave up: what was begun is undone.
      if (!reply.Answered()) work();
    });
  };
  {
    MutexLock lock(mutex_);
    if (holding_.contains(call)) {
      held_.emplace(call, run);
      return;
    }
  }
  run();
}

void FakeBackend::Log(const std::string& call) {
  MutexLock lock(mutex_);
  calls_.push_back(call);
}

std::vector<std::string> FakeBackend::Calls() const {
  MutexLock lock(mutex_);
  return calls_;
}

SandboxPtr FakeBackend::Known(const std::string& uuid) const {
  auto sandbox = Get(uuid);
  if (!sandbox) throw Gone();
  return sandbox;
}

std::string FakeBackend::NameOf(const std::string& uuid) const {
  return Known(uuid)->name;
}

std::string FakeBackend::Add(const std::string& name) {
  auto sandbox = std::make_shared<Sandbox>();
  std::string uuid;
  {
    MutexLock lock(mutex_);
    uuid = fmt::format("00000000-0000-4000-8000-{:012}", ++last_);
    sandbox->uuid = uuid;
    sandbox->name = name;
    sandbox->uid = sandbox->gid = 1000;
    sandbox->created = sandbox->used = sandbox->state_since =
        sandbox->config_time = Now();
    sandbox->reason = "made";
    sandbox->ready_for = "start";
    sandbox->config = "# skeleton\n";
    sandbox->cpus = 2;
    sandbox->memory = 2ULL << 30;
    sandbox->disk = 20ULL << 30;
    sandbox->user = "me";
    sandbox->ssh_port = 22000 + last_;
    sandbox->host_key = "ssh-ed25519 AAAAC3Nz" + std::to_string(last_);
    sandbox->usage.disk_bytes = 1 << 20;
    sandbox->domain_xml = decltype(sandbox->domain_xml)("<domain/>");
    sandboxes_[uuid] = sandbox;
  }
  Changed(uuid);
  return uuid;
}

void FakeBackend::Update(const std::string& uuid,
                         const std::function<void(Sandbox&)>& f) {
  std::vector<Reply<Done>> arrived;
  {
    MutexLock lock(mutex_);
    const auto found = sandboxes_.find(uuid);
    if (found == sandboxes_.end()) throw Gone();
    auto copy = std::make_shared<Sandbox>(*found->second);
    f(*copy);
    std::erase_if(waiters_, [&](const Waiter& waiter) {
      if (waiter.uuid != uuid || waiter.state != copy->state) return false;
      arrived.push_back(waiter.reply);
      return true;
    });
    found->second = std::move(copy);
  }
  Changed(uuid);
  for (const auto& reply : arrived) reply.Ok();
}

void FakeBackend::UpdateHost(const std::function<void(Host&)>& change) {
  Observer* observer = nullptr;
  {
    MutexLock lock(mutex_);
    auto copy = std::make_shared<Host>(*host_);
    change(*copy);
    host_ = std::move(copy);
    observer = observer_;
  }
  if (observer != nullptr) observer->HostChanged();
}

void FakeBackend::Changed(const std::string& uuid) {
  Observer* observer = nullptr;
  {
    MutexLock lock(mutex_);
    observer = observer_;
  }
  if (observer != nullptr) observer->SandboxChanged(uuid);
}

void FakeBackend::Tell(const Event& event) {
  Observer* observer = nullptr;
  {
    MutexLock lock(mutex_);
    observer = observer_;
  }
  if (observer != nullptr) observer->Happened(event);
}

void FakeBackend::Erase(const std::string& uuid) {
  {
    MutexLock lock(mutex_);
    sandboxes_.erase(uuid);
  }
  Changed(uuid);
}

void FakeBackend::Hold(const std::string& call) {
  MutexLock lock(mutex_);
  holding_.insert(call);
}

void FakeBackend::Release(const std::string& call) {
  std::vector<std::function<void()>> ready;
  {
    MutexLock lock(mutex_);
    holding_.erase(call);
    const auto [begin, end] = held_.equal_range(call);
    for (auto at = begin; at != end; ++at) ready.push_back(at->second);
    held_.erase(begin, end);
  }
  for (const auto& run : ready) run();
}

std::size_t FakeBackend::Held(const std::string& call) const {
  MutexLock lock(mutex_);
  return held_.count(call);
}

void FakeBackend::Fail(const std::string& call, const Error& error) {
  MutexLock lock(mutex_);
  failing_.insert_or_assign(call, error);
}

void FakeBackend::Succeed(const std::string& call) {
  MutexLock lock(mutex_);
  failing_.erase(call);
}

void FakeBackend::SetObserver(Observer* observer) {
  MutexLock lock(mutex_);
  observer_ = observer;
}

std::vector<SandboxPtr> FakeBackend::List() const {
  std::vector<SandboxPtr> list;
  MutexLock lock(mutex_);
  for (const auto& [uuid, one] : sandboxes_) {
    if (!one->trashed) list.push_back(one);
  }
  std::sort(list.begin(), list.end(),
            [](const auto& a, const auto& b) { return a->name < b->name; });
  return list;
}

std::vector<SandboxPtr> FakeBackend::ListTrash() const {
  std::vector<SandboxPtr> list;
  MutexLock lock(mutex_);
  for (const auto& [uuid, one] : sandboxes_) {
    if (one->trashed) list.push_back(one);
  }
  return list;
}

SandboxPtr FakeBackend::Find(std::string_view name) const {
  for (const auto& one : List()) {
    if (one->name == name) return one;
  }
  return nullptr;
}

SandboxPtr FakeBackend::FindTrash(std::string_view name) const {
  for (const auto& one : ListTrash()) {
    if (one->name == name) return one;
  }
  return nullptr;
}

SandboxPtr FakeBackend::Get(const std::string& uuid) const {
  MutexLock lock(mutex_);
  const auto found = sandboxes_.find(uuid);
  return found == sandboxes_.end() ? nullptr : found->second;
}

HostPtr FakeBackend::GetHost() const {
  MutexLock lock(mutex_);
  return host_;
}

void FakeBackend::Create(const Caller& caller, const std::string& name,
                         const std::string& config, mode_t mode,
                         Reply<SandboxPtr> reply) {
  Log("create " + name);
  Do("create", reply, [=, this] {
    if (Find(name)) {
      throw Error(EEXIST, fmt::format("Cannot make '{}': there is one; choose "
                                      "another name",
                                      name));
    }
    Sandbox trial;
    if (!config.empty()) Apply(trial, Setting::kConfig, config);
    const std::string uuid = Add(name);
    Update(uuid, [&](Sandbox& sandbox) {
      sandbox.uid = caller.uid;
      sandbox.gid = caller.gid;
      sandbox.mode = mode;
      if (!config.empty()) sandbox.config = config;
    });
    reply.Ok(Get(uuid));
  });
}

void FakeBackend::Remove(const Caller&, const std::string& uuid,
                         Reply<Done> reply) {
  Log("remove " + NameOf(uuid));
  Do("remove", reply, [=, this] {
    if (Known(uuid)->state != State::kStopped) {
      throw Error(EBUSY,
                  fmt::format("Cannot remove '{}': it is {}; stop it "
                              "first",
                              NameOf(uuid), StateName(Known(uuid)->state)));
    }
    Update(uuid, [](Sandbox& sandbox) { sandbox.trashed = Now(); });
    reply.Ok();
  });
}

void FakeBackend::Purge(const Caller&, const std::string& uuid,
                        Reply<Done> reply) {
  Log("purge " + NameOf(uuid));
  Do("purge", reply, [=, this] {
    Erase(uuid);
    reply.Ok();
  });
}

void FakeBackend::Rename(const Caller&, const std::string& uuid,
                         const std::string& name, Reply<Done> reply) {
  Log(fmt::format("rename {} {}", NameOf(uuid), name));
  Do("rename", reply, [=, this] {
    if (Find(name)) {
      throw Error(EEXIST,
                  fmt::format("Cannot rename to '{}': there is one", name));
    }
    Update(uuid, [&](Sandbox& sandbox) {
      sandbox.name = name;
      sandbox.trashed.reset();
    });
    reply.Ok();
  });
}

void FakeBackend::SetRights(const Caller&, const std::string& uuid,
                            const std::string& file, const FileRights& rights,
                            Reply<Done> reply) {
  Log(fmt::format("rights {} {}", NameOf(uuid), file));
  Do("rights", reply, [=, this] {
    Update(uuid, [&](Sandbox& sandbox) {
      if (file.empty()) {
        sandbox.uid = rights.uid.value_or(sandbox.uid);
        sandbox.gid = rights.gid.value_or(sandbox.gid);
        sandbox.mode = rights.mode.value_or(sandbox.mode);
        return;
      }
      FileRights& kept = sandbox.files[file];
      if (rights.uid) kept.uid = rights.uid;
      if (rights.gid) kept.gid = rights.gid;
      if (rights.mode) kept.mode = rights.mode;
    });
    reply.Ok();
  });
}

void FakeBackend::Enter(const std::string& uuid, State state) {
  Update(uuid, [&](Sandbox& sandbox) {
    sandbox.state = state;
    sandbox.state_since = sandbox.used = Now();
    sandbox.ready = state == State::kRunning;
    sandbox.ready_seconds = sandbox.ready ? 41.2 : 0;
  });
}

void FakeBackend::Overtake(const std::string& uuid) {
  std::vector<Reply<Done>> overtaken;
  {
    MutexLock lock(mutex_);
    std::erase_if(going_, [&](const Going& going) {
      if (going.uuid != uuid) return false;
      overtaken.push_back(going.reply);
      return true;
    });
  }
  for (const auto& reply : overtaken) {
    reply.Fail(Error(ECANCELED, "Cannot go on: kill overtook it"));
  }
}

void FakeBackend::Act(const Caller&, const std::string& uuid, Verb verb,
                      bool wait, Reply<Done> reply) {
  Log(fmt::format("act {} {}{}", NameOf(uuid), VerbName(verb),
                  wait ? "" : " nowait"));
  if (verb == Verb::kKill) {
    Overtake(uuid);
    Enter(uuid, State::kStopped);
    reply.Ok();
    return;
  }
  {
    MutexLock lock(mutex_);
    going_.push_back({uuid, reply});
  }
  Do("act", reply, [=, this] {
    Enter(uuid, StateAfter(verb));
    reply.Ok();
  });
  if (!wait) reply.Ok();
}

void FakeBackend::WaitFor(const std::string& uuid, State state,
                          Reply<Done> reply) {
  Log(fmt::format("wait {} {}", NameOf(uuid), StateName(state)));
  if (Known(uuid)->state == state) {
    reply.Ok();
    return;
  }
  MutexLock lock(mutex_);
  waiters_.push_back({uuid, state, reply});
}

void FakeBackend::Set(const Caller&, const std::string& uuid, Setting setting,
                      const std::string& value, Reply<Done> reply) {
  Log(fmt::format("set {} {} {}", NameOf(uuid), SettingName(setting), value));
  Do("set", reply, [=, this] {
    std::optional<Error> refused;
    Update(uuid, [&](Sandbox& sandbox) {
      try {
        Apply(sandbox, setting, value);
      } catch (const Error& error) {
        refused = error;
      }
    });
    if (refused) throw Error(*refused);
    reply.Ok();
  });
}

void FakeBackend::SetItem(const Caller&, const std::string& uuid,
                          Collection collection, const std::string& name,
                          const std::string& value, Reply<Done> reply) {
  Log(fmt::format("item {} {} {} {}", NameOf(uuid), CollectionName(collection),
                  name, value));
  Do("item", reply, [=, this] {
    if (value == "bad") {
      throw Error(EINVAL, fmt::format("Cannot set '{}': '{}' is no value; "
                                      "write another one",
                                      name, value));
    }
    Update(uuid, [&](Sandbox& sandbox) {
      if (collection == Collection::kSecrets) {
        sandbox.secrets.erase(name);
        if (!value.empty()) sandbox.secrets.insert(name);
        return;
      }
      auto& items =
          collection == Collection::kPorts ? sandbox.ports : sandbox.mounts;
      items.erase(name);
      if (!value.empty()) items[name] = value;
      sandbox.config_time = Now();
    });
    reply.Ok();
  });
}

void FakeBackend::TakeSnapshot(const Caller&, const std::string& uuid,
                               const std::string& tag, Reply<Done> reply) {
  Log(fmt::format("take {} {}", NameOf(uuid), tag));
  Do("take", reply, [=, this] {
    Update(uuid, [&](Sandbox& sandbox) {
      if (sandbox.snapshots.contains(tag)) {
        throw Error(EEXIST, fmt::format("Cannot take snapshot '{}': there is "
                                        "one of that name",
                                        tag));
      }
      Snapshot one;
      one.tag = tag;
      one.parent = sandbox.snapshot;
      one.kind = "disk";
      one.config = sandbox.config;
      one.created = Now();
      one.size = 196616;
      one.layer = fmt::format("{}.disk.{}", uuid, sandbox.snapshots.size());
      sandbox.snapshots[tag] = one;
      sandbox.snapshot = tag;
    });
    reply.Ok();
  });
}

void FakeBackend::RemoveSnapshot(const Caller&, const std::string& uuid,
                                 const std::string& tag, Reply<Done> reply) {
  Log(fmt::format("drop {} {}", NameOf(uuid), tag));
  Do("drop", reply, [=, this] {
    Update(uuid, [&](Sandbox& sandbox) { sandbox.snapshots.erase(tag); });
    reply.Ok();
  });
}

void FakeBackend::RenameSnapshot(const Caller&, const std::string& uuid,
                                 const std::string& tag,
                                 const std::string& new_tag,
                                 Reply<Done> reply) {
  Log(fmt::format("retag {} {} {}", NameOf(uuid), tag, new_tag));
  Do("retag", reply, [=, this] {
    Update(uuid, [&](Sandbox& sandbox) {
      (void)SnapshotOf(sandbox, tag);
      auto node = sandbox.snapshots.extract(tag);
      node.key() = node.mapped().tag = new_tag;
      sandbox.snapshots.insert(std::move(node));
    });
    reply.Ok();
  });
}

void FakeBackend::DescribeSnapshot(const Caller&, const std::string& uuid,
                                   const std::string& tag,
                                   const std::string& text, Reply<Done> reply) {
  Log(fmt::format("describe {} {} {}", NameOf(uuid), tag, text));
  Do("describe", reply, [=, this] {
    Update(uuid, [&](Sandbox& sandbox) {
      SnapshotOf(sandbox, tag).description = text;
    });
    reply.Ok();
  });
}

void FakeBackend::Clone(const Caller&, const std::string& uuid,
                        const std::string& tag, const std::string& name, mode_t,
                        Reply<SandboxPtr> reply) {
  Log(fmt::format("clone {} {} {}", NameOf(uuid), tag, name));
  Do("clone", reply, [=, this] {
    Sandbox source = *Known(uuid);
    const std::string layer =
        tag.empty() ? uuid + ".disk" : SnapshotOf(source, tag).layer;
    const std::string made = Add(name);
    Update(made, [&](Sandbox& sandbox) {
      sandbox.origin = uuid;
      sandbox.origin_layer = layer;
    });
    reply.Ok(Get(made));
  });
}

void FakeBackend::Commit(const Caller&, const std::string& uuid,
                         const std::string& image, Reply<Done> reply) {
  Log(fmt::format("commit {} {}", NameOf(uuid), image));
  Do("commit", reply, [=, this] {
    AddImage(image, "QFI");
    reply.Ok();
  });
}

void FakeBackend::Revert(const Caller&, const std::string& uuid,
                         const std::string& tag, bool force, bool wait,
                         Reply<Done> reply) {
  Log(fmt::format("revert {} {}{}{}", NameOf(uuid), tag, force ? " force" : "",
                  wait ? "" : " nowait"));
  Do("revert", reply, [=, this] {
    Update(uuid, [&](Sandbox& sandbox) { sandbox.snapshot = tag; });
    reply.Ok();
  });
}

void FakeBackend::ForgetRejected(const Caller&, const std::string& uuid,
                                 Reply<Done> reply) {
  Log("forget " + NameOf(uuid));
  Do("forget", reply, [=, this] {
    Update(uuid, [](Sandbox& sandbox) { sandbox.rejected.clear(); });
    reply.Ok();
  });
}

void FakeBackend::Refresh(const std::string&, Facet, Reply<Done> reply) {
  Do("refresh", reply, [=] { reply.Ok(); });
}

std::string FakeBackend::Effective(const std::string& uuid) const {
  const SandboxPtr sandbox = Get(uuid);
  return sandbox ? sandbox->config + "# effective\n" : "";
}

void FakeBackend::SetDocument(const Caller&, const std::string& name,
                              const std::optional<std::string>& text,
                              Reply<Done> reply) {
  Log("document " + name + " " + text.value_or("(removed)"));
  Do("document", reply, [=, this] {
    UpdateHost([&](Host& host) {
      constexpr std::string_view kTemplates = "templates/";
      if (name == "defaults.yaml") host.defaults = text.value_or("");
      if (name == "override.yaml") host.overrides = text.value_or("");
      if (!name.starts_with(kTemplates)) return;
      const std::string path = name.substr(kTemplates.size());
      if (text) {
        host.templates[path] = {*text, host.since};
      } else {
        host.templates.erase(path);
      }
    });
    reply.Ok();
  });
}

void FakeBackend::Certify(const Caller& caller, const std::string& uuid,
                          const std::string& key, Reply<Certificate> reply) {
  Log("certify " + NameOf(uuid) + ' ' + key);
  Do("certify", reply, [=] {
    reply.Ok({"for " + std::to_string(caller.uid) + " of '" + key + "'\n",
              "serial 7"});
  });
}

void FakeBackend::RevokeCertificates(const Caller&, const std::string& uuid,
                                     Reply<Done> reply) {
  Log("revoke " + NameOf(uuid));
  Do("revoke", reply, [=] { reply.Ok(); });
}

void FakeBackend::SetAuthorizedKeys(const Caller&, const std::string& text,
                                    Reply<Done> reply) {
  Log("keys " + text);
  Do("keys", reply, [=, this] {
    UpdateHost([&](Host& host) { host.authorized_keys = text; });
    reply.Ok();
  });
}

void FakeBackend::SetUri(const Caller&, const std::string& uri,
                         Reply<Done> reply) {
  Log("uri " + uri);
  Do("uri", reply, [=, this] {
    UpdateHost([&](Host& host) { host.uri = uri; });
    reply.Ok();
  });
}

std::string FakeBackend::ImageBytes(const std::string& name) const {
  MutexLock lock(mutex_);
  const auto found = images_.find(name);
  return found == images_.end() ? std::string() : found->second;
}

void FakeBackend::AddImage(const std::string& name, const std::string& bytes) {
  {
    MutexLock lock(mutex_);
    images_[name] = bytes;
  }
  UpdateHost([&](Host& host) {
    host.images.push_back({name, bytes.size(), Now(), false});
  });
}

void FakeBackend::OpenImage(const std::string& name,
                            Reply<std::shared_ptr<ImageReader>> reply) {
  Do("open image", reply, [=, this] {
    reply.Ok(std::make_shared<FakeImageReader>(ImageBytes(name)));
  });
}

void FakeBackend::CreateImage(const Caller&, const std::string& name,
                              Reply<std::shared_ptr<ImageWriter>> reply) {
  Log("create image " + name);
  Do("create image", reply,
     [=, this] { reply.Ok(std::make_shared<FakeImageWriter>(*this, name)); });
}

void FakeBackend::RemoveImage(const Caller&, const std::string& name,
                              Reply<Done> reply) {
  Log("remove image " + name);
  Do("remove image", reply, [=, this] {
    UpdateHost([&](Host& host) {
      std::erase_if(host.images,
                    [&](const Image& image) { return image.name == name; });
    });
    MutexLock lock(mutex_);
    images_.erase(name);
    reply.Ok();
  });
}

void FakeBackend::SetDisk(const Caller&, const std::string& name,
                          const std::string& size, Reply<Done> reply) {
  Log("disk " + name + " " + size);
  Do("disk", reply, [=, this] {
    UpdateHost([&](Host& host) {
      std::erase_if(host.disks,
                    [&](const ExtraDisk& disk) { return disk.name == name; });
      host.disks.push_back({name, ParseSize(size).value_or(0), 0, Time()});
    });
    reply.Ok();
  });
}

void FakeBackend::RemoveDisk(const Caller&, const std::string& name,
                             Reply<Done> reply) {
  Log("remove disk " + name);
  Do("remove disk", reply, [=, this] {
    UpdateHost([&](Host& host) {
      std::erase_if(host.disks,
                    [&](const ExtraDisk& disk) { return disk.name == name; });
    });
    reply.Ok();
  });
}

void FakeBackend::MakeNetwork(const Caller&, const std::string& name,
                              Reply<Done> reply) {
  Log("network " + name);
  Do("network", reply, [=, this] {
    bool taken = false;
    UpdateHost([&](Host& host) {
      for (const Network& network : host.networks) {
        taken = taken || network.name == name;
      }
      if (taken) return;
      host.networks.push_back({name, "mode: shared\n", true, false, {}, {}});
    });
    if (taken) {
      throw Error(EEXIST, "Cannot make network '" + name + "': there is one");
    }
    reply.Ok();
  });
}

void FakeBackend::SetNetwork(const Caller&, const std::string& name,
                             const std::string& config, Reply<Done> reply) {
  Log("network " + name + " " + config);
  Do("network", reply, [=, this] {
    UpdateHost([&](Host& host) {
      for (Network& network : host.networks) {
        if (network.name == name) network.config = config;
      }
    });
    reply.Ok();
  });
}

void FakeBackend::RemoveNetwork(const Caller&, const std::string& name,
                                Reply<Done> reply) {
  Log("remove network " + name);
  Do("remove network", reply, [=, this] {
    UpdateHost([&](Host& host) {
      std::erase_if(host.networks, [&](const Network& network) {
        return network.name == name;
      });
    });
    reply.Ok();
  });
}

}  // namespace sbxfs
