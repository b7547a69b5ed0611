#include "backend/libvirt_backend.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>
#include <malloc.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <future>
#include <thread>
#include <utility>

#include "backend/actions.h"
#include "backend/certificates.h"
#include "backend/clones.h"
#include "backend/core.h"
#include "backend/documents.h"
#include "backend/effective.h"
#include "backend/exec.h"
#include "backend/facets.h"
#include "backend/guest/keys.h"
#include "backend/guest_clock.h"
#include "backend/guest_freeze.h"
#include "backend/host_documents.h"
#include "backend/housekeeping.h"
#include "backend/idle.h"
#include "backend/images.h"
#include "backend/libvirt_error.h"
#include "backend/live_files.h"
#include "backend/live_machine.h"
#include "backend/move.h"
#include "backend/provision.h"
#include "backend/readiness.h"
#include "backend/relay.h"
#include "backend/secrets.h"
#include "backend/snapshots.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// What calls get that are under way when we end.
constexpr auto kPatience = 10s;
constexpr auto kPoolPause = 200ms;

class LibvirtBackend : public Backend {
 public:
  explicit LibvirtBackend(const BackendOptions& options)
      : core_(options,
              {.connected = [this] { Connected(); },
               .disconnected =
                   [this](const std::string& why) { Disconnected(why); },
               .domain =
                   [this](const std::string& uuid, const char* what) {
                     if (what == std::string_view("reboot")) {
                       readiness_.Rebooted(uuid);
                       return;
                     }
                     if (what == std::string_view("resumed")) {
                       clock_.Resumed(uuid);
                       readiness_.Resumed(uuid);
                     }
                     core_.ReadSoon(uuid);
                   },
               .pool =
                   [this](const std::string& pool) {
                     if (pool == core_.storage.Pool() ||
                         pool == core_.disk_storage.Pool()) {
                       PoolChanged();
                     }
                   },
               .network = [this] { provision_.networks().RefreshSoon(); }}),
        images_(core_),
        provision_(core_, images_),
        warm_(core_, images_, provision_),
        readiness_(core_, provision_, warm_),
        thaw_(core_),
        wake_ports_(
            core_.workers,
            [this](const std::string& uuid, const Reply<Done>& reply) {
              actions_.Wake(uuid, reply);
            },
            [this](const std::string& uuid) { idle_.Look(uuid); }),
        actions_(core_, images_, provision_, warm_, wake_ports_),
        housekeeping_(core_, documents_, images_, provision_) {
    core_.on_read = [this](const std::string& uuid) {
      readiness_.Look(uuid);
      thaw_.Look(uuid);
      provision_.mounts().Look(uuid);
      provision_.networks().Look(uuid);
      provision_.ports().Look(uuid);
      provision_.tunnels().Look(uuid);
      relay_.Look(uuid);
      exec_.Look(uuid);
      files_.Look(uuid);
      idle_.Look(uuid);
    };
    exec_.wake = [this](const std::string& uuid, const Reply<Done>& reply) {
      actions_.Wake(uuid, reply);
    };
    core_.on_volumes = [this] { PoolChanged(); };
    core_.on_take = [this](const Sandbox& sandbox) {
      housekeeping_.LookAtChain(sandbox);
    };
    images_.before_remove = [this](const std::string& name) {
      warm_.DropOf(name);
    };
    provision_.on_keys = [this](const std::string& uuid) {
      readiness_.PushKeysSoon(uuid);
    };
  }

  // Waits end, calls to libvirt are let finish, guests go on.
  ~LibvirtBackend() override {
    std::promise<void> ended;
    std::thread guard([future = ended.get_future()] {
      if (future.wait_for(kPatience) == std::future_status::ready) return;
      // There is no way to take a call back from a libvirt that hangs.
      spdlog::error("Cannot end in order: libvirt does not answer");
      std::_Exit(2);
    });
    core_.catalog.SetObserver(nullptr);
    wake_ports_.Stop();
    actions_.Stop();
    warm_.Stop();
    housekeeping_.Stop();
    files_.Stop();
    core_.timer.Stop();
    core_.connection.Close();
    core_.workers.Stop();
    ended.set_value();
    guard.join();
  }

