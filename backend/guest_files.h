#ifndef SBXFS_BACKEND_GUEST_FILES_H_
#define SBXFS_BACKEND_GUEST_FILES_H_

#include <functional>
#include <string>
#include <utility>

#include "backend/file_tree.h"
#include "backend/util/error.h"
#include "backend/util/reply.h"

namespace sbxfs {

// Whose files: a sandbox's as they are now, or those that a snapshot has.
struct FilesOf {
  std::string uuid;
  std::string tag;  // the snapshot's; empty: the sandbox's own
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it.
  auto operator<=>(const FilesOf&) const = default;
};

// The files in guests and on their disks, for the tree's `fs`. Thread-safe.
class GuestFiles {
 public:
  // What is done with them. All three are called with no lock held, and `work`
  // and `fail` may throw nothing.
  struct Job {
    std::function<void(FileTree&)> work;
    // They cannot be asked, or did not answer in time: whatever `work` may come
    // to yet.
    std::function<void(const Error&)> fail;
    // Whether anybody waits for it still.
    std::function<bool()> wanted;
  };

  virtual ~GuestFiles() = default;
  // Runs the job on a thread that may wait for the guest, one after the other
  // where the guest takes one at a time. Returns at once.
  virtual void Run(const FilesOf& whose, Job job) = 0;
};

// The same with a Reply: what `work` returns is the answer, and what it throws.
template <typename T, typename F>
void AskFiles(GuestFiles& files, const FilesOf& whose, const Reply<T>& reply,
              F work) {
  GuestFiles::Job job;
  job.work = [reply, work = std::move(work)](FileTree& tree) mutable {
    reply.Guard([&] { reply.Ok(work(tree)); });
  };
  job.fail = [reply](const Error& error) { reply.GiveUp(error); };
  job.wanted = [reply] { return !reply.Answered(); };
  files.Run(whose, std::move(job));
}

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_FILES_H_
