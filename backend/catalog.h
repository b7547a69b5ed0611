#ifndef SBXFS_BACKEND_CATALOG_H_
#define SBXFS_BACKEND_CATALOG_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/backend.h"
#include "backend/observer_slot.h"
#include "backend/util/mutex.h"

namespace sbxfs {

// What is known of the hypervisor, in memory: the only thing that reads of the
// tree touch. What libvirt says of a sandbox (its base) and what this process
// is doing with it (its overlay) are kept apart and shown as one. Thread-safe;
// the observer is called with no lock held.
class Catalog {
 public:
  // What this process adds to libvirt's view of a sandbox.
  struct Overlay {
    std::optional<State> doing;  // provisioning, starting, stopping, destroying
    std::string progress;
    std::string ready_for;  // what readiness is waiting for
    std::vector<std::string> addresses;
    Usage usage;
    std::shared_ptr<const std::string> console;
    std::shared_ptr<const std::string> provision_log;
    std::optional<Snapshot> taking;  // a snapshot that takes its time
    bool operator==(const Overlay&) const = default;
  };

  void SetObserver(Observer* observer) { observer_.Set(observer); }

  [[nodiscard]] std::vector<SandboxPtr> List(bool trashed) const
      EXCLUDES(mutex_);
  [[nodiscard]] SandboxPtr Find(std::string_view name, bool trashed) const
      EXCLUDES(mutex_);
  [[nodiscard]] SandboxPtr Get(const std::string& uuid) const EXCLUDES(mutex_);
  [[nodiscard]] HostPtr GetHost() const EXCLUDES(mutex_);
  // Whether libvirt has it stopped, whatever this process is doing to it.
  [[nodiscard]] bool IsOff(const std::string& uuid) const EXCLUDES(mutex_);
  // `name`, with a number where the trash has one of that name.
  [[nodiscard]] std::string FreeInTrash(const std::string& name) const
      EXCLUDES(mutex_);
  // Everyone, in the trash or not: for names and ports taken.
  [[nodiscard]] std::vector<SandboxPtr> All() const EXCLUDES(mutex_);

  // A sandbox as libvirt has it now, new or changed; returns it as it was put.
  SandboxPtr Put(Sandbox base) EXCLUDES(mutex_);
  void Erase(const std::string& uuid) EXCLUDES(mutex_);
  // Forgets all that are not among `uuids`: after a new connection's listing.
  void Keep(const std::set<std::string>& uuids) EXCLUDES(mutex_);
  void Change(const std::string& uuid,
              const std::function<void(Overlay&)>& change) EXCLUDES(mutex_);
  void ChangeHost(const std::function<void(Host&)>& change) EXCLUDES(mutex_);
  // The same when `change` says that it did; else nobody is told. Whether it
  // did.
  bool ChangeHostIf(const std::function<bool(Host&)>& change) EXCLUDES(mutex_);
  void ReportEnd(const std::string& uuid, const Error* error) EXCLUDES(mutex_);
  // Something beside the catalog, which belongs to the sandbox, changed.
  void Touch(const std::string& uuid) EXCLUDES(mutex_);
  // A line of .host/events that follows from no change of what is shown; null:
  // it is about the hypervisor.
  void Report(const std::string& what, const std::string& detail,
              const Sandbox* sandbox = nullptr) EXCLUDES(mutex_);

  // Blocks until `done` is true of the sandbox (null when it is gone), `stop`
  // is set and WakeAll was called, or `deadline` has passed. Tells the last
  // value `done` had.
  bool WaitUntil(const std::string& uuid,
                 const std::function<bool(const Sandbox*)>& done,
                 std::chrono::steady_clock::time_point deadline,
                 const std::atomic<bool>& stop) EXCLUDES(mutex_);
  void WakeAll() EXCLUDES(mutex_);

 private:
  struct Entry {
    // The same object as `shown` when this process adds nothing.
    SandboxPtr base;
    Overlay overlay;
    std::string name;  // that it is listed by
    SandboxPtr shown;
  };

  // Makes `entry.shown` anew; true when it differs from before.
  bool Show(Entry& entry) REQUIRES(mutex_);
  [[nodiscard]] std::string NumberedInTrash(const std::string& name) const
      REQUIRES(mutex_);
  // Puts it among the names, and takes it off: as `base` says.
  void Enlist(Entry& entry) REQUIRES(mutex_);
  void Unlist(const Entry& entry) REQUIRES(mutex_);
  void Tell(const SandboxPtr& before, const SandboxPtr& after) EXCLUDES(mutex_);

  mutable Mutex mutex_;
  CondVar changed_;
  uint64_t version_ GUARDED_BY(mutex_) = 0;  // of anything shown
  ObserverSlot observer_;
  HostPtr host_ GUARDED_BY(mutex_) = std::make_shared<Host>();
  std::unordered_map<std::string, Entry> entries_ GUARDED_BY(mutex_);
  // By name; the trash and the others apart. The last of several is shown.
  std::map<std::string, std::vector<std::string>, std::less<>>
      names_[2] GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_CATALOG_H_