  // With `retry` a hypervisor that cannot be reached is tried again later.
  void Open(bool retry = false) {
    if (retry) {
      core_.connection.OpenOrRetry();
    } else {
      core_.connection.Open();
    }
    Connection::EndUse();
  }

  [[nodiscard]] MoveEnd End() { return {core_, provision_, relay_}; }
  // It has moved away: ports that were opened here for it are closed.
  void Left(const std::string& uuid) { relay_.Look(uuid); }

  void SetObserver(Observer* observer) override {
    core_.catalog.SetObserver(observer);
  }
  std::vector<SandboxPtr> List() const override {
    return core_.catalog.List(false);
  }
  std::vector<SandboxPtr> ListTrash() const override {
    return core_.catalog.List(true);
  }
  SandboxPtr Find(std::string_view name) const override {
    return core_.catalog.Find(name, false);
  }
  SandboxPtr FindTrash(std::string_view name) const override {
    return core_.catalog.Find(name, true);
  }
  SandboxPtr Get(const std::string& uuid) const override {
    return core_.catalog.Get(uuid);
  }
  HostPtr GetHost() const override { return core_.catalog.GetHost(); }

  void Create(const Caller& caller, const std::string& name,
              const std::string& config, mode_t mode,
              Reply<SandboxPtr> reply) override {
    if (!core_.options.start) {
      provision_.Create(caller, name, config, mode, std::move(reply));
      return;
    }
    provision_.Create(caller, name, config, mode,
                      reply.Then<SandboxPtr>([this](SandboxPtr made) {
                        actions_.Act(made->uuid, Verb::kStart, false, {});
                        return made;
                      }));
  }
  void Remove(const Caller& caller, const std::string& uuid,
              Reply<Done> reply) override {
    provision_.Remove(caller, uuid, reply.Then<Done>([this](Done done) {
      housekeeping_.PlanTrash();
      return done;
    }));
  }
  void Purge(const Caller&, const std::string& uuid,
             Reply<Done> reply) override {
    provision_.Purge(uuid, std::move(reply));
  }
  void Rename(const Caller&, const std::string& uuid, const std::string& name,
              Reply<Done> reply) override {
    provision_.Rename(uuid, name, std::move(reply));
  }
  void SetRights(const Caller&, const std::string& uuid,
                 const std::string& file, const FileRights& rights,
                 Reply<Done> reply) override {
    provision_.SetRights(uuid, file, rights, std::move(reply));
  }
  void Act(const Caller&, const std::string& uuid, Verb verb, bool wait,
           Reply<Done> reply) override {
    actions_.Act(uuid, verb, wait, std::move(reply));
  }
  [[nodiscard]] std::string UnderWay() const override {
    const std::string action = actions_.UnderWay();
    return action.empty() ? exec_.UnderWay() : action;
  }
  [[nodiscard]] std::string Remember() const override {
    return exec_.Remember();
  }
  void Recall(const std::string& bytes) override { exec_.Recall(bytes); }
  void WaitFor(const std::string& uuid, State state,
               Reply<Done> reply) override {
    actions_.WaitFor(uuid, state, std::move(reply));
  }
  void Set(const Caller& caller, const std::string& uuid, Setting setting,
           const std::string& value, Reply<Done> reply) override {
    if (setting != Setting::kConfig && setting != Setting::kCpus &&
        setting != Setting::kMemory && setting != Setting::kDisk) {
      provision_.Set(caller, uuid, setting, value, std::move(reply));
      return;
    }
    // A document's writer has its verdict; the guest follows it.
    SetAndFollow(
        setting != Setting::kConfig, reply,
        [&](const Reply<Done>& asker) {
          provision_.Set(caller, uuid, setting, value, asker);
        },
        [this, uuid] { ChangeMachine(core_, uuid); });
  }
  void SetItem(const Caller& caller, const std::string& uuid,
               Collection collection, const std::string& name,
               const std::string& value, Reply<Done> reply) override {
    switch (collection) {
      case Collection::kMounts:
        SetMount(caller, uuid, name, value, reply);
        return;
      case Collection::kPorts:
        provision_.SetPort(caller, uuid, name, value, std::move(reply));
        return;
      case Collection::kSecrets:
        secrets_.Set(uuid, name, value, std::move(reply));
        return;
    }
  }
  void TakeSnapshot(const Caller&, const std::string& uuid,
                    const std::string& tag, Reply<Done> reply) override {
    snapshots_.Take(uuid, tag, std::move(reply));
  }
  void RemoveSnapshot(const Caller&, const std::string& uuid,
                      const std::string& tag, Reply<Done> reply) override {
    snapshots_.Remove(uuid, tag, std::move(reply));
  }
  void RenameSnapshot(const Caller&, const std::string& uuid,
                      const std::string& tag, const std::string& new_tag,
                      Reply<Done> reply) override {
    snapshots_.Rename(uuid, tag, new_tag, std::move(reply));
  }
  void DescribeSnapshot(const Caller&, const std::string& uuid,
                        const std::string& tag, const std::string& text,
                        Reply<Done> reply) override {
    snapshots_.Describe(uuid, tag, text, std::move(reply));
  }
  void Clone(const Caller& caller, const std::string& uuid,
             const std::string& tag, const std::string& name, mode_t mode,
             Reply<SandboxPtr> reply) override {
    clones_.Make(caller, uuid, tag, name, mode, std::move(reply));
  }
  void Commit(const Caller&, const std::string& uuid, const std::string& image,
              Reply<Done> reply) override {
    clones_.Commit(uuid, image, std::move(reply));
  }
  void Revert(const Caller&, const std::string& uuid, const std::string& tag,
              bool force, bool wait, Reply<Done> reply) override {
    actions_.Act(uuid, Verb::kRevert, wait, std::move(reply),
                 force ? tag + "!" : tag);
  }
  void ForgetRejected(const Caller&, const std::string& uuid,
                      Reply<Done> reply) override {
    provision_.ForgetRejected(uuid, std::move(reply));
  }
  void Refresh(const std::string& uuid, Facet facet,
               Reply<Done> reply) override {
    core_.workers.Run([this, uuid, facet, reply] {
      reply.Guard([&] {
        if (facet == Facet::kNetworks) {
          provision_.networks().Refresh();
        } else if (facet == Facet::kCapacity) {
          core_.LearnCapacity();
        } else if (facet == Facet::kWarm) {
          core_.catalog.ChangeHost(
              [text = warm_.List()](Host& host) { host.warm = text; });
        } else {
          RefreshFacet(core_, uuid, facet);
        }
        reply.Ok();
      });
    });
  }

