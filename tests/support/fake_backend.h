#ifndef SBXFS_TESTS_SUPPORT_FAKE_BACKEND_H_
#define SBXFS_TESTS_SUPPORT_FAKE_BACKEND_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/util/mutex.h"
#include "tests/support/fake_files.h"
#include "tests/support/fake_jobs.h"

namespace sbxfs {

// A hypervisor in memory that does what it is told, when it is told: calls
// answer at once, unless they are held or made to fail. Thread-safe.
class FakeBackend : public Backend {
 public:
  static constexpr const char* kRemembered = "what it knows";

  FakeBackend();

  // Test's side. Calls are named "create", "remove", "purge", "rename",
  // "rights", "act", "wait", "set", "item", "forget", "refresh", "document",
  // "keys", "uri", "take", "drop", "retag", "describe", "revert", "clone",
  // "commit",
  // "open image", "create image", "write image", "finish image",
  // "remove image", "disk", "remove disk".
  std::string Add(const std::string& name);  // a stopped one; its uuid
  void Update(const std::string& uuid, const std::function<void(Sandbox&)>& f);
  void UpdateHost(const std::function<void(Host&)>& change);
  void Tell(const Event& event);
  void Erase(const std::string& uuid);

  void Hold(const std::string& call);     // from now on they wait
  void Release(const std::string& call);  // those waiting go on, new ones too
  void Fail(const std::string& call, const Error& error);
  void Succeed(const std::string& call);
  [[nodiscard]] std::size_t Held(const std::string& call) const;
  // What was asked for: "create box", "set box cpus 4", "act box start", …
  [[nodiscard]] std::vector<std::string> Calls() const;
  void SetUnderWay(const std::string& what) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    under_way_ = what;
  }
  [[nodiscard]] std::string UnderWay() const override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return under_way_;
  }
  // It outlives a session, and so what it is told it knows.
  [[nodiscard]] std::string Remember() const override { return kRemembered; }
  void Recall(const std::string& bytes) override {
    Log(bytes == kRemembered ? "recall" : "recall other bytes");
  }
  [[nodiscard]] std::string ImageBytes(const std::string& name) const;
  void AddImage(const std::string& name, const std::string& bytes);

  void SetObserver(Observer* observer) override;
  std::vector<SandboxPtr> List() const override;
  std::vector<SandboxPtr> ListTrash() const override;
  SandboxPtr Find(std::string_view name) const override;
  SandboxPtr FindTrash(std::string_view name) const override;
  SandboxPtr Get(const std::string& uuid) const override;
  HostPtr GetHost() const override;
  void Create(const Caller& caller, const std::string& name,
              const std::string& config, mode_t mode,
              Reply<SandboxPtr> reply) override;
  void Remove(const Caller& caller, const std::string& uuid,
              Reply<Done> reply) override;
  void Purge(const Caller& caller, const std::string& uuid,
             Reply<Done> reply) override;
  void Rename(const Caller& caller, const std::string& uuid,
              const std::string& name, Reply<Done> reply) override;
  void SetRights(const Caller& caller, const std::string& uuid,
                 const std::string& file, const FileRights& rights,
                 Reply<Done> reply) override;
  void Act(const Caller& caller, const std::string& uuid, Verb verb, bool wait,
           Reply<Done> reply) override;
  void WaitFor(const std::string& uuid, State state,
               Reply<Done> reply) override;
  void Set(const Caller& caller, const std::string& uuid, Setting setting,
           const std::string& value, Reply<Done> reply) override;
  void SetItem(const Caller& caller, const std::string& uuid,
               Collection collection, const std::string& name,
               const std::string& value, Reply<Done> reply) override;
  void TakeSnapshot(const Caller& caller, const std::string& uuid,
                    const std::string& tag, Reply<Done> reply) override;
  void RemoveSnapshot(const Caller& caller, const std::string& uuid,
                      const std::string& tag, Reply<Done> reply) override;
  void RenameSnapshot(const Caller& caller, const std::string& uuid,
                      const std::string& tag, const std::string& new_tag,
                      Reply<Done> reply) override;
  void DescribeSnapshot(const Caller& caller, const std::string& uuid,
                        const std::string& tag, const std::string& text,
                        Reply<Done> reply) override;
  void Clone(const Caller& caller, const std::string& uuid,
             const std::string& tag, const std::string& name, mode_t mode,
             Reply<SandboxPtr> reply) override;
  void Commit(const Caller& caller, const std::string& uuid,
              const std::string& image, Reply<Done> reply) override;
  void Revert(const Caller& caller, const std::string& uuid,
              const std::string& tag, bool force, bool wait,
              Reply<Done> reply) override;
  void ForgetRejected(const Caller& caller, const std::string& uuid,
                      Reply<Done> reply) override;
  void Refresh(const std::string& uuid, Facet facet,
               Reply<Done> reply) override;
  std::string Effective(const std::string& uuid) const override;
  void SetDocument(const Caller& caller, const std::string& name,
                   const std::optional<std::string>& text,
                   Reply<Done> reply) override;
  void SetAuthorizedKeys(const Caller& caller, const std::string& text,
                         Reply<Done> reply) override;
  void SetUri(const Caller& caller, const std::string& uri,
              Reply<Done> reply) override;
  // "certify", "revoke": what was certified, and for whom, is the certificate.
  void Certify(const Caller& caller, const std::string& uuid,
               const std::string& key, Reply<Certificate> reply) override;
  void RevokeCertificates(const Caller& caller, const std::string& uuid,
                          Reply<Done> reply) override;
  FakeJobs& GetJobs() override { return jobs_; }
  FakeFiles& GetFiles() override { return files_; }
  void OpenImage(const std::string& name,
                 Reply<std::shared_ptr<ImageReader>> reply) override;
  void CreateImage(const Caller& caller, const std::string& name,
                   Reply<std::shared_ptr<ImageWriter>> reply) override;
  void RemoveImage(const Caller& caller, const std::string& name,
                   Reply<Done> reply) override;
  void SetDisk(const Caller& caller, const std::string& name,
               const std::string& size, Reply<Done> reply) override;
  void RemoveDisk(const Caller& caller, const std::string& name,
                  Reply<Done> reply) override;
  void MakeNetwork(const Caller& caller, const std::string& name,
                   Reply<Done> reply) override;
  void SetNetwork(const Caller& caller, const std::string& name,
                  const std::string& config, Reply<Done> reply) override;
  void RemoveNetwork(const Caller& caller, const std::string& name,
                     Reply<Done> reply) override;

 private:
  friend class FakeImageWriter;
  struct Waiter {
    std::string uuid;
    State state;
    Reply<Done> reply;
  };
  struct Going {
    std::string uuid;
    Reply<Done> reply;
  };

  void Log(const std::string& call) EXCLUDES(mutex_);
  // Throws Error(ENOENT) for one that is gone.
  SandboxPtr Known(const std::string& uuid) const EXCLUDES(mutex_);
  std::string NameOf(const std::string& uuid) const EXCLUDES(mutex_);
  // Runs `work` now, later, or not at all.
  template <typename T>
  void Do(const std::string& call, const Reply<T>& reply,
          std::function<void()> work) EXCLUDES(mutex_);
  void Changed(const std::string& uuid) EXCLUDES(mutex_);
  void Enter(const std::string& uuid, State state);
  void Overtake(const std::string& uuid) EXCLUDES(mutex_);

  FakeJobs jobs_{[this](const std::string& uuid) { Changed(uuid); }};
  FakeFiles files_;
  mutable Mutex mutex_;
  std::string under_way_ GUARDED_BY(mutex_);
  Observer* observer_ GUARDED_BY(mutex_) = nullptr;
  std::map<std::string, SandboxPtr> sandboxes_ GUARDED_BY(mutex_);
  HostPtr host_ GUARDED_BY(mutex_);
  std::map<std::string, std::string> images_ GUARDED_BY(mutex_);
  int last_ GUARDED_BY(mutex_) = 0;
  std::vector<std::string> calls_ GUARDED_BY(mutex_);
  std::set<std::string> holding_ GUARDED_BY(mutex_);
  std::multimap<std::string, std::function<void()>> held_ GUARDED_BY(mutex_);
  std::map<std::string, Error> failing_ GUARDED_BY(mutex_);
  std::vector<Waiter> waiters_ GUARDED_BY(mutex_);
  std::vector<Going> going_ GUARDED_BY(mutex_);  // verbs under way
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_FAKE_BACKEND_H_
