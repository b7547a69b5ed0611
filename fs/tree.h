#ifndef SBXFS_FS_TREE_H_
#define SBXFS_FS_TREE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/util/mutex.h"
#include "backend/util/timer.h"
#include "fs/error_book.h"
#include "fs/event_log.h"
#include "fs/layout.h"
#include "fs/node.h"

namespace sbxfs {

class GuestPlace;
class PathBook;

struct TreeOptions {
  std::string mount_point;  // absolute
  std::string program;      // absolute path of sbxfs, for ProxyCommand
  uid_t uid = 0;            // the mount's owner
  gid_t gid = 0;
  bool allow_other = false;
  std::optional<gid_t> group;  // with allow_other: who may make sandboxes
  // The key of the directory of what is the hypervisor's.
  std::string at = ".host/";
};

// Remembers for a while that a process did something to a thing.
class ProcessMarks {
 public:
  explicit ProcessMarks(std::chrono::milliseconds lasting)
      : lasting_(lasting) {}
  void Set(const std::string& thing, pid_t tid) EXCLUDES(mutex_);
  void Clear(const std::string& thing, pid_t tid) EXCLUDES(mutex_);
  [[nodiscard]] bool Has(const std::string& thing, pid_t tid) EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  const std::chrono::milliseconds lasting_;
  Mutex mutex_;
  std::map<std::pair<std::string, pid_t>, Clock::time_point> marks_
      GUARDED_BY(mutex_);
};

// Which text of a document a process has seen last, so that one it made out of
// an older one is not stored over what others did since.
class Readings {
 public:
  void Saw(const std::string& document, pid_t tid, const std::string& text)
      EXCLUDES(mutex_);
  // Whether the process has seen another text than `now`, and not `now` since.
  [[nodiscard]] bool Outdated(const std::string& document, pid_t tid,
                              const std::string& now) EXCLUDES(mutex_);

 private:
  static constexpr std::size_t kMost = 1000;
  struct Key {
    std::string document;
    pid_t process = 0;
    uint64_t start = 0;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it.
    auto operator<=>(const Key&) const = default;
  };
  static Key KeyOf(const std::string& document, pid_t tid);

  Mutex mutex_;
  std::map<Key, std::size_t> seen_ GUARDED_BY(mutex_);  // hashes of texts
};

// Files that exist in this mount's memory alone, by directory: editors'
// scratch files, texts of sandboxes to be made, images being uploaded.
class Passing {
 public:
  static constexpr std::size_t kMost = 64;  // a directory

  [[nodiscard]] NodePtr Find(const std::string& dir, const std::string& name)
      EXCLUDES(mutex_);
  [[nodiscard]] std::vector<Dir::Entry> List(const std::string& dir)
      EXCLUDES(mutex_);
  // The name of one of them; empty: there is none.
  [[nodiscard]] std::string Any() EXCLUDES(mutex_);
  // Throws Error(ENOSPC) when there are too many.
  void Add(const std::string& dir, const std::string& name, NodePtr node)
      EXCLUDES(mutex_);
  // Only if it is still `node`, unless that is null.
  bool Remove(const std::string& dir, const std::string& name,
              const Node* node = nullptr) EXCLUDES(mutex_);
  // That directory and those below it.
  void Drop(const std::string& dir) EXCLUDES(mutex_);
  void Clear() EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  std::map<std::string, std::map<std::string, NodePtr>> files_
      GUARDED_BY(mutex_);
};

// What all nodes of a mount share. Nodes and replies under way keep it alive,
// also after the mount ended.
class Tree : public Observer, public std::enable_shared_from_this<Tree> {
 public:
  // `changed` is called with the uuid of a sandbox, or with none for what is
  // the host's, when a poller may have something to read and attributes differ;
  // `gone` with that of one that no longer exists; on any thread.
  Tree(Backend& backend, TreeOptions options, Timer& timer,
       std::function<void(const std::string&)> changed,
       std::function<void(const std::string&)> gone);