  std::string Effective(const std::string& uuid) const override {
    const SandboxPtr sandbox = core_.catalog.Get(uuid);
    return sandbox == nullptr ? "" : sbxfs::Effective(core_, *sandbox);
  }
  void SetDocument(const Caller&, const std::string& name,
                   const std::optional<std::string>& text,
                   Reply<Done> reply) override {
    core_.workers.Run([this, name, text, reply] {
      reply.Guard([&] {
        host_documents_.Set(name, text);
        // ssh's keys may be other ones now.
        if (!name.starts_with("templates/")) PushAllKeys();
        reply.Ok();
      });
    });
  }
  void SetAuthorizedKeys(const Caller&, const std::string& text,
                         Reply<Done> reply) override {
    core_.workers.Run([this, text, reply] {
      reply.Guard([&] {
        host_documents_.Set("authorized_keys", text);
        PushAllKeys();
        reply.Ok();
      });
    });
  }
  void SetUri(const Caller&, const std::string& uri,
              Reply<Done> reply) override {
    core_.workers.Run([this, uri, reply] {
      reply.Guard([&] {
        if (uri == core_.catalog.GetHost()->uri) {
          core_.connection.Nudge();
        } else {
          core_.connection.Replace(uri);
        }
        reply.Ok();
      });
    });
  }
  void Certify(const Caller& caller, const std::string& uuid,
               const std::string& key, Reply<Certificate> reply) override {
    certificates_.Certify(caller, uuid, key, std::move(reply));
  }
  void RevokeCertificates(const Caller&, const std::string& uuid,
                          Reply<Done> reply) override {
    const std::string what =
        fmt::format("Cannot revoke certificates of '{}'", core_.NameOf(uuid));
    SetAndFollow(
        true, reply,
        [&](const Reply<Done>& asker) {
          core_.Work(uuid, what, asker,
                     [this, uuid, what] { certificates_.Revoke(uuid, what); });
        },
        [this, uuid] { readiness_.PushKeysNow(uuid); });
  }
  Jobs& GetJobs() override { return exec_; }
  GuestFiles& GetFiles() override { return files_; }
  void OpenImage(const std::string& name,
                 Reply<std::shared_ptr<ImageReader>> reply) override {
    images_.Open(name, std::move(reply));
  }
  void CreateImage(const Caller&, const std::string& name,
                   Reply<std::shared_ptr<ImageWriter>> reply) override {
    images_.Create(name, std::move(reply));
  }
  void RemoveImage(const Caller&, const std::string& name,
                   Reply<Done> reply) override {
    images_.Remove(name, std::move(reply));
  }
  void SetDisk(const Caller&, const std::string& name, const std::string& size,
               Reply<Done> reply) override {
    provision_.disks().Set(name, size, std::move(reply));
  }
  void RemoveDisk(const Caller&, const std::string& name,
                  Reply<Done> reply) override {
    provision_.disks().Remove(name, std::move(reply));
  }
  void MakeNetwork(const Caller&, const std::string& name,
                   Reply<Done> reply) override {
    provision_.networks().Make(name, std::move(reply));
  }
  void SetNetwork(const Caller&, const std::string& name,
                  const std::string& config, Reply<Done> reply) override {
    provision_.networks().Set(name, config, std::move(reply));
  }
  void RemoveNetwork(const Caller&, const std::string& name,
                     Reply<Done> reply) override {
    provision_.networks().Remove(name, std::move(reply));
  }

