#ifndef SBXFS_BACKEND_JOBS_H_
#define SBXFS_BACKEND_JOBS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/util/error.h"
#include "backend/util/reply.h"

namespace sbxfs {

// What a job is to do, set before it runs.
struct JobWish {
  // The words of a command, or one text for the user's shell.
  std::vector<std::string> words;
  bool shell = false;
  std::vector<std::string> env;  // KEY=value
  std::string cwd;               // empty: the user's home
  std::string user;              // empty: the sandbox's
  std::string input;
  std::optional<std::chrono::seconds> deadline;
  bool together = false;  // stderr goes where stdout goes
  bool operator==(const JobWish&) const = default;
};

enum class JobState { kNew, kRunning, kEnded, kLost };
[[nodiscard]] std::string_view JobStateName(JobState state);

enum class JobStream { kOut, kErr };

// What is known of a stream: its length, and its beginning.
struct JobOutput {
  // So much is kept here; what is beyond is read from the guest.
  static constexpr size_t kHead = 65536;
  // So much of a stream is kept at all.
  static constexpr uint64_t kMost = 64 << 20;

  uint64_t size = 0;
  bool cut = false;  // there was more
  std::shared_ptr<const std::string> head = std::make_shared<std::string>();
};

// A command in a guest, at one moment. Immutable.
struct Job {
  std::string id;    // never another's, in any sandbox
  std::string uuid;  // of the sandbox
  std::string name;  // empty: of no directory
  JobWish wish;
  JobState state = JobState::kNew;
  std::string reason;            // one line, why it is in that state
  std::optional<int> exit_code;  // 128 and the signal's number for a signal
  std::chrono::system_clock::time_point changed;
  JobOutput out, err;
};
using JobPtr = std::shared_ptr<const Job>;

// The jobs of all sandboxes. Functions may be called from any thread; those
// without a Reply answer from memory. Changes are told to the backend's
// observer.
class Jobs {
 public:
  virtual ~Jobs() = default;

  // Those with a name, sorted by it.
  [[nodiscard]] virtual std::vector<JobPtr> List(
      const std::string& uuid) const = 0;
  // Null when there is none.
  [[nodiscard]] virtual JobPtr Find(const std::string& uuid,
                                    const std::string& name) const = 0;
  [[nodiscard]] virtual JobPtr Get(const std::string& id) const = 0;

  // Without a name it is in no list. Throws Error(EEXIST), Error(ENOSPC).
  virtual JobPtr Make(const std::string& uuid, const std::string& name) = 0;
  // Throws Error(EBUSY) once it has run, Error(ENOENT).
  virtual void Prepare(const std::string& id,
                       const std::function<void(JobWish&)>& change) = 0;
  // Answers when it has ended, however; with `wait` off when it has begun.
  // EBUSY when it has run already, EHOSTDOWN without a guest that runs, EINVAL
  // when the guest cannot run it as wished. The reply's cancel ends the waiting
  // alone.
  virtual void Run(const std::string& id, const std::vector<std::string>& words,
                   bool shell, bool wait, Reply<Done> reply) = 0;
  // Answers as Run would have, of one that was run.
  virtual void Await(const std::string& id, Reply<Done> reply) = 0;
  // After success Get shows a running job's output as it is now.
  virtual void Refresh(const std::string& id, Reply<Done> reply) = 0;
  // Bytes from `offset`, as many as are at hand; none at the end.
  virtual void Read(const std::string& id, JobStream stream, uint64_t offset,
                    Reply<std::string> reply) = 0;
  // While the result lives the job's growth is told of within a second.
  [[nodiscard]] virtual std::shared_ptr<void> Watch(const std::string& id) = 0;
  // Ends it, and it is gone. Gone at once; answers when it has ended too.
  virtual void Remove(const std::string& id, Reply<Done> reply) = 0;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_JOBS_H_