  Backend& backend;
  const TreeOptions options;
  ErrorBook errors;
  EventLog events;
  const LineLogPtr audit = std::make_shared<LineLog>();
  // Removals that were refused: `rm -r` is kept from going on.
  ProcessMarks refusals{std::chrono::seconds(5)};
  // Documents taken away by a process, which expects to make them anew.
  ProcessMarks vacancies{std::chrono::seconds(5)};
  // Documents whose new text, by that process, was refused.
  ProcessMarks rejections{std::chrono::seconds(5)};
  Readings readings;
  Passing passing;
  std::shared_ptr<PathBook> book;  // of the files of guests; null: none

  // The files of a sandbox's guest, or of a snapshot of it by its id.
  [[nodiscard]] std::shared_ptr<GuestPlace> FilesIn(const std::string& uuid,
                                                    const std::string& snapshot)
      EXCLUDES(mutex_);

  // Answers like `reply`, but with `late` when that takes longer.
  template <typename T>
  Reply<T> Within(std::chrono::milliseconds limit, Reply<T> reply, Error late) {
    After(limit, [reply, late = std::move(late)] { reply.GiveUp(late); });
    return reply;
  }
  void After(std::chrono::milliseconds delay, std::function<void()> task);

  // Brings the facet up to date, if the backend does so within `limit`; never
  // fails.
  void Refresh(const std::string& uuid, Facet facet,
               std::chrono::milliseconds limit, Reply<Done> reply);
  // Whether the last true answer for `thing` was `interval` ago.
  [[nodiscard]] bool Due(const std::string& thing,
                         std::chrono::milliseconds interval) EXCLUDES(mutex_);

  // Throws Error(ENOENT) when the sandbox is gone; `uuid` empty: .host.
  [[nodiscard]] View ViewFor(const Caller& reader, const std::string& uuid);

  // Of one of several hypervisors alone, below .host/hosts; null for no name.
  [[nodiscard]] std::shared_ptr<Tree> Of(const std::string& hypervisor)
      EXCLUDES(mutex_);

  // Runs `then` once the kernel was told to ask anew for the attributes of the
  // sandbox, whose observer may not have been called yet.
  void Settle(const std::string& uuid, std::function<void()> then)
      EXCLUDES(mutex_);

  // The object of that key, and those below it, are gone.
  void Retire(const std::string& key) EXCLUDES(mutex_);

  // Adds a line to .host/audit.
  void Audit(LogLine line);

  // The mount ends: nothing is called any more.
  void Close() EXCLUDES(mutex_);

  void SandboxChanged(const std::string& uuid) override;
  void HostChanged() override;
  void Happened(const Event& event) override;
  void ActionEnded(const std::string& uuid, const Error* error) override;

 private:
  void Tell(const std::string& uuid = {}) EXCLUDES(mutex_);

  Mutex mutex_;
  bool closed_ GUARDED_BY(mutex_) = false;
  std::map<std::string, std::chrono::steady_clock::time_point> done_
      GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<Tree>> members_ GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::string>, std::weak_ptr<GuestPlace>>
      guest_places_ GUARDED_BY(mutex_);
  Timer* timer_ GUARDED_BY(mutex_);
  std::function<void(const std::string&)> changed_ GUARDED_BY(mutex_);
  std::function<void(const std::string&)> gone_ GUARDED_BY(mutex_);
};
using TreePtr = std::shared_ptr<Tree>;

// Throws Error(EPERM) when the caller's process was just refused to remove a
// thing in the directory of that key.
void CheckRefused(Tree& tree, const Caller& caller, const std::string& dir,
                  const std::string& name);

// Whether a failure is one of the sandbox, and not of the waiting for it.
[[nodiscard]] bool IsFailure(const Error& error);

// What a reader may know of; asks /proc for the groups once. Not for several
// threads at once.
class Access {
 public:
  explicit Access(const Caller& reader) : reader_(reader) {}
  // Whether a sandbox can be used: its directory entered.
  [[nodiscard]] bool MayUse(const Sandbox& sandbox) {
    return MayUse(sandbox.uid, sandbox.gid, sandbox.mode);
  }
  [[nodiscard]] bool MaySee(const Tree& tree, const LogLine& line);

 private:
  [[nodiscard]] bool MayUse(uid_t uid, gid_t gid, mode_t mode);
  [[nodiscard]] bool InGroup(gid_t gid);

  const Caller reader_;
  std::optional<std::vector<gid_t>> groups_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_H_