 private:
  void PushAllKeys() {
    for (const auto& sandbox : core_.catalog.List(false)) {
      readiness_.PushKeysSoon(sandbox->uuid);
    }
  }

  // Runs `follow` after `set` has succeeded; when `waits`, before its asker is
  // told.
  void SetAndFollow(bool waits, const Reply<Done>& reply,
                    const std::function<void(const Reply<Done>&)>& set,
                    std::function<void()> follow) {
    set(Reply<Done>([this, waits, reply,
                     follow = std::move(follow)](Outcome<Done> outcome) {
      const bool failed = std::holds_alternative<Error>(outcome);
      if (failed || !waits) reply.Give(std::move(outcome));
      if (failed) return;
      core_.workers.Run([asker = waits ? reply : Reply<Done>(), follow] {
        asker.Guard([&] {
          follow();
          asker.Ok();
        });
      });
    }));
  }

  // The guest has it when the writer is answered. A removal is not waited for:
  // the kernel holds the directory meanwhile.
  void SetMount(const Caller& caller, const std::string& uuid,
                const std::string& name, const std::string& value,
                const Reply<Done>& reply) {
    SetAndFollow(
        !value.empty(), reply,
        [&](const Reply<Done>& asker) {
          provision_.SetMount(caller, uuid, name, value, asker);
        },
        [this, uuid, name] {
          const SandboxPtr sandbox = core_.catalog.Get(uuid);
          if (sandbox != nullptr && sandbox->ready) {
            provision_.mounts().Settle(uuid, &name);
          }
        });
  }

  void Connected() {
    core_.LearnHost();
    if (!core_.test_driver) host_documents_.Read();
    core_.ReadAll();
    if (!core_.test_driver) {
      images_.Refresh();
      provision_.disks().Refresh();
    }
    provision_.networks().Refresh();
    core_.catalog.ChangeHost([](Host& host) {
      host.connected = true;
      host.why.clear();
    });
    // Readiness was not looked for while everything was unreachable.
    for (const auto& sandbox : core_.catalog.List(false)) {
      readiness_.Look(sandbox->uuid);
      provision_.mounts().Look(sandbox->uuid);
      provision_.ports().Look(sandbox->uuid);
      provision_.tunnels().Look(sandbox->uuid);
      relay_.Look(sandbox->uuid);
      idle_.Look(sandbox->uuid);
    }
    housekeeping_.PlanTrash();
    if (core_.test_driver) return;
    housekeeping_.PlanSweep();
    for (const auto& sandbox : core_.catalog.All()) MendSoon(*sandbox);
    // What the reading of all took lies between what is kept of it.
    malloc_trim(0);
  }

  // A daemon was killed while it took a snapshot or went back, or virsh did so.
  void MendSoon(const Sandbox& sandbox) {
    const auto facts = core_.Facts(sandbox.uuid);
    if (!sandbox.ours || !facts) return;
    const bool moving = facts->metadata && !facts->metadata->records.empty();
    if (facts->recorded_disk.empty() && sandbox.snapshots.empty() && !moving) {
      return;
    }
    const std::string what = fmt::format("Cannot mend '{}'", sandbox.name);
    core_.Work(sandbox.uuid, what, {},
               [this, uuid = sandbox.uuid] { snapshots_.Repair(uuid); });
  }

  void Disconnected(const std::string& why) {
    core_.Lost();
    core_.catalog.ChangeHost([&](Host& host) {
      host.connected = false;
      host.why = why;
      if (host.uri.empty()) host.uri = core_.connection.Uri();
      host.route = core_.connection.LastRoute().explanation;
    });
  }

  // Pools tell of refreshes alone, which uploads and Storage::Announce cause,
  // and each upload of many: libvirt lists all volumes for us, several times,
  // and lets nobody else into the pool meanwhile.
  void PoolChanged() {
    if (core_.test_driver || pool_queued_.exchange(true)) return;
    core_.timer.After(kPoolPause, [this] { LookAtPool(); });
  }

  void LookAtPool() {
    core_.workers.Run([this] {
      pool_queued_ = false;
      try {
        images_.Refresh();
        provision_.disks().Refresh();
        if (!host_documents_.Read()) return;
        core_.ReadAll();  // settings may follow from it
      } catch (const Error& error) {
        spdlog::debug("{}", error.Sentence());
      }
    });
  }

  Core core_;
  Documents documents_{core_.storage};
  HostDocuments host_documents_{core_, documents_};
  Images images_;
  Provision provision_;
  Snapshots snapshots_{core_};
  Clones clones_{core_, images_, provision_};
  GuestClock clock_{core_};
  Warm warm_;
  Readiness readiness_;
  Thaw thaw_;
  Secrets secrets_{core_};
  Certificates certificates_{core_};
  Exec exec_{core_};
  LiveFiles files_{core_};
  Relay relay_{core_};
  WakePorts wake_ports_;
  Actions actions_;
  Idle idle_{core_, actions_, exec_, wake_ports_};
  Housekeeping housekeeping_;
  std::atomic<bool> pool_queued_ = false;
};

}  // namespace

std::unique_ptr<Backend> MakeLibvirt(const BackendOptions& options) {
  return std::make_unique<LibvirtBackend>(options);
}

void MoveBetween(Backend& from, Backend& to, const std::string& uuid,
                 const std::string& what, const Reply<Done>& reply) {
  auto& left = dynamic_cast<LibvirtBackend&>(from);
  const MoveEnd source = left.End();
  const MoveEnd target = dynamic_cast<LibvirtBackend&>(to).End();
  source.core.Work(uuid, what, reply,
                   [&left, source, target, uuid, what, reply] {
                     MoveSandbox(source, target, uuid, what, reply);
                     left.Left(uuid);
                   });
}

void OpenOrRetry(Backend& backend) {
  dynamic_cast<LibvirtBackend&>(backend).Open(/*retry=*/true);
}

std::unique_ptr<Backend> OpenLibvirt(const BackendOptions& options) {
  auto backend = std::make_unique<LibvirtBackend>(options);
  backend->Open();
  return backend;
}

}  // namespace sbxfs
